package outbox

import (
	"context"
	"fmt"

	"claudemesh/daemon/groupcommit"
)

// FailMesh gives up every row of a mesh that has not been sent, and returns them: the mesh was left.
func (s *Store) FailMesh(ctx context.Context, mesh, reason string) (failed []Row, err error) {
	err = s.db.Write(ctx, func(tx *groupcommit.Tx) error {
		rows, err := tx.Query(killMesh, reason, mesh)
		if err != nil {
			return err
		}
		failed, err = scanAll(rows)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("give up messages of mesh: %w", err)
	}
	return failed, nil
}

// RenameMesh moves all rows of a mesh to another name. A from of the form *@X
// means every name that ends in @X. The new name must have none with the same client message ids.
func (s *Store) RenameMesh(ctx context.Context, from, to string) error {
	err := s.db.Write(ctx, func(tx *groupcommit.Tx) error {
		_, err := tx.Exec(renameMesh, to, from)
		return err
	})
	if err != nil {
		return fmt.Errorf("rename mesh in outbox: %w", err)
	}
	return nil
}

const (
	killMesh   = `UPDATE outbox SET status = 'dead', last_error = ? WHERE mesh = ? AND status IN ('pending', 'inflight') RETURNING ` + columns
	renameMesh = `UPDATE outbox SET mesh = ?1 WHERE mesh = ?2 OR instr(mesh, '@') > 0 AND '*' || substr(mesh, instr(mesh, '@')) = ?2`
)
