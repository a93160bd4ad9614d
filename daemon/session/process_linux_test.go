package session

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestParseStatIsNotFooledByTheCommandName(t *testing.T) {
	tail := " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21"
	for name, c := range map[string]struct {
		stat, state, ticks string
		ok                 bool
	}{
		"plain":                          {"7 (bash)" + tail, "S", "4242", true},
		"spaces and parentheses":         {"7 (a) Z 1 (b c)" + tail, "S", "4242", true},
		"a newline":                      {"7 (a\nb)" + tail, "S", "4242", true},
		"empty":                          {"", "", "", false},
		"cut short":                      {"7 (bash) S 1 2 3", "", "", false},
		"a start time that is no number": {"7 (bash)" + strings.Replace(tail, "4242", "-", 1), "", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			state, ticks, ok := parseStat(c.stat)
			if state != c.state || ticks != c.ticks || ok != c.ok {
				t.Fatal(state, ticks, ok)
			}
		})
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("7 (bash) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21")
	f.Add(") ")
	f.Fuzz(func(t *testing.T, stat string) {
		if _, ticks, ok := parseStat(stat); ok && ticks == "" {
			t.Fatal("no start time")
		}
	})
}

func TestAZombieIsGone(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	_, _ = stdout.Read(make([]byte, 1)) // end of file: the child has closed everything and is about to become a zombie
	for {
		if _, alive, err := (HostProcesses{}).Start(cmd.Process.Pid); err != nil {
			t.Fatal(err)
		} else if !alive {
			return
		}
	}
}
