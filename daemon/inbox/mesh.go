package inbox

import (
	"context"
	"fmt"

	"claudemesh/daemon/groupcommit"
)

// RenameMesh moves all messages of a mesh to another name.
func (s *Store) RenameMesh(ctx context.Context, from, to string) error {
	err := s.db.Write(ctx, func(tx *groupcommit.Tx) error {
		_, err := tx.Exec(`UPDATE messages SET mesh = ? WHERE mesh = ?`, to, from)
		return err
	})
	if err != nil {
		return fmt.Errorf("rename mesh in inbox: %w", err)
	}
	return nil
}
