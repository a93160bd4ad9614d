package inbox

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// What a session has not been shown yet. Posts of topics that wait for their key are left out everywhere here until it has come.

// Waiting returns what a session has not been shown yet, open or pushed without evidence, oldest first. limit 0 means 100.
func (s *Store) Waiting(ctx context.Context, session string, limit int) ([]Waiting, error) {
	return s.waiting(ctx, selectWaiting, session, bound(limit))
}

// Due returns what may have to be handed over: what was never pushed, and what was pushed less than tries times by another way than passed; of each kind the
// oldest ones, at most limit. They are ordered by arrival.
func (s *Store) Due(ctx context.Context, session, passed string, tries, limit int) ([]Waiting, error) {
	open, err := s.waiting(ctx, selectOpen, session, limit)
	if err != nil {
		return nil, err
	}
	pushed, err := s.waiting(ctx, selectPushed, session, passed, tries, limit)
	if err != nil {
		return nil, err
	}
	all := append(pushed, open...)
	slices.SortFunc(all, func(a, b Waiting) int { return int(a.Seq - b.Seq) })
	return all, nil
}

// PushedBy returns what was pushed to a session by one way, before a time, and has not surfaced; the oldest 1,000.
func (s *Store) PushedBy(ctx context.Context, session, via string, before time.Time) ([]Waiting, error) {
	return s.waiting(ctx, selectVia, session, via, before.UnixMilli(), 1000)
}

// WaitingFor returns those of a session's waiting messages that have one of the ids, the broker's or our own.
func (s *Store) WaitingFor(ctx context.Context, session string, ids []string) (all []Waiting, err error) {
	for _, id := range ids {
		some, err := s.waiting(ctx, selectShown, session, id)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

func (s *Store) waiting(ctx context.Context, query string, args ...any) ([]Waiting, error) {
	rows, err := s.db.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read waiting messages: %w", err)
	}
	defer rows.Close()
	var all []Waiting
	for rows.Next() {
		var w Waiting
		var d deliveryRow
		if w.Message, err = scanMessage(rows, d.fields()...); err != nil {
			return nil, fmt.Errorf("read waiting messages: %w", err)
		}
		w.Delivery = d.delivery()
		all = append(all, w)
	}
	return all, rows.Err()
}
