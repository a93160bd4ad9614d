package cli

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi"
	"golang.org/x/sys/unix"

	"claudemesh/bus"
	"claudemesh/daemon"
)

// The screen is looked at: -v prints what the terminal was given last.
func TestTopOnATerminal(t *testing.T) {
	home, err := os.MkdirTemp("/tmp", "cm") // short, because the path of a Unix socket has about 100 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	config := filepath.Join(home, ".claudemesh")
	d, err := daemon.Start(context.Background(), daemon.Options{
		Dir: filepath.Join(config, "daemon"), ConfigDir: config, DisplayName: "ada", NoTCP: true, NoHTTP: true, Version: Version, HostID: func() (string, error) { return "test", nil }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	})
	env := map[string]string{"HOME": home, noSpawnEnv: "1", "TERM": "xterm-256color"}
	do := func(args ...string) {
		t.Helper()
		if code, out, errs := runIn(t, env, args...); code != exitOK {
			t.Fatalf("%v: exit %d\n%s%s", args, code, out, errs)
		}
	}
	do("create", "team")
	token, err := userToken(filepath.Join(config, "daemon"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := bus.Connect(t.Context(), bus.ClientConfig{Dir: filepath.Join(config, "daemon"), Token: token, Actor: bus.User, Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var bob bus.SessionInfo
	if err := client.Do(t.Context(), bus.DaemonSubject(bus.User, bus.OpSessionStart), bus.SessionStart{Mesh: "team", Name: "bob", PID: os.Getpid()}, &bob); err != nil {
		t.Fatal(err)
	}

	program, person := newTerminal(t)
	if err := unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 20, Col: 110}); err != nil {
		t.Fatal(err)
	}
	shown := watchScreen(person)
	e := hostEnv([]string{"claudemesh", "top"})
	e.stdin, e.stderr, e.stdout = program, program, program
	e.getenv = func(name string) string { return env[name] }
	e.environ = func() []string { return []string{"TERM=xterm-256color"} }
	ended := make(chan int, 1)
	go func() { ended <- run(context.Background(), e) }()
	see := func(text string) {
		t.Helper()
		if !until(func() bool { return strings.Contains(shown.String(), text) }) {
			t.Fatalf("the terminal never shows %q but:\n%s", text, ansi.Strip(shown.String()))
		}
	}
	see("team")
	see("PASSING")
	see("bob")
	do("send", bob.Pubkey, "look at me")
	see("look at me")
	if _, err := person.WriteString("q"); err != nil {
		t.Fatal(err)
	}
	if code := <-ended; code != exitOK {
		t.Errorf("exit code %d", code)
	}
	program.Close()
	<-shown.ended
	t.Logf("the terminal:\n%s", ansi.Strip(shown.String()))
	if !bus.Held(filepath.Join(config, "daemon")) {
		t.Error("the daemon ended with it")
	}
}
