//go:build unix

package bus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ErrUnsafeDir means that the daemon directory is one that others own or share.
var ErrUnsafeDir = errors.New("daemon directory is not private")

// prepareDir makes dir, or makes it private: 0700, owned by this user. A shared directory is refused rather than closed to its other users.
func prepareDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make daemon directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("make daemon directory: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	shared := info.Mode()&fs.ModeSticky != 0 || filepath.Clean(dir) == string(filepath.Separator)
	if !info.IsDir() || !ok || int(st.Uid) != os.Geteuid() || shared {
		return fmt.Errorf("%w: %s (set CLAUDEMESH_DAEMON_DIR to a directory of your own)", ErrUnsafeDir, dir)
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(dir, 0o700); err != nil {
			return fmt.Errorf("make daemon directory private: %w", err)
		}
	}
	return nil
}
