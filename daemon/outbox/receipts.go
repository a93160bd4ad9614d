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

// Receipt records that a recipient's copy of a message reached state (delivered, surfaced or answered), which the caller has proof of, and returns the
// message. advanced tells whether this recipient is further than was known: a repetition or a step reported out of
// order is not news. The status of the row is left alone, whatever it is. Errors: ErrNotFound, ErrBadReceipt.
func (s *Store) Receipt(ctx context.Context, cmid, mesh, recipient, state, via, by string, at time.Time) (row Row, advanced bool, err error) {
	rank := slices.Index(receiptStates[:], state)
	if rank < 0 {
		return Row{}, false, fmt.Errorf("record receipt: %w: %q", ErrBadReceipt, state)
	}
	err = s.db.Note(ctx, func(tx *groupcommit.Tx) error {
		r, found, err := one(tx, selectByCMID, cmid, mesh)
		if err != nil {
			return err
		}
		if !found {
			return ErrNotFound
		}
		known, err := reached(tx, r.ID, recipient)
		if err != nil {
			return err
		}
		row, advanced = r, rank > known
		_, err = tx.Exec(insertReceipt, r.ID, recipient, state, via, by, at.UnixMilli())
		return err
	})
	if err != nil {
		return Row{}, false, fmt.Errorf("record receipt: %w", err)
	}
	return row, advanced, nil
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
