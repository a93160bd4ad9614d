package inbox

import (
	"context"
	"fmt"

	"claudemesh/daemon/groupcommit"
)

// RenameMesh moves all messages of a mesh to another name. A from of the form *@X
// means every name that ends in @X.
func (s *Store) RenameMesh(ctx context.Context, from, to string) error {
	err := s.db.Write(ctx, func(tx *groupcommit.Tx) error {
		_, err := tx.Exec(`UPDATE messages SET mesh = ?1 WHERE mesh = ?2 OR instr(mesh, '@') > 0 AND '*' || substr(mesh, instr(mesh, '@')) = ?2`, to, from)
		return err
	})
	if err != nil {
		return fmt.Errorf("rename mesh in inbox: %w", err)
	}
	return nil
}
