package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"claudemesh/mesh"
)

// A mesh is known to the stores by its slug. When that changes, config.json and three databases change; the intent is written down first, so that a crash
// in between is finished at the next start.

const moveFile = "mesh-move.json"

type move struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// moveMesh changes config.json, and the name of a mesh in the stores. The mesh must be detached, Daemon.config held.
func (d *Daemon) moveMesh(ctx context.Context, m move, edit func(*mesh.Config) error) error {
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode move: %w", err)
	}
	path := filepath.Join(d.opt.Dir, moveFile)
	if err := writePrivate(path, string(data)+"\n"); err != nil {
		return storeError(err)
	}
	if err := mesh.UpdateConfig(d.opt.ConfigDir, edit); err != nil {
		return errors.Join(fmt.Errorf("save config: %w", storeError(err)), os.Remove(path))
	}
	return d.moveStores(ctx, m)
}

// moveStores moves what the stores hold and forgets the intent. Done again it finds nothing to move.
func (d *Daemon) moveStores(ctx context.Context, m move) error {
	for _, rename := range []func(context.Context, string, string) error{d.outbox.RenameMesh, d.inbox.RenameMesh, d.session.RenameMesh} {
		if err := rename(ctx, m.From, m.To); err != nil {
			return storeError(err)
		}
	}
	if err := os.Remove(filepath.Join(d.opt.Dir, moveFile)); err != nil {
		return fmt.Errorf("forget move: %w", err)
	}
	return nil
}

// finishMove does what a crash interrupted. The move holds if config.json has it: the old name is not joined any more.
func (d *Daemon) finishMove(ctx context.Context, config *mesh.Config) error {
	path := filepath.Join(d.opt.Dir, moveFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read move: %w", err)
	}
	var m move
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("read move: %s: %w", path, err)
	}
	if _, joined := config.Mesh(m.From); joined {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("forget move: %w", err)
		}
		return nil
	}
	return d.moveStores(ctx, m)
}
