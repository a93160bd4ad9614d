package inbox

import (
	"context"
	"fmt"

	"claudemesh/daemon/groupcommit"
)

// Closed returns the posts of a topic (its target spec, "#" and the id) that came before their key, with Seq above after, oldest first. limit 0 means 100.
func (s *Store) Closed(ctx context.Context, mesh, targetSpec string, after int64, limit int) ([]Message, error) {
	return collect(s.db.Query(ctx, selectClosed, mesh, targetSpec, after, bound(limit)))
}

// Opened stores the text of a post that came before its key, and returns it with the sessions it is for. It is unread again for
// who has seen that there was something. opened is false when it had been opened before.
func (s *Store) Opened(ctx context.Context, id, body string) (m Message, sessions []string, opened bool, err error) {
	err = s.db.Write(ctx, func(tx *groupcommit.Tx) error {
		if _, err := tx.Exec(dropWords, id); err != nil {
			return err
		}
		changed, err := tx.Exec(openMessage, body, id)
		if err != nil || changed == 0 {
			return err
		}
		opened = true
		for _, query := range []string{addWords, unseeOpened} {
			if _, err := tx.Exec(query, id); err != nil {
				return err
			}
		}
		all, err := collect(tx.Query(selectByID, id))
		if err != nil {
			return err
		}
		if len(all) == 0 {
			return ErrNotFound
		}
		m = all[0]
		return nil
	})
	if err != nil {
		return Message{}, nil, false, fmt.Errorf("open message: %w", err)
	}
	deliveries, err := s.Deliveries(ctx, id)
	for _, d := range deliveries {
		sessions = append(sessions, d.SessionID)
	}
	return m, sessions, opened, err
}
