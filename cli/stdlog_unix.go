//go:build unix && !linux

package cli

import (
	"os"

	"golang.org/x/sys/unix"
)

// takeOver makes a file the process's stdout and stderr, where the runtime writes why it crashes.
func takeOver(f *os.File) error {
	for _, std := range []int{1, 2} {
		if err := unix.Dup2(int(f.Fd()), std); err != nil {
			return os.NewSyscallError("dup2", err)
		}
	}
	return nil
}
