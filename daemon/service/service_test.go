package service

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func plain() Spec {
	return Spec{Binary: "/usr/local/bin/claudemesh", Log: "/home/ada/.claudemesh/daemon/daemon.log", NoRestart: []int{1, 3, 6, 10}}
}

// odd holds what means something to a service manager, or to XML.
func odd() Spec {
	s := plain()
	s.Binary = `/home/ada b/50% $HOME <&>;/claudemesh`
	s.Log = "/home/ada b/%h/daemon.log"
	s.Env = [][2]string{{"CLAUDEMESH_DAEMON_DIR", `/d $X "%n" <&> \t`}}
	return s
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

func TestTheFilesAreAsReviewed(t *testing.T) {
	golden(t, "plain.service", systemd{}.render(plain()))
	golden(t, "odd.service", systemd{}.render(odd()))
	golden(t, "plain.plist", launchd{}.render(plain()))
	golden(t, "odd.plist", launchd{}.render(odd()))
	golden(t, "plain.cmd", startup{}.render(Spec{Binary: `C:\Program Files\claudemesh\claudemesh.exe`, Log: `C:\Users\ada\.claudemesh\daemon\daemon.log`}))
	golden(t, "odd.cmd", startup{}.render(Spec{Binary: `C:\50% & more^\Ünï\claudemesh.exe`, Env: [][2]string{{"CLAUDEMESH_DAEMON_DIR", `D:\%PATH% (x)!`}}}))
}

func TestSystemdUnderstandsTheUnit(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not here: ", err)
	}
	for name, s := range map[string]Spec{"plain": plain(), "odd": odd()} {
		dir := t.TempDir()
		// The program must be there to be verified.
		s.Binary = filepath.Join(dir, strings.TrimPrefix(s.Binary, "/"))
		if err := os.MkdirAll(filepath.Dir(s.Binary), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.Binary, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		unit := filepath.Join(dir, unitName)
		if err := os.WriteFile(unit, systemd{}.render(s), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(tool, "verify", "--man=no", unit)
		cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
		out, err := cmd.CombinedOutput()
		out = slices.Concat(slices.Collect(func(yield func([]byte) bool) {
			for line := range bytes.Lines(out) { // what a systemd before 254 says of the growing pause, which it then does without
				if !bytes.Contains(line, []byte("Unknown key 'RestartSteps'")) && !bytes.Contains(line, []byte("Unknown key 'RestartMaxDelaySec'")) && !yield(line) {
					return
				}
			}
		})...)
		if err != nil || bytes.Contains(out, []byte(unitName)) {
			t.Errorf("%s: %v\n%s\n%s", name, err, out, systemd{}.render(s))
		}
	}
}

func TestAPlistIsXMLThatSaysWhatWasMeant(t *testing.T) {
	var texts []string
	for d := xml.NewDecoder(bytes.NewReader(launchd{}.render(odd()))); ; {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if c, ok := tok.(xml.CharData); ok {
			texts = append(texts, string(c))
		}
	}
	for _, want := range []string{odd().Binary, odd().Log, odd().Env[0][1]} {
		if !slices.Contains(texts, want) {
			t.Errorf("%q is not in it", want)
		}
	}
}

// fake is a service manager: it answers by what it was told.
type fake struct {
	said   []string
	active bool
	dead   bool
}

func (f *fake) run(_ context.Context, name string, args ...string) (string, error) {
	line := name + " " + strings.Join(args, " ")
	f.said = append(f.said, line)
	switch {
	case f.dead:
		return "", errors.New("failed to connect to bus")
	case line == "self daemon status" && !f.active:
		return "", errors.New("not running")
	case line == "self daemon down":
		f.active = false
	case name == "cmd":
		f.active = true
	case strings.Contains(line, " is-active ") && !f.active, strings.HasPrefix(line, "launchctl print gui/7/") && !f.active:
		return "", errors.New("inactive")
	case strings.Contains(line, " restart "), strings.Contains(line, " bootstrap "):
		f.active = true
	case strings.Contains(line, " --now "), strings.Contains(line, " bootout "):
		f.active = false
	}
	return "", nil
}

func TestTheOldDaemonIsGoneBeforeTheServiceStarts(t *testing.T) {
	for name, manager := range map[string]func(string, Runner) *Manager{
		"systemd": Systemd,
		"launchd": func(dir string, run Runner) *Manager { return Launchd(dir, 7, run) },
		"startup": func(dir string, run Runner) *Manager { return Startup(dir, "self", run) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, f := context.Background(), &fake{}
			m := manager(t.TempDir(), f.run)
			retire := func(context.Context) error {
				if f.active {
					t.Error("the service runs while the old daemon is stopped")
				}
				f.said = append(f.said, "retire")
				return nil
			}
			stale := false
			install := func(s Spec, want string) {
				t.Helper()
				if got, err := m.Install(ctx, s, stale, retire); err != nil || got != want || !f.active || !m.Installed() {
					t.Fatalf("%s, %v; active %v; said %q", got, err, f.active, f.said)
				}
			}
			install(plain(), Added)
			if i := slices.Index(f.said, "retire"); i < 0 || !slices.ContainsFunc([]string{"start", "boot", "cmd /c"}, func(word string) bool { return strings.Contains(f.said[len(f.said)-1], word) }) {
				t.Errorf("said %q", f.said)
			}
			f.said = nil
			install(plain(), Unchanged)
			if slices.Contains(f.said, "retire") {
				t.Error("a service that runs as it should was stopped")
			}
			stale, f.said = true, nil
			install(plain(), Unchanged)
			if !slices.Contains(f.said, "retire") {
				t.Error("the daemon of the old program still runs")
			}
			stale = false
			other := odd()
			if name == "startup" {
				other.Env = [][2]string{{"CLAUDEMESH_DAEMON_DIR", "/else"}} // a quote is in no path of Windows, and refused
			}
			install(other, Updated)
			f.active = false // it gave up
			install(other, Unchanged)
			for _, want := range []string{Removed, Absent} {
				if got, err := m.Remove(ctx); err != nil || got != want || f.active || m.Installed() {
					t.Fatalf("%s, %v; active %v", got, err, f.active)
				}
			}
		})
	}
}

func TestWithoutAManagerNothingIsWritten(t *testing.T) {
	f := &fake{dead: true}
	m := Systemd(t.TempDir(), f.run)
	_, err := m.Install(context.Background(), plain(), false, func(context.Context) error { t.Error("retired"); return nil })
	if !errors.Is(err, ErrNoManager) || m.Installed() {
		t.Errorf("%v, installed %v", err, m.Installed())
	}
}

func TestAPathThatCannotBeWrittenIsRefused(t *testing.T) {
	m := Systemd(t.TempDir(), (&fake{}).run)
	for _, binary := range []string{"/x\nExecStartPre=/bin/rm", "claudemesh", `/a"b/claudemesh`} {
		s := plain()
		s.Binary = binary
		if _, err := m.Install(context.Background(), s, false, nil); !errors.Is(err, ErrBadPath) || m.Installed() {
			t.Errorf("%q: %v", binary, err)
		}
	}
}

func TestWhatNobodyLooksAfterIsNotStartedAsAService(t *testing.T) {
	f := &fake{}
	m := Startup(t.TempDir(), "self", f.run)
	if _, err := m.Install(context.Background(), plain(), false, func(context.Context) error { return nil }); err != nil {
		t.Fatal(err)
	}
	f.said = nil
	if started, err := m.Start(context.Background(), plain()); started || err != nil || len(f.said) > 0 {
		t.Errorf("%v, %v, said %q", started, err, f.said)
	}
	if !m.Current(plain()) || m.Current(odd()) {
		t.Error("it does not know its own file")
	}
}
