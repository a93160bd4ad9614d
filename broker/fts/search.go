package fts

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// maxWords is how many different words of a query are looked for. A text of more is no query; those behind are left out, which can only find more.
const maxWords = 64

// Hit is a document found. Score is BM25, higher is better; it compares hits of one search only.
type Hit struct {
	ID    string
	Score float64
}

// Search finds the documents of one kind in a mesh that hold every word of the query, best first, at most limit. Words are compared without case and accents,
// by their English stem ("databases" finds "database"); words that every English text is full of are passed over if there are others. No text is a malformed
// query; one without words finds nothing.
func (v *View) Search(ctx context.Context, mesh, kind, query string, limit int) (hits []Hit, err error) {
	words := terms(query)
	if len(words) == 0 || limit <= 0 {
		return nil, nil
	}
	match := `scope:"` + scope(mesh, kind) + `" AND text:("` + strings.Join(words, `" AND "`) + `")`
	v.mu.RLock()
	defer v.mu.RUnlock()
	if err := v.ready(); err != nil {
		return nil, err
	}
	rows, err := v.db.QueryContext(ctx, search, match, mesh, kind, limit)
	if err != nil {
		return nil, fmt.Errorf("search: %w", classify(err))
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var h Hit
		if err := rows.Scan(&h.ID, &h.Score); err != nil {
			return nil, fmt.Errorf("search: %w", classify(err))
		}
		hits = append(hits, h)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("search: %w", classify(err))
	}
	return hits, nil
}

// terms are the different words of a text in their order, without those that say nothing unless there are no others. They hold letters, digits and marks
// only: nothing in them is an operator of the search language.
func terms(text string) []string {
	var all, telling []string
	seen := map[string]bool{}
	for _, w := range strings.FieldsFunc(text, func(r rune) bool { return !partOfWord(r) && !unicode.IsMark(r) }) {
		w = strings.ToLower(w)
		if seen[w] || strings.IndexFunc(w, partOfWord) < 0 {
			continue
		}
		seen[w] = true
		all = append(all, w)
		if !isCommon[w] {
			telling = append(telling, w)
		}
	}
	if len(telling) == 0 {
		telling = all
	}
	return telling[:min(len(telling), maxWords)]
}

// partOfWord is what the index's tokenizer (unicode61) makes words of.
func partOfWord(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.Is(unicode.Co, r)
}

// isCommon are words that a question holds and the answer need not.
var isCommon = func() map[string]bool {
	set := map[string]bool{}
	for _, w := range strings.Fields(`a about am an and any are as at be been but by can could did do does for from had has have he her here him his how i if in
 into is it its me my no nor not of off on or our she should so than that the their them then there these they this those to too us was we were what when
 where which who whom why will with would you your`) {
		set[w] = true
	}
	return set
}()
