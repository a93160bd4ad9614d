//go:build !windows

package mesh

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// replaceFile puts text in place of path atomically, 0600, and on disk before it
// returns. The temporary file is made in the same, private directory: renameio
// would otherwise take $TMPDIR when that is on the same disk.
func replaceFile(path string, text []byte) (err error) {
	dir := filepath.Dir(path)
	// Not renameio.WriteFile: it copies the permissions of the file it replaces.
	file, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return err
	}
	defer file.Cleanup()
	if _, err := file.Write(text); err != nil {
		return err
	}
	if err := file.CloseAtomicallyReplace(); err != nil {
		return err
	}
	parent, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}
