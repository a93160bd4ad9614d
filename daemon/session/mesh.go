package session

import (
	"context"
	"fmt"

	"claudemesh/daemon/groupcommit"
)

// RenameMesh moves sessions, the keys of their names, conversations and the directory of peers to another name of the mesh. A from of the form *@X
// means every name that ends in @X.
func (s *Store) RenameMesh(ctx context.Context, from, to string) error {
	err := s.db.Write(ctx, func(tx *groupcommit.Tx) error {
		for _, table := range []string{"sessions", "identities", "conversations", "peers", "known_names", "verified_members"} {
			if _, err := tx.Exec(`UPDATE `+table+` SET mesh = ?1 WHERE mesh = ?2 OR instr(mesh, '@') > 0 AND '*' || substr(mesh, instr(mesh, '@')) = ?2`, to, from); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("rename mesh in session registry: %w", err)
	}
	return nil
}
