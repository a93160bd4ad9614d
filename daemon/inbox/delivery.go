package inbox

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"claudemesh/daemon/groupcommit"
	"claudemesh/mesh"
)

// deliveryRow is a delivery as it is read: deliveryColumns.
type deliveryRow struct {
	Delivery
	pushed, surfaced, seen int64
}

func (r *deliveryRow) fields() []any {
	return []any{&r.MessageID, &r.SessionID, &r.State, &r.PushedVia, &r.pushed, &r.Tries, &r.Via, &r.Evidence, &r.surfaced, &r.seen}
}

func (r *deliveryRow) delivery() Delivery {
	r.PushedAt, r.SurfacedAt, r.SeenAt = fromMillis(r.pushed), fromMillis(r.surfaced), fromMillis(r.seen)
	return r.Delivery
}

// Deliveries returns the delivery rows of one message.
func (s *Store) Deliveries(ctx context.Context, messageID string) ([]Delivery, error) {
	rows, err := s.db.Query(ctx, selectDelivery, messageID)
	if err != nil {
		return nil, fmt.Errorf("read deliveries: %w", err)
	}
	defer rows.Close()
	var all []Delivery
	for rows.Next() {
		var d deliveryRow
		if err := rows.Scan(d.fields()...); err != nil {
			return nil, fmt.Errorf("read deliveries: %w", err)
		}
		all = append(all, d.delivery())
	}
	return all, rows.Err()
}

// Pushed notes that messages were sent towards a session, and by which way. A message that has surfaced stays surfaced; one the session
// has no delivery row for is left alone.
func (s *Store) Pushed(ctx context.Context, session string, ids []string, via string) error {
	now := s.clock.Now().UnixMilli()
	return s.write(ctx, "note push", func(tx *groupcommit.Tx) error {
		for _, id := range ids {
			if _, err := tx.Exec(pushDelivery, via, now, id, session); err != nil {
				return err
			}
		}
		return nil
	})
}

// Surfaced closes a session's delivery rows, with the way and the evidence, and returns the messages for which this was news, in the order given. Ids
// that have surfaced before or that the session has no delivery row for are passed over.
func (s *Store) Surfaced(ctx context.Context, session string, ids []string, via, evidence string) (news []Message, err error) {
	now := s.clock.Now().UnixMilli()
	err = s.write(ctx, "note surfacing", func(tx *groupcommit.Tx) error {
		for _, id := range ids {
			changed, err := tx.Exec(surfaceDelivery, via, evidence, now, id, session)
			if err != nil {
				return err
			}
			if changed == 0 {
				continue
			}
			m, err := collect(tx.Query(selectByID, id))
			if err != nil {
				return err
			}
			news = append(news, m...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return news, nil
}

// AdoptOrphans gives a session the messages of its mesh that are for the member, for everybody or for one of groups
// (names, with or without "@" and ":role"; a message to a group is also for those below it) and that nobody has: no session has a delivery row and the user has not seen
// them. They are returned oldest first. Of two sessions that ask at once one gets each message.
func (s *Store) AdoptOrphans(ctx context.Context, slug, session string, groups []string) ([]Message, error) {
	in := func(target string) bool {
		return slices.ContainsFunc(groups, func(g string) bool {
			name, _, _ := strings.Cut(strings.TrimPrefix(g, "@"), ":")
			return mesh.GroupReaches(strings.TrimPrefix(target, "@"), name)
		})
	}
	return s.adopt(ctx, session, func(m Message) bool { return m.ToKind != ToGroup || in(m.TargetSpec) }, multicastOrphans, slug)
}

// Inherit gives a session the messages addressed to its key, publicKey, that nobody has. An earlier session held the
// same key and ended before it was shown them (see Abandon).
func (s *Store) Inherit(ctx context.Context, mesh, session, publicKey string) ([]Message, error) {
	return s.adopt(ctx, session, func(Message) bool { return true }, keyOrphans, mesh, publicKey)
}

func (s *Store) adopt(ctx context.Context, session string, wants func(Message) bool, query string, args ...any) (adopted []Message, err error) {
	err = s.write(ctx, "adopt messages", func(tx *groupcommit.Tx) error {
		all, err := collect(tx.Query(query, args...))
		if err != nil {
			return err
		}
		for _, m := range all {
			if wants(m) {
				adopted = append(adopted, m)
			}
		}
		return deliver(tx, []string{session}, adopted...)
	})
	if err != nil {
		return nil, err
	}
	return adopted, nil
}

// Abandon drops the delivery rows a session left unsurfaced when it ended and tells how many: what no other session has
// can be adopted then.
func (s *Store) Abandon(ctx context.Context, session string) (dropped int, err error) {
	err = s.write(ctx, "abandon deliveries", func(tx *groupcommit.Tx) error {
		n, err := tx.Exec(dropWaiting, session)
		dropped = int(n)
		return err
	})
	return dropped, err
}

// write changes deliveries, never messages. It does not wait for the disk: what a power failure undoes is that a message was handed over, and it is
// handed over again.
func (s *Store) write(ctx context.Context, what string, fn func(*groupcommit.Tx) error) error {
	if err := s.db.Note(ctx, fn); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// bound applies the default and the maximum of a Limit.
func bound(limit int) int {
	if limit <= 0 {
		return 100
	}
	return min(limit, 10_000)
}
