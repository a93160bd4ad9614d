package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// A start that failed leaves a marker with the reason. While it is young nobody tries again: fifty commands in a script would start, and wait for, fifty daemons.

const (
	failureFile = ".spawn-failure" // in the daemon directory, 0600; its age is that of the failure
	failureLife = 30 * time.Second
	maxFailure  = 16 << 10 // of the marker, in bytes
)

// spawnFailure is what the marker holds.
type spawnFailure struct {
	Reason string `json:"reason"`
	Tail   string `json:"tail,omitempty"` // the daemon's last words
}

// failedLately is the error of a start that is not tried, nil when it may be.
func (c *call) failedLately(dir string) error {
	path := filepath.Join(dir, failureFile)
	st, err := os.Stat(path)
	if err != nil || c.clock.Since(st.ModTime()) >= failureLife {
		return nil
	}
	e := &startError{reason: fmt.Sprintf("a start failed less than %d s ago, so it is not tried again yet", failureLife/time.Second), log: filepath.Join(dir, logFile)}
	f, err := os.Open(path)
	if err != nil {
		return e
	}
	defer f.Close()
	var why spawnFailure
	if json.NewDecoder(io.LimitReader(f, maxFailure)).Decode(&why) == nil && why.Reason != "" {
		e.reason, e.tail = fmt.Sprintf("%s (%s)", e.reason, cleanLine(why.Reason)), clean(why.Tail)
	}
	return e
}

// remember leaves the marker. That it cannot be written is not worth another error: the start is then tried again.
func (c *call) remember(dir string, e *startError) {
	b, err := json.Marshal(spawnFailure{Reason: e.reason, Tail: e.tail})
	path := filepath.Join(dir, failureFile)
	if err != nil || os.WriteFile(path, b, 0o600) != nil {
		return
	}
	now := c.clock.Now()
	_ = os.Chtimes(path, now, now)
}

// forgetFailure removes the marker after a start that succeeded.
func forgetFailure(dir string) error {
	if err := os.Remove(filepath.Join(dir, failureFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove failure marker: %w", err)
	}
	return nil
}
