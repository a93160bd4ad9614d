//go:build unix

package mcp

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/jonboulle/clockwork"

	"claudemesh/bus"
)

// inboxSocket is a client's inbox socket; it hands out all that is written to each connection.
func inboxSocket(t *testing.T) (string, <-chan string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "cm")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "inbox.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	got, done := make(chan string, 10), make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(bufio.NewReader(conn))
			conn.Close()
			got <- string(b)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		os.RemoveAll(dir)
	})
	return path, got
}

func TestNudges(t *testing.T) {
	t.Run("say how many wait and where, nothing else, and not too often", func(t *testing.T) {
		path, got := inboxSocket(t)
		d := newDaemon(t)
		d.start(true)
		clock := clockwork.NewFakeClock()
		serve(t, Config{Dir: d.dir, Clock: clock, Settle: -1, Getenv: func(name string) string {
			if v, ok := map[string]string{envNudgeSocket: path, envNudgeToken: "s3cret"}[name]; ok {
				return v
			}
			return sessionEnv(name)
		}}).client()
		if got := wait(t, "the introduction", d.shims); !got.CanNudge {
			t.Error("does not say that it can nudge")
		}
		wait(t, "the question for missed messages", d.asked)
		subject := bus.WakeSubject(slug, sessionID, bus.RungNudge)
		d.publish(subject, bus.Nudge{Unread: 2})
		want := `{"type":"auth","token":"s3cret"}` + "\n" + `{"type":"user","message":{"role":"user","content":"2 unread mesh messages. Read them with: claudemesh inbox --unread"}}` + "\n"
		if line := wait(t, "the nudge", got); line != want {
			t.Errorf("got %q, want %q", line, want)
		}
		d.publish(subject, []byte("{"))
		d.publish(subject, bus.Nudge{Unread: 0})
		d.publish(subject, bus.Nudge{Unread: 3})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := clock.BlockUntilContext(ctx, 2); err != nil { // the sweep, and the pause
			t.Fatal(err)
		}
		select {
		case line := <-got:
			t.Errorf("nudged again at once: %q", line)
		default:
		}
		for len(got) == 0 {
			if err := clock.BlockUntilContext(ctx, 1); err != nil {
				t.Fatal(err)
			}
			clock.Advance(nudgeEvery)
		}
	})
	t.Run("go to sockets of this user only", func(t *testing.T) {
		path, got := inboxSocket(t)
		file, link := filepath.Join(t.TempDir(), "file"), filepath.Join(t.TempDir(), "link")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
		for _, socket := range []string{file, link, filepath.Join(t.TempDir(), "gone")} {
			n := &nudger{socket: socket, clock: clockwork.NewRealClock(), log: slog.New(slog.DiscardHandler)}
			if err := n.write(t.Context(), 1); err == nil {
				t.Errorf("wrote to %s", socket)
			}
		}
		if len(got) != 0 {
			t.Error("a nudge arrived")
		}
	})
}
