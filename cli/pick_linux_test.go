package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"claudemesh/bus"
)

// newTerminal opens a pseudo terminal: what the program sees, and the side a person sits at.
func newTerminal(t *testing.T) (program, person *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	t.Cleanup(func() { person.Close() })
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return program, person
}

func TestPickingAMeshOnATerminal(t *testing.T) {
	tests := []struct {
		name, answer string
		code         int // exitInternal: it went on and found no daemon
	}{
		{"by number", "2\n", exitInternal},
		{"by name", "alpha\n", exitInternal},
		{"after a wrong answer", "7\nbeta\n", exitInternal},
		{"an empty answer cancels", "\n", exitFailed},
		{"the end of input cancels", "\x04", exitFailed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			home := t.TempDir()
			if err := os.MkdirAll(filepath.Join(home, ".claudemesh"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(home, ".claudemesh", "config.json"), []byte(twoMeshes), 0o600); err != nil {
				t.Fatal(err)
			}
			program, person := newTerminal(t)
			if _, err := person.WriteString(tt.answer); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			e := hostEnv([]string{"claudemesh", "share"})
			e.stdin, e.stderr, e.stdout = program, program, &out
			// With no daemon allowed the verb ends right after the choice.
			e.getenv = func(name string) string { return map[string]string{"HOME": home, noSpawnEnv: "1"}[name] }
			if code := run(context.Background(), e); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			program.Close()
			shown, _ := io.ReadAll(person) // ends with an error when the program's side is closed
			if s := string(shown); !strings.Contains(s, "1  alpha") || out.Len() != 0 {
				t.Errorf("terminal shows %q, stdout %q", s, &out)
			}
			if bus.Held(filepath.Join(home, ".claudemesh", "daemon")) {
				t.Error("a daemon runs")
			}
		})
	}
	t.Run("nobody is asked when JSON is wanted", func(t *testing.T) {
		home := t.TempDir()
		if err := os.MkdirAll(filepath.Join(home, ".claudemesh"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(home, ".claudemesh", "config.json"), []byte(twoMeshes), 0o600); err != nil {
			t.Fatal(err)
		}
		program, _ := newTerminal(t)
		var out bytes.Buffer
		e := hostEnv([]string{"claudemesh", "share", "--json"})
		e.stdin, e.stderr, e.stdout = program, program, &out
		e.getenv = func(name string) string { return map[string]string{"HOME": home}[name] }
		if code := run(context.Background(), e); code != exitUsage || !strings.Contains(out.String(), "mesh_required") {
			t.Errorf("exit code %d, stdout %s", code, &out)
		}
	})
}

func TestPickingAMeshByTheArrowKeysLeavesStdoutToTheResult(t *testing.T) {
	for _, tt := range []struct {
		press string
		code  int
	}{{"\x1b[B\r", exitInternal}, {"\x03", exitFailed}} {
		home := t.TempDir()
		if err := os.MkdirAll(filepath.Join(home, ".claudemesh"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(home, ".claudemesh", "config.json"), []byte(twoMeshes), 0o600); err != nil {
			t.Fatal(err)
		}
		program, person := newTerminal(t)
		if err := unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 100}); err != nil {
			t.Fatal(err)
		}
		shown := watchScreen(person)
		var out bytes.Buffer
		e := hostEnv([]string{"claudemesh", "share"})
		e.stdin, e.stderr, e.stdout = program, program, &out
		e.getenv = func(name string) string {
			return map[string]string{"HOME": home, noSpawnEnv: "1", "TERM": "xterm"}[name]
		}
		ended := make(chan int, 1)
		go func() { ended <- run(context.Background(), e) }()
		if !until(func() bool { return strings.Contains(shown.String(), "Which mesh?") }) {
			t.Fatalf("the terminal shows %q", shown)
		}
		if _, err := person.WriteString(tt.press); err != nil {
			t.Fatal(err)
		}
		if code := <-ended; code != tt.code || out.Len() != 0 {
			t.Errorf("exit code %d, stdout %q, terminal %q", code, &out, shown)
		}
	}
}

func TestColourIsForTerminalsOnly(t *testing.T) {
	program, _ := newTerminal(t)
	for _, tt := range []struct {
		name, noColor, term string
		out                 any
		want                bool
	}{
		{"a terminal", "", "xterm", program, true},
		{"a terminal and NO_COLOR", "1", "xterm", program, false},
		{"a dumb terminal", "", "dumb", program, false},
		{"a pipe", "", "xterm", &bytes.Buffer{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := hostEnv(nil)
			e.stdout, e.stderr = tt.out.(io.Writer), tt.out.(io.Writer)
			e.getenv = func(name string) string { return map[string]string{"NO_COLOR": tt.noColor, "TERM": tt.term}[name] }
			if u := newUI(e, false); u.colour != tt.want || u.colErr != tt.want {
				t.Errorf("colour %v, %v", u.colour, u.colErr)
			}
		})
	}
}

func TestHelpKeepsToTheTerminal(t *testing.T) {
	for _, width := range []int{60, 100} {
		t.Run(fmt.Sprint(width, " columns"), func(t *testing.T) {
			program, person := newTerminal(t)
			if err := unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: uint16(width)}); err != nil {
				t.Fatal(err)
			}
			shown := watchScreen(person)
			e := hostEnv([]string{"claudemesh", "status", "--help"})
			e.stdout = program
			e.getenv = func(string) string { return "" }
			if code := run(context.Background(), e); code != 0 {
				t.Fatalf("exit code %d", code)
			}
			program.Close()
			<-shown.ended
			lines := strings.Split(shown.String(), "\r\n")
			if len(lines) < 20 || !strings.Contains(shown.String(), "Without a subcommand") {
				t.Fatalf("shown: %s", shown)
			}
			for _, line := range lines {
				if len([]rune(line)) > width {
					t.Errorf("%d columns: %q", len([]rune(line)), line)
				}
			}
		})
	}
}
