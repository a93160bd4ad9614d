//go:build unix

package mcp

import (
	"io/fs"
	"os"
	"syscall"
)

// canOwn: the owner of a file can be told.
const canOwn = true

// own reports whether a file is this user's.
func own(st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && int(sys.Uid) == os.Getuid()
}
