package outbox

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"claudemesh/daemon/groupcommit"
)

// Claim takes up to limit rows that are due and marks them inflight, in the order of acceptance. A row is passed over
// while an earlier pending row for the same recipient is not due yet. The caller owns what it gets until it calls Sent,
// Release or Kill.
//
// Candidates are looked up outside the write. That is safe: a row that becomes pending meanwhile is either accepted
// later or has had its first attempt, so it can't be overtaken by what is taken here.
func (s *Store) Claim(ctx context.Context, mesh string, limit int) ([]Row, error) {
	now := s.now()
	seqs, err := s.candidates(ctx, mesh, now, limit)
	if err != nil || len(seqs) == 0 {
		return nil, err
	}
	var claimed []Row
	err = s.db.Note(ctx, func(tx *groupcommit.Tx) error {
		for _, seq := range seqs {
			r, ok, err := one(tx, claimRow, seq, now)
			if err != nil {
				return err
			}
			if ok {
				claimed = append(claimed, r)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("claim messages: %w", err)
	}
	return claimed, nil
}

// candidates merges the lanes that have something due into accept order. Only the first limit of those lanes can
// contribute to the first limit rows, as each contributes its head.
func (s *Store) candidates(ctx context.Context, mesh string, now int64, limit int) ([]int64, error) {
	heads, err := s.heads(ctx, mesh)
	if err != nil {
		return nil, err
	}
	var seqs []int64
	lanes := 0
	for _, h := range heads {
		if h.due > now {
			continue
		}
		if lanes++; lanes > limit {
			break
		}
		due, err := s.dueInLane(ctx, mesh, h.recipient, now, limit)
		if err != nil {
			return nil, err
		}
		seqs = append(seqs, due...)
	}
	slices.SortFunc(seqs, cmp.Compare)
	return seqs[:min(limit, len(seqs))], nil
}

type head struct {
	recipient string
	due       int64 // ms; when its lane can move
}

func (s *Store) heads(ctx context.Context, mesh string) ([]head, error) {
	rows, err := s.db.Query(ctx, laneHeads, mesh)
	if err != nil {
		return nil, fmt.Errorf("read lanes: %w", err)
	}
	defer rows.Close()
	var heads []head
	for rows.Next() {
		var h head
		if err := rows.Scan(&h.recipient, &h.due); err != nil {
			return nil, fmt.Errorf("read lanes: %w", err)
		}
		heads = append(heads, h)
	}
	return heads, rows.Err()
}

func (s *Store) dueInLane(ctx context.Context, mesh, recipient string, now int64, limit int) ([]int64, error) {
	rows, err := s.db.Query(ctx, laneRows, mesh, recipient, limit)
	if err != nil {
		return nil, fmt.Errorf("read lane: %w", err)
	}
	defer rows.Close()
	var seqs []int64
	for rows.Next() {
		var seq, due int64
		if err := rows.Scan(&seq, &due); err != nil {
			return nil, fmt.Errorf("read lane: %w", err)
		}
		if due > now {
			break
		}
		seqs = append(seqs, seq)
	}
	return seqs, rows.Err()
}

// NextDue is when Claim will next have something to give for this mesh, possibly in the past; false when nothing is pending.
func (s *Store) NextDue(ctx context.Context, mesh string) (time.Time, bool, error) {
	heads, err := s.heads(ctx, mesh)
	if err != nil || len(heads) == 0 {
		return time.Time{}, false, err
	}
	first := slices.MinFunc(heads, func(a, b head) int { return cmp.Compare(a.due, b.due) })
	return time.UnixMilli(first.due), true, nil
}

// Resolved notes the routing target of a row that was accepted without one. It is written once: ErrState when the row
// has one already or is finished.
func (s *Store) Resolved(ctx context.Context, id, targetSpec string) error {
	return s.move(ctx, "resolve", resolveRow, id, targetSpec, id)
}

// Sent records the broker's acknowledgement: inflight → done. ErrState when the row is not in flight any more.
func (s *Store) Sent(ctx context.Context, id, brokerMessageID string) error {
	return s.move(ctx, "mark sent", sendRow, id, brokerMessageID, s.now(), id)
}

// Release gives a claimed row back for another attempt at next: inflight → pending. ErrState when the row is not in
// flight any more.
func (s *Store) Release(ctx context.Context, id string, next time.Time, lastErr string) error {
	return s.move(ctx, "release", releaseRow, id, next.UnixMilli(), lastErr, id)
}

// Postpone is Release of a row whose attempt does not count: the broker asked to come back at next.
func (s *Store) Postpone(ctx context.Context, id string, next time.Time, lastErr string) error {
	return s.move(ctx, "postpone", postponeRow, id, next.UnixMilli(), lastErr, id)
}

// Kill gives a row up for good: pending or inflight → dead. ErrState when it is in neither.
func (s *Store) Kill(ctx context.Context, id, reason string) error {
	return s.move(ctx, "give up", killRow, id, reason, id)
}

// move runs one conditional transition and tells a lost race from an unknown id. It does not wait for the disk: a transition that a power failure undoes
// is made again, because the row is then sent again under its id and gets the same answer.
func (s *Store) move(ctx context.Context, what, query, id string, args ...any) error {
	err := s.db.Note(ctx, func(tx *groupcommit.Tx) error {
		changed, err := tx.Exec(query, args...)
		if err != nil || changed == 1 {
			return err
		}
		row, found, err := one(tx, selectByID, id)
		if err != nil {
			return err
		}
		if !found {
			return ErrNotFound
		}
		return fmt.Errorf("%w: it is %s", ErrState, row.Status)
	})
	if err != nil {
		return fmt.Errorf("%s message: %w", what, err)
	}
	return nil
}

// Recover returns every inflight row to pending, due now, and tells how many there were. It is for the start of the
// daemon, before the first Claim: such rows were under way when the last one ended.
func (s *Store) Recover(ctx context.Context) (int, error) {
	return s.moveMany(ctx, "recover", recoverRows, s.now())
}

// WakeAll makes every pending row of a mesh due now, for when its link is back.
func (s *Store) WakeAll(ctx context.Context, mesh string) error {
	_, err := s.moveMany(ctx, "wake", wakeRows, s.now(), mesh)
	return err
}

func (s *Store) moveMany(ctx context.Context, what, query string, args ...any) (int, error) {
	var changed int64
	err := s.db.Note(ctx, func(tx *groupcommit.Tx) (err error) {
		changed, err = tx.Exec(query, args...)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("%s messages: %w", what, err)
	}
	return int(changed), nil
}

const (
	backoffBase = 500 * time.Millisecond
	backoffCap  = 30 * time.Second
)

// Backoff is how long to wait after the attempt-th failure: uniform in [0, min(30 s, 500 ms·2^attempt)], so that rows
// which failed together don't come back together. There is no last attempt: a recipient that is offline for a week
// gets its message after a week.
func Backoff(attempt int, r *rand.Rand) time.Duration {
	ceiling := backoffCap
	if attempt < 6 { // 500 ms·2^6 is above the cap
		ceiling = min(backoffCap, backoffBase<<max(attempt, 0))
	}
	return time.Duration(r.Int64N(int64(ceiling) + 1))
}
