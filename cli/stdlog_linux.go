package cli

import (
	"os"

	"golang.org/x/sys/unix"
)

// takeOver makes a file the process's stdout and stderr, where the runtime writes why it crashes.
func takeOver(f *os.File) error {
	for _, std := range []int{1, 2} {
		if err := unix.Dup3(int(f.Fd()), std, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	return nil
}
