package inbox

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"claudemesh/daemon/groupcommit"
)

// indexChunk is how many messages one write takes into the search index: about 10 ms, so that mail goes on arriving
// while a long backlog is indexed.
const indexChunk = 1000

// SearchQuery selects items for [Store.Search].
type SearchQuery struct {
	Text    string // words that must all occur in the text or the sender's name; the last may be the beginning of a word
	Session string // "" is the user, who sees everything
	Mesh    string
	Limit   int // 0 means 100, at most 10,000
}

// Search finds messages by their words, newest first. No text is a malformed query; one without words finds nothing.
func (s *Store) Search(ctx context.Context, q SearchQuery) ([]Item, error) {
	match := matchExpression(q.Text)
	if match == "" {
		return nil, nil
	}
	if err := s.index(ctx); err != nil {
		return nil, err
	}
	query, args := view(q.Session, q.Mesh)
	query += ` AND m.seq IN (SELECT rowid FROM messages_fts WHERE messages_fts MATCH ?) ORDER BY m.seq DESC LIMIT ?`
	return s.items(ctx, q.Session, query, append(args, match, bound(q.Limit))...)
}

// matchExpression quotes every word, so that nothing in the text is an operator of the search language.
func matchExpression(text string) string {
	words := strings.Fields(strings.ReplaceAll(text, "\x00", " "))
	for i, w := range words {
		words[i] = `"` + strings.ReplaceAll(w, `"`, `""`) + `"`
	}
	if len(words) == 0 {
		return ""
	}
	return strings.Join(words, " ") + "*"
}

// index brings the search index up to date.
func (s *Store) index(ctx context.Context) error {
	for {
		behind, err := s.behind(ctx)
		if err != nil || !behind {
			return err
		}
		err = s.write(ctx, "index messages", func(tx *groupcommit.Tx) error {
			if _, err := tx.Exec(indexMore, indexChunk); err != nil {
				return err
			}
			_, err := tx.Exec(moveMark, indexChunk)
			return err
		})
		if err != nil {
			return err
		}
	}
}

func (s *Store) behind(ctx context.Context) (behind bool, err error) {
	rows, err := s.db.Query(ctx, unindexed)
	if err != nil {
		return false, fmt.Errorf("look at search index: %w", err)
	}
	defer rows.Close()
	if rows.Next() {
		err = rows.Scan(&behind)
	}
	return behind, errors.Join(err, rows.Err())
}
