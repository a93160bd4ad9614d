package cli

import (
	"os"

	"golang.org/x/sys/windows"
)

// takeOver makes a file the process's stderr, where the runtime writes why it crashes.
func takeOver(f *os.File) error {
	return os.NewSyscallError("SetStdHandle", windows.SetStdHandle(windows.STD_ERROR_HANDLE, windows.Handle(f.Fd())))
}
