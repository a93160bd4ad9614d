package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"claudemesh/daemon/groupcommit"
)

// ErrBadReceipt: the state is not one a receipt can report.
var ErrBadReceipt = errors.New("unknown receipt state")

// receiptStates in the order a message goes through them.
var receiptStates = [...]string{"delivered", "surfaced", "answered"}

const (
	// What was on a broker's word before receipts were signed gives way to proof.
	insertReceipt = `INSERT INTO receipts(row_id, recipient, state, via, by_name, at, proven) VALUES(?, ?, ?, ?, ?, ?, 1)
 ON CONFLICT DO UPDATE SET via = excluded.via, by_name = excluded.by_name, at = excluded.at, proven = 1 WHERE NOT proven`
	reachedStates = `SELECT state FROM receipts WHERE row_id = ? AND recipient = ? AND proven`
	listReceipts  = `SELECT row_id, recipient, state, via, by_name, at, proven FROM receipts WHERE row_id = ? ORDER BY at, recipient, state`
)

// Step is what a receipt tells, and what the caller has proof of: a recipient's copy of a message reached State.
type Step struct {
	Mesh, ClientMessageID string
	Recipient             string // the key it was for
	State                 string // delivered, surfaced or answered
	Via, By               string // the way and the session, "" when unknown
	At                    time.Time
}

// Progress is what became of a Step.
type Progress struct {
	Row      Row  // the message; empty when this store has none of that id
	Advanced bool // this recipient is further than was known; a repetition, or a step reported out of order, is not news
}

// Advance records steps, all of them together, and tells what each was. The status of the rows is left alone, whatever it is. Error: ErrBadReceipt, and
// nothing is recorded.
func (s *Store) Advance(ctx context.Context, steps ...Step) ([]Progress, error) {
	for _, p := range steps {
		if !slices.Contains(receiptStates[:], p.State) {
			return nil, fmt.Errorf("record receipt: %w: %q", ErrBadReceipt, p.State)
		}
	}
	went := make([]Progress, len(steps))
	err := s.db.Note(ctx, func(tx *groupcommit.Tx) error {
		for i, p := range steps {
			var err error
			if went[i], err = advance(tx, p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("record receipts: %w", err)
	}
	return went, nil
}

func advance(tx *groupcommit.Tx, p Step) (Progress, error) {
	row, found, err := one(tx, selectByCMID, p.ClientMessageID, p.Mesh)
	if err != nil || !found {
		return Progress{}, err
	}
	known, err := reached(tx, row.ID, p.Recipient)
	if err != nil {
		return Progress{}, err
	}
	if _, err := tx.Exec(insertReceipt, row.ID, p.Recipient, p.State, p.Via, p.By, p.At.UnixMilli()); err != nil {
		return Progress{}, err
	}
	return Progress{Row: row, Advanced: slices.Index(receiptStates[:], p.State) > known}, nil
}

// reached is the index of the furthest state known, -1 for none.
func reached(tx *groupcommit.Tx, rowID, recipient string) (int, error) {
	rows, err := tx.Query(reachedStates, rowID, recipient)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	known := -1
	for rows.Next() {
		var state string
		if err := rows.Scan(&state); err != nil {
			return 0, err
		}
		known = max(known, slices.Index(receiptStates[:], state))
	}
	return known, rows.Err()
}

// Receipts returns everything known about the copies of one row, oldest first.
func (s *Store) Receipts(ctx context.Context, rowID string) ([]Receipt, error) {
	rows, err := s.db.Query(ctx, listReceipts, rowID)
	if err != nil {
		return nil, fmt.Errorf("read receipts: %w", err)
	}
	defer rows.Close()
	var all []Receipt
	for rows.Next() {
		var r Receipt
		var at int64
		if err := rows.Scan(&r.RowID, &r.Recipient, &r.State, &r.Via, &r.By, &at, &r.Proven); err != nil {
			return nil, fmt.Errorf("read receipts: %w", err)
		}
		r.At = time.UnixMilli(at)
		all = append(all, r)
	}
	return all, rows.Err()
}
