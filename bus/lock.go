package bus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/renameio/v2/maybe"
)

// Names of files in the daemon directory.
const (
	lockFile   = "daemon.lock"
	infoFile   = "bus.json"
	portFile   = "bus-port"
	socketFile = "daemon.sock"
)

// ErrLocked means that another process holds the daemon directory.
var ErrLocked = errors.New("another daemon holds the directory")

// Lock is the exclusive hold on a daemon directory. A daemon keeps it for its whole life; that it is held is what "the daemon runs" means. The
// operating system drops it when the process ends, however it ends.
type Lock struct{ f *flock.Flock }

// AcquireLock makes dir (0700) if needed and takes its lock, or returns ErrLocked. The lock must be held before [StartServer] is called on dir: the
// server itself does not notice a second one on the same files, and a stale socket is removed only under the lock.
func AcquireLock(dir string) (*Lock, error) {
	if err := prepareDir(dir); err != nil {
		return nil, err
	}
	f := flock.New(filepath.Join(dir, lockFile), flock.SetPermissions(0o600))
	// A probe by Held takes the lock for an instant, shared; only that is worth another try.
	deadline := time.NewTimer(250 * time.Millisecond)
	defer deadline.Stop()
	retry := time.NewTicker(time.Millisecond)
	defer retry.Stop()
	for {
		ok, err := f.TryLock()
		if err != nil {
			return nil, fmt.Errorf("lock daemon directory: %w", err)
		}
		if ok {
			return &Lock{f: f}, nil
		}
		if Held(dir) {
			_ = f.Close()
			return nil, ErrLocked
		}
		select {
		case <-retry.C:
		case <-deadline.C:
			_ = f.Close()
			return nil, ErrLocked
		}
	}
}

// Release gives the directory free.
func (l *Lock) Release() error {
	if err := l.f.Close(); err != nil {
		return fmt.Errorf("release daemon directory: %w", err)
	}
	return nil
}

// Held reports whether a daemon holds dir. It needs no answer from it, so a paused daemon counts as running and a stale file does not.
func Held(dir string) bool {
	path := filepath.Join(dir, lockFile)
	if _, err := os.Stat(path); err != nil {
		return false
	}
	f := flock.New(path, flock.SetFlag(os.O_RDONLY))
	defer f.Close()
	free, err := f.TryRLock()
	return err == nil && !free
}

// Info is what a daemon tells about itself in bus.json (0600). It is a hint for people and for clients of the TCP door; whether a daemon runs is told by
// the lock alone.
type Info struct {
	PID     int    `json:"pid"`
	Version string `json:"version"`
	Socket  string `json:"socket,omitempty"`
	TCPURL  string `json:"tcp_url,omitempty"`
	// HTTPSocket and HTTPURL are where scripts find the HTTP of the daemon; empty when it is off.
	HTTPSocket string `json:"http_socket,omitempty"`
	HTTPURL    string `json:"http_url,omitempty"`
	StartedAt  int64  `json:"started_at"` // Unix milliseconds
	// Args are the flags it was started with, which one that takes its place needs as well. They hold no secret: every process listing shows them.
	Args []string `json:"args,omitempty"`
}

// WriteInfo replaces bus.json of dir in one step.
func WriteInfo(dir string, info Info) error {
	b, err := json.Marshal(info)
	if err != nil {
		return fmt.Errorf("encode bus info: %w", err)
	}
	if err := maybe.WriteFile(filepath.Join(dir, infoFile), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write bus info: %w", err)
	}
	return nil
}

// ReadInfo reads bus.json of dir. A missing file is an error that matches fs.ErrNotExist.
func ReadInfo(dir string) (Info, error) {
	b, err := os.ReadFile(filepath.Join(dir, infoFile))
	if err != nil {
		return Info{}, fmt.Errorf("read bus info: %w", err)
	}
	var info Info
	if err := json.Unmarshal(b, &info); err != nil {
		return Info{}, fmt.Errorf("read bus info: %w", err)
	}
	return info, nil
}

// RemoveInfo removes bus.json of dir; the holder of the lock calls it before it lets go. A file that stays is harmless: it is believed only while the lock is held.
func RemoveInfo(dir string) error {
	if err := os.Remove(filepath.Join(dir, infoFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove bus info: %w", err)
	}
	return nil
}
