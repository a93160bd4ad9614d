package claudeconf

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gofrs/flock"
)

// Files of ours in the configuration directory.
const (
	ledgerFile = "install.json" // 0600: it holds the bytes of the client's files, and those may hold secrets
	lockFile   = "install.lock"
)

// ErrLedger is wrapped when our own record of what was there before cannot be read. It is kept: it may hold the only copy of that.
var ErrLedger = errors.New("the record of what was there before cannot be read")

const lockPoll = 20 * time.Millisecond

// ledger is the record of an installation. It is written before any file is touched, so that a crash between the two loses nothing.
type ledger struct {
	Version int               `json:"version"`
	Files   map[string]record `json:"files,omitempty"` // by absolute path
	Skill   map[string]string `json:"skill,omitempty"` // SHA-256 of each file that we wrote, by absolute path
	Dirs    []string          `json:"dirs,omitempty"`  // directories that we made, outermost first
}

// record is one file as it was, and what we wrote.
type record struct {
	Absent   bool   `json:"absent,omitempty"` // there was none
	Original []byte `json:"original"`
	Wrote    string `json:"wrote"` // SHA-256 of the text that we put there
	marks
}

const ledgerVersion = 1

func sum(text []byte) string {
	h := sha256.Sum256(text)
	return hex.EncodeToString(h[:])
}

// Setup works on one user's files. Dir is the configuration directory of claudemesh; Claude says where the client's files are.
type Setup struct {
	Dir    string
	Claude Files
}

// Files are the client's files, by absolute path.
type Files struct {
	Config   string // .claude.json
	Settings string // settings.json
	Skill    string // SKILL.md of ours, in a directory of its own
}

// ClaudeFiles says where the client keeps its files: CLAUDE_CONFIG_DIR moves all of them into one directory.
func ClaudeFiles(home, configDir string) Files {
	config, dir := filepath.Join(home, ".claude.json"), filepath.Join(home, ".claude")
	if configDir != "" {
		config, dir = filepath.Join(configDir, ".claude.json"), configDir
	}
	return Files{Config: config, Settings: filepath.Join(dir, "settings.json"), Skill: filepath.Join(dir, "skills", ServerName, "SKILL.md")}
}

// lock keeps other installations out until release.
func (s Setup) lock(ctx context.Context) (release func(), err error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make configuration directory: %w", err)
	}
	l := flock.New(filepath.Join(s.Dir, lockFile), flock.SetPermissions(0o600))
	if _, err := l.TryLockContext(ctx, lockPoll); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("wait for another install: %w", err)
	}
	return func() { _ = l.Close() }, nil
}

func (s Setup) readLedger() (*ledger, error) {
	path := filepath.Join(s.Dir, ledgerFile)
	l := &ledger{Version: ledgerVersion, Files: map[string]record{}, Skill: map[string]string{}}
	text, absent, err := readFile(path)
	if absent || err != nil {
		return l, err
	}
	if err := json.Unmarshal(text, l); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrLedger, path, err)
	}
	if l.Version != ledgerVersion {
		return nil, fmt.Errorf("%w: %s is of version %d", ErrLedger, path, l.Version)
	}
	if l.Files == nil {
		l.Files = map[string]record{}
	}
	if l.Skill == nil {
		l.Skill = map[string]string{}
	}
	return l, nil
}

func (s Setup) writeLedger(l *ledger) error {
	path := filepath.Join(s.Dir, ledgerFile)
	if len(l.Files) == 0 && len(l.Skill) == 0 && len(l.Dirs) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return replaceFile(path, append(text, '\n'))
}

// baseline is what a file held before us, as far as it can still be told, when it now holds text.
func (r record) baseline(text []byte, absent bool) (original []byte, wasAbsent bool, exact bool, err error) {
	switch {
	case absent == r.Absent && bytes.Equal(text, r.Original), !absent && sum(text) == r.Wrote:
		return r.Original, r.Absent, true, nil
	case absent:
		return nil, true, false, nil
	}
	// Somebody has written since. What is theirs stays; what was there before is then the text without our entries.
	d, err := parseDocument(text)
	if err != nil {
		return nil, false, false, err
	}
	if _, err := strip(d, &r.marks); err != nil {
		return nil, false, false, err
	}
	return d.bytes(), false, false, nil
}

func (m *marks) tidy() {
	slices.Sort(m.Rules)
	m.Rules = slices.Compact(m.Rules)
}

// remember adds directories that we made.
func (l *ledger) remember(dirs []string) {
	for _, d := range dirs {
		if !slices.Contains(l.Dirs, d) {
			l.Dirs = append(l.Dirs, d)
		}
	}
}
