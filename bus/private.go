//go:build !windows

package bus

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
)

// listenPrivate listens on a Unix socket of mode 0600. What a dead daemon left there is removed first, so the caller holds the directory's lock.
func listenPrivate(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("socket path %s is longer than %d bytes: set CLAUDEMESH_DAEMON_DIR to a shorter directory", path, maxSocketPath)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSocket == 0 {
		return nil, fmt.Errorf("open socket: %s is in the way and is no socket", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket: %w", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, fmt.Errorf("open socket: %w", err)
	}
	return ln, nil
}

// ListenSocket is a further Unix socket beside the bus's own, for another protocol: mode 0600, and a connection of another user is closed before a byte of it is
// read. The caller holds the lock of the directory that path is in. nil without an error: this system has no such sockets.
func ListenSocket(path string) (net.Listener, error) {
	ln, err := listenPrivate(path)
	if err != nil {
		return nil, err
	}
	return &ownListener{ln, os.Geteuid()}, nil
}

// ownListener lets in connections of one user only.
type ownListener struct {
	net.Listener
	uid int
}

// Accept waits for a connection of that user.
func (l *ownListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if uid, err := peerUID(c); err == nil && uid == l.uid {
			return c, nil
		}
		c.Close()
	}
}
