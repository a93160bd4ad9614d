//go:build unix

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"claudemesh/bus"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"claudemesh": func() {
			if version := os.Getenv("CMTEST_RELEASE"); version != "" { // an upgrade in place
				os.Exit(asRelease(version))
			}
			os.Exit(Main(os.Args))
		},
		"claudemesh-next": func() { os.Exit(asRelease("9.9.9")) },
		"claudemesh-dev":  func() { os.Exit(asRelease("dev")) },
		"claudemesh-post": func() { os.Exit(post(os.Args[1:])) },
		"mcpcalc":         mcpCalc,
	})
}

// asRelease is the program as another version of it.
func asRelease(version string) int {
	e := hostEnv(os.Args)
	e.release = version
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, e)
}

// TestScripts drives the real program, with real daemons, each script in a HOME of its own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			// Short, because the path of a Unix socket has about 100 bytes.
			home, err := os.MkdirTemp("/tmp", "cm")
			if err != nil {
				return err
			}
			e.Defer(func() { os.RemoveAll(home) }) // runs last
			for _, name := range []string{"one", "two"} {
				if err := os.Mkdir(filepath.Join(home, name), 0o700); err != nil {
					return err
				}
				e.Defer(func() { stopDaemon(t, filepath.Join(home, name, ".claudemesh", "daemon")) })
			}
			e.Setenv("BASE", home)
			e.Setenv("HOME", filepath.Join(home, "one"))
			e.Setenv("DAEMON", filepath.Join(home, "one", ".claudemesh", "daemon"))
			e.Setenv("USER", "ada")
			e.Setenv("XDG_CONFIG_HOME", "")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": code, "pidof": pidof, "count": count, "held": held, "releases": releases},
	})
}

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// until polls: what another process does can only be looked at.
func until(ok func() bool) bool {
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(pollEvery) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// stopDaemon ends the daemon of a directory, paused or not.
func stopDaemon(t *testing.T, dir string) {
	ended := until(func() bool {
		if info, err := bus.ReadInfo(dir); err == nil && bus.Held(dir) {
			_ = syscall.Kill(info.PID, syscall.SIGCONT)
			_ = syscall.Kill(info.PID, syscall.SIGTERM)
		}
		return !bus.Held(dir)
	})
	if !ended {
		t.Errorf("the daemon of %s does not end", dir)
	}
}

// code runs a command and checks its exit code: code 3 claudemesh send.
func code(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if err != nil || neg || len(args) < 2 {
		ts.Fatalf("usage: code NUMBER COMMAND…")
	}
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d\nstdout: %s\nstderr: %s", got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// pidof puts the pid of a daemon directory's daemon into a variable: pidof PID $DAEMON. The daemon writes it right after it first answers.
func pidof(ts *testscript.TestScript, _ bool, args []string) {
	var info bus.Info
	if !until(func() (ok bool) {
		var err error
		info, err = bus.ReadInfo(args[1])
		return err == nil && alive(info.PID)
	}) {
		ts.Fatalf("no daemon runs in %s", args[1])
	}
	ts.Setenv(args[0], strconv.Itoa(info.PID))
}

// count waits until a text occurs that often in a file: count 1 TEXT FILE.
func count(ts *testscript.TestScript, _ bool, args []string) {
	if !until(func() bool { return fmt.Sprint(strings.Count(ts.ReadFile(args[2]), args[1])) == args[0] }) {
		ts.Fatalf("%q does not occur %s times in %s:\n%s", args[1], args[0], args[2], ts.ReadFile(args[2]))
	}
}

// post is a program that posts JSON and checks the status: claudemesh-post STATUS URL BODY.
func post(args []string) int {
	res, err := http.Post(args[1], "application/json", strings.NewReader(args[2]))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || strconv.Itoa(res.StatusCode) != args[0] {
		fmt.Fprintln(os.Stderr, res.Status, string(body), err)
		return 1
	}
	return 0
}

// releases serves a file of the script as a release server does, and puts its address into a variable: releases SERVER FILE.
func releases(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[1])
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) }))
	ts.Defer(server.Close)
	ts.Setenv(args[0], server.URL)
}

// held checks whether a daemon directory's lock is held: held $DAEMON, ! held $DAEMON.
func held(ts *testscript.TestScript, neg bool, args []string) {
	if bus.Held(args[0]) == neg {
		ts.Fatalf("lock of %s: held is %v", args[0], neg)
	}
}
