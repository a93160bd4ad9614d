package outbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"claudemesh/daemon/groupcommit"
)

var (
	// ErrNotRequeueable: the message was sent, or has been requeued already.
	ErrNotRequeueable = errors.New("message cannot be requeued")
	// ErrIDInUse: the new client message id has a row on this mesh.
	ErrIDInUse = errors.New("client message id is in use")
)

// Requeue replaces a pending, inflight or dead row by a new pending one under another client message id (a UUIDv4 when
// newCMID is empty), keeping mesh, sender, route and content, and returns the new row. The old row becomes aborted, by
// whom is recorded. It is one write: on an error nothing has changed. Errors: ErrNotFound, ErrNotRequeueable, ErrIDInUse.
//
// A row in flight may still arrive: its late answer then meets an aborted row and is ignored.
func (s *Store) Requeue(ctx context.Context, id, newCMID, by string) (Row, error) {
	if newCMID == "" {
		newCMID = uuid.NewString()
	}
	var fresh Row
	err := s.db.Write(ctx, func(tx *groupcommit.Tx) error {
		old, found, err := one(tx, selectByID, id)
		if err != nil {
			return err
		}
		if !found {
			return ErrNotFound
		}
		if _, used, err := one(tx, selectByCMID, newCMID, old.Mesh); err != nil {
			return err
		} else if used {
			return ErrIDInUse
		}
		n := old.NewRow
		n.ID, n.ClientMessageID = uuid.NewString(), newCMID
		changed, err := tx.Exec(abortRow, s.now(), by, n.ID, id)
		if err != nil {
			return err
		}
		if changed != 1 {
			return fmt.Errorf("%w: it is %s", ErrNotRequeueable, old.Status)
		}
		fresh, err = s.insert(tx, n)
		return err
	})
	if err != nil {
		return Row{}, fmt.Errorf("requeue message: %w", err)
	}
	return fresh, nil
}
