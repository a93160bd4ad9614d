package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"claudemesh/bus"
)

// screen is what a terminal has shown so far, read as it comes: a terminal that nobody reads stops its program.
type screen struct {
	mu    sync.Mutex
	shown bytes.Buffer
	ended chan struct{}
}

func watchScreen(person io.Reader) *screen {
	s := &screen{ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		buf := make([]byte, 4096)
		for {
			n, err := person.Read(buf)
			s.mu.Lock()
			s.shown.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.String()
}

func TestTheWizardAsksOnATerminalOnly(t *testing.T) {
	claude := filepath.Join(t.TempDir(), "claude")
	if err := os.WriteFile(claude, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	type step struct{ see, press string }
	for _, tt := range []struct {
		name   string
		config string
		args   []string
		steps  []step
		code   int // exitInternal: it went on and found no daemon
		shows  string
	}{
		{"which of several meshes", twoMeshes, nil, []step{{"Which mesh?", "\x1b[B\r"}, {"Your name", "\r"}, {"Role", "\r"}, {"Groups", "\r"}, {"Messages", "\r"}}, exitInternal, "beta"},
		{"Ctrl-C cancels", twoMeshes, []string{"launch"}, []step{{"Which mesh?", "\x03"}}, exitFailed, "cancelled"},
		{"how to come to a first one", "", nil, []step{{"You are on no mesh yet", "\r"}, {"Its name", "team\r"}}, exitInternal, "make one"},
		{"a bad invite is said at once", "", nil, []step{{"You are on no mesh yet", "\x1b[B\r"}, {"Invite", "x://\r"}, {"not an invite", "\x03"}}, exitFailed, "cancelled"},
		{"nobody who says yes to everything", twoMeshes, []string{"-y"}, nil, exitUsage, "several meshes"},
		{"nobody who wants quiet", twoMeshes, []string{"launch", "--quiet"}, nil, exitUsage, "several meshes"},
		{"nobody when a mesh is named", twoMeshes, []string{"launch", "alpha"}, nil, exitInternal, "no daemon"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			home := t.TempDir()
			if err := os.MkdirAll(filepath.Join(home, ".claudemesh"), 0o700); err != nil {
				t.Fatal(err)
			}
			if tt.config != "" {
				if err := os.WriteFile(filepath.Join(home, ".claudemesh", "config.json"), []byte(tt.config), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			program, person := newTerminal(t)
			if err := unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 100}); err != nil {
				t.Fatal(err)
			}
			shown := watchScreen(person)
			e := hostEnv(append([]string{"claudemesh"}, tt.args...))
			e.stdin, e.stderr, e.stdout = program, program, program
			env := map[string]string{"HOME": home, noSpawnEnv: "1", envClaude: claude, "TERM": "xterm", "USER": "ada"}
			e.getenv = func(name string) string { return env[name] }
			ended := make(chan int, 1)
			go func() { ended <- run(context.Background(), e) }()
			for _, s := range tt.steps {
				if !until(func() bool { return strings.Contains(shown.String(), s.see) }) {
					t.Fatalf("the terminal never shows %q but:\n%q", s.see, shown)
				}
				if _, err := person.WriteString(s.press); err != nil {
					t.Fatal(err)
				}
			}
			if code := <-ended; code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			program.Close()
			<-shown.ended
			if !strings.Contains(shown.String(), tt.shows) {
				t.Errorf("the terminal shows %q", shown)
			}
			if bus.Held(filepath.Join(home, ".claudemesh", "daemon")) {
				t.Error("a daemon runs")
			}
		})
	}
}
