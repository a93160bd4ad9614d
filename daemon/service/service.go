// Package service makes the daemon a service of the user's login: a systemd user unit on Linux, a launchd agent on macOS, a program of the Startup folder on
// Windows.
//
// The invariants it keeps: what is written names the program by its absolute path and no mesh, so that it stays right whatever is joined; no value in it can
// become an instruction to the service manager; an old daemon is gone before the service starts one; and an exit that a new start cannot cure is not answered
// by new starts without end.
//
// Package cli calls it. It runs the service manager's own commands and knows nothing of the bus.
package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"
)

// Errors of Install. With each, nothing was changed.
var (
	// ErrUnsupported: this system has no service manager that we know.
	ErrUnsupported = errors.New("no service manager is supported on this system")
	// ErrNoManager: there is one, and none answers for this user, as in most containers.
	ErrNoManager = errors.New("no service manager runs for this user")
	// ErrBadPath: a path that cannot be written into a service's file.
	ErrBadPath = errors.New("the path is not absolute, or holds characters that the service manager does not take")
)

// Spec is the daemon as a service.
type Spec struct {
	Binary    string      // absolute path of the program, one that outlives this run
	Log       string      // absolute path of the file its output is appended to
	Env       [][2]string // variables that it needs beside those of the login
	NoRestart []int       // exit codes that a new start cannot cure
}

func (s Spec) validate() error {
	paths := []string{s.Binary, s.Log}
	for _, p := range paths {
		if !filepath.IsAbs(p) || strings.ContainsFunc(p, unicode.IsControl) {
			return fmt.Errorf("%q: %w", p, ErrBadPath)
		}
	}
	for _, kv := range s.Env {
		if strings.ContainsFunc(kv[1], unicode.IsControl) {
			return fmt.Errorf("%s: %w", kv[0], ErrBadPath)
		}
	}
	return nil
}

// Runner runs a command of the service manager and returns what it printed.
type Runner func(ctx context.Context, name string, args ...string) (string, error)

// Manager is the user's service manager. Host returns the one of this system.
type Manager struct {
	File string // where the service's file is
	kind kind
	run  Runner
}

// kind is what is different between service managers.
type kind interface {
	// supervises reports whether the manager looks after what it has started: starts it again, and can be asked to.
	supervises() bool
	accepts(Spec) error
	render(Spec) []byte
	// answers is nil when the manager runs for this user.
	answers(context.Context, Runner) error
	active(context.Context, Runner) bool
	stop(context.Context, Runner) error
	start(ctx context.Context, run Runner, file string) error
	// forget is called when the file is gone.
	forget(context.Context, Runner) error
}

// Outcome of Install and Remove.
const (
	Added     = "added"
	Updated   = "updated"
	Unchanged = "unchanged"
	Removed   = "removed"
	Absent    = "absent"
)

// Install writes the service's file and starts the service. retire ends a daemon that runs by other means, and returns when it is gone. A service that is
// installed like that and runs is left alone, unless it is stale: what runs was started from a program that has changed since.
func (m *Manager) Install(ctx context.Context, s Spec, stale bool, retire func(context.Context) error) (outcome string, err error) {
	if err := s.validate(); err != nil {
		return "", err
	}
	if err := m.kind.answers(ctx, m.run); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoManager, err)
	}
	if err := m.kind.accepts(s); err != nil {
		return "", err
	}
	text := m.kind.render(s)
	old, err := os.ReadFile(m.File)
	switch outcome = Updated; {
	case errors.Is(err, fs.ErrNotExist):
		outcome = Added
	case err != nil:
		return "", fmt.Errorf("read service file: %w", err)
	case bytes.Equal(old, text):
		if outcome = Unchanged; !stale && m.kind.active(ctx, m.run) {
			return outcome, nil
		}
	}
	if err := replaceFile(m.File, text); err != nil {
		return "", fmt.Errorf("write service file: %w", err)
	}
	if m.kind.active(ctx, m.run) {
		if err := m.kind.stop(ctx, m.run); err != nil {
			return "", fmt.Errorf("stop the old service: %w", err)
		}
	}
	if err := retire(ctx); err != nil {
		return "", fmt.Errorf("stop the old daemon: %w", err)
	}
	if err := m.kind.start(ctx, m.run, m.File); err != nil {
		return "", fmt.Errorf("start the service: %w", err)
	}
	return outcome, nil
}

// Remove stops the service and removes its file. Without a service manager the file goes all the same.
func (m *Manager) Remove(ctx context.Context) (outcome string, err error) {
	if _, err := os.Lstat(m.File); errors.Is(err, fs.ErrNotExist) {
		return Absent, nil
	}
	here := m.kind.answers(ctx, m.run) == nil
	if here {
		if err := m.kind.stop(ctx, m.run); err != nil {
			return "", fmt.Errorf("stop the service: %w", err)
		}
	}
	if err := os.Remove(m.File); err != nil {
		return "", fmt.Errorf("remove service file: %w", err)
	}
	if here {
		err = m.kind.forget(ctx, m.run)
	}
	return Removed, err
}

// Current reports whether the service is installed exactly as s says.
func (m *Manager) Current(s Spec) bool {
	text, err := os.ReadFile(m.File)
	return err == nil && bytes.Equal(text, m.kind.render(s))
}

// Start starts the service if it is installed exactly as s says, and reports whether it did. One that is another daemon's (another directory, another
// program), or that nobody supervises, is left alone.
func (m *Manager) Start(ctx context.Context, s Spec) (bool, error) {
	if !m.kind.supervises() || !m.Current(s) {
		return false, nil
	}
	if err := m.kind.answers(ctx, m.run); err != nil {
		return false, fmt.Errorf("%w: %w", ErrNoManager, err)
	}
	return true, m.kind.start(ctx, m.run, m.File)
}

// Installed reports whether the service's file is there.
func (m *Manager) Installed() bool {
	_, err := os.Lstat(m.File)
	return err == nil
}

// replaceFile puts text in place of a file in one step. It is no secret, and the service manager may read it as somebody else.
func replaceFile(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".claudemesh-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already once renamed
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
