package bus

import (
	"errors"
	"fmt"
	"os"
)

// ErrUnsafeDir means that the daemon directory is one that others own or share. On Windows the profile's access list keeps others out.
var ErrUnsafeDir = errors.New("daemon directory is not private")

func prepareDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make daemon directory: %w", err)
	}
	return nil
}
