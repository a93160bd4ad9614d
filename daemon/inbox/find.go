package inbox

import (
	"context"
	"errors"
	"fmt"
)

// MinPrefix is the length from which the beginning of an id stands for it.
const MinPrefix = 8

// ErrAmbiguous: several messages have this id, or begin so.
var ErrAmbiguous = errors.New("several messages have this id")

const (
	// ?2 and ?3 bound who asks: "" is the user, and every mesh.
	visible = ` AND (?3 = '' OR m.mesh = ?3) AND (?2 = '' OR EXISTS(SELECT 1 FROM deliveries d WHERE d.message_id = m.id AND d.session_id = ?2))`

	findExact  = `SELECT ` + columns + ` FROM messages m WHERE (m.id = ?1 OR m.client_message_id = ?1 OR m.broker_message_id = ?1)` + visible + ` ORDER BY m.seq DESC LIMIT 3`
	findPrefix = `SELECT ` + columns + ` FROM messages m WHERE (m.id BETWEEN ?1 AND ?4 OR m.client_message_id BETWEEN ?1 AND ?4 OR m.broker_message_id BETWEEN ?1 AND ?4)` +
		visible + ` ORDER BY m.seq DESC LIMIT 3`
	afterPrefix = "\U0010ffff" // the last character there is: what begins with a prefix sorts before prefix + this
)

// Find returns the message that ref means to a session, or with "" to the user: our id, the broker's, the sender's, or the beginning of one in MinPrefix or more
// bytes. A full id goes before the beginning of another. mesh limits the search, "" does not. Errors: ErrNotFound, ErrAmbiguous.
func (s *Store) Find(ctx context.Context, ref, session, mesh string) (Message, error) {
	all, err := s.Meant(ctx, ref, session, mesh)
	if err != nil {
		return Message{}, err
	}
	if len(all) == 0 && len(ref) >= MinPrefix {
		if all, err = collect(s.db.Query(ctx, findPrefix, ref, session, mesh, ref+afterPrefix)); err != nil {
			return Message{}, fmt.Errorf("find message: %w", err)
		}
	}
	switch len(all) {
	case 0:
		return Message{}, ErrNotFound
	case 1:
		return all[0], nil
	}
	return Message{}, ErrAmbiguous
}

// Meant is Find by full ids only, and returns all that fit, at most 3, the newest first: senders choose their ids, so two may have the same.
func (s *Store) Meant(ctx context.Context, ref, session, mesh string) ([]Message, error) {
	all, err := collect(s.db.Query(ctx, findExact, ref, session, mesh))
	if err != nil {
		return nil, fmt.Errorf("find message: %w", err)
	}
	return all, nil
}
