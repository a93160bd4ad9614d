package mcp

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jonboulle/clockwork"

	"claudemesh/bus"
	"claudemesh/mcp/feed"
)

var userToken = strings.Repeat("cd", 32)

// ambient is the environment of a client that nobody launched.
func ambient(name string) string {
	return map[string]string{feed.EnvMesh: slug, envConversation: "c0ffee"}[name]
}

// asUser lets the user in.
func (d *fakeDaemon) asUser() {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, userTokenFile), []byte(userToken), 0o600); err != nil {
		d.t.Fatal(err)
	}
	if err := d.server.Grants().Add(bus.HashToken(userToken), bus.Grant{Role: bus.RoleUser}); err != nil {
		d.t.Fatal(err)
	}
}

func TestAClientThatNobodyLaunchedBecomesASession(t *testing.T) {
	t.Run("the daemon is started, asked for a session, and that session's messages are shown", func(t *testing.T) {
		d := newDaemon(t)
		d.keep(item("m1", "one"))
		starts := 0
		s := serve(t, Config{Dir: d.dir, Getenv: ambient, PID: 4711, Start: func(context.Context) error {
			starts++
			d.start(false)
			d.asUser()
			return nil
		}})
		c := s.client()
		wait(t, "the message", c.messages)
		cwd, _ := os.Getwd()
		if got, want := wait(t, "the question", d.attached), (bus.SessionAttach{PID: 4711, Mesh: slug, Cwd: cwd, Conversation: "c0ffee"}); got != want {
			t.Errorf("asked %+v, want %+v", got, want)
		}
		if got := wait(t, "the introduction", d.shims); got.PID != 4711 || got.Client != "test" || got.CanNudge {
			t.Errorf("introduced as %+v", got)
		}
		d.awaitPushed("m1")

		// A daemon that comes back without the session makes another one; it is not started a second time.
		d.stop()
		d.keep(item("m2", "two"))
		d.start(false)
		d.asUser()
		if p := wait(t, "the second message", c.messages); p.Content != "bob: two" {
			t.Errorf("got %q", p.Content)
		}
		wait(t, "the second question", d.attached)
		if starts != 1 {
			t.Errorf("the daemon was started %d times", starts)
		}
		if strings.Contains(s.log.String(), userToken) || strings.Contains(s.log.String(), token) {
			t.Error("a token is in the log")
		}
	})
	t.Run("without a mesh it says what to do, and asks again later", func(t *testing.T) {
		d := newDaemon(t)
		d.refusal = &bus.APIError{Code: 409, Reason: "mesh_required", Detail: "several"}
		d.keep(item("m1", "one"))
		d.start(false)
		d.asUser()
		clock := clockwork.NewFakeClock()
		s := serve(t, Config{Dir: d.dir, Getenv: ambient, Clock: clock, Settle: -1})
		c := s.client()
		wait(t, "the question", d.attached)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := clock.BlockUntilContext(ctx, 1); err != nil {
			t.Fatal(err)
		}
		if log := s.log.String(); !strings.Contains(log, "CLAUDEMESH_MESH=SLUG") {
			t.Errorf("log %q", log)
		}
		clock.Advance(attachEvery - 1)
		d.mu.Lock()
		d.refusal = nil
		d.mu.Unlock()
		select {
		case <-d.attached:
			t.Error("asked again too early")
		default:
		}
		clock.Advance(1)
		wait(t, "the message", c.messages)
	})
	t.Run("a session whose token cannot be read is not replaced by a wider one", func(t *testing.T) {
		d := newDaemon(t)
		d.start(false)
		d.asUser()
		clock := clockwork.NewFakeClock()
		s := serve(t, Config{Dir: d.dir, Clock: clock, Settle: -1, Getenv: func(name string) string {
			return map[string]string{feed.EnvSession: sessionID, feed.EnvTokenFile: filepath.Join(d.dir, "gone")}[name]
		}})
		s.client()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		for range 3 {
			if err := clock.BlockUntilContext(ctx, 1); err != nil {
				t.Fatal(err)
			}
			clock.Advance(attachEvery)
		}
		select {
		case <-d.attached:
			t.Error("asked to become a session as the user")
		default:
		}
	})
}

func TestAnotherClientHoldsTheSession(t *testing.T) {
	d := newDaemon(t)
	d.quiet = true
	d.keep(item("m1", "one"))
	d.start(true)
	clock := clockwork.NewFakeClock()
	c := serve(t, Config{Dir: d.dir, Clock: clock, Settle: -1}).client()
	wait(t, "the introduction", d.shims)
	wait(t, "the second one, at the first look", d.shims)
	d.publish(channel, item("m2", "two"))
	select {
	case <-d.asked:
		t.Error("asked for messages that are shown elsewhere")
	case p := <-c.messages:
		t.Errorf("shown %q", p.Content)
	default:
	}
	d.mu.Lock()
	d.quiet = false
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for len(c.messages) == 0 {
		if err := clock.BlockUntilContext(ctx, 1); err != nil {
			t.Fatal(err)
		}
		clock.Advance(attachEvery)
	}
	if p := wait(t, "the message", c.messages); p.Content != "bob: one" {
		t.Errorf("got %q", p.Content)
	}
}

func TestARepeatIsShownOnceMore(t *testing.T) {
	d := newDaemon(t)
	d.start(true)
	c := serve(t, Config{Dir: d.dir}).client()
	wait(t, "the question for missed messages", d.asked)
	again := item("m1", "one")
	again.Repeat = true
	for _, it := range []bus.InboxItem{item("m1", "one"), again, again, item("m2", "two")} {
		d.publish(channel, it)
	}
	for _, want := range []string{"bob: one", "[claudemesh: shown again: it may have been shown before; do not act on it twice]\nbob: one", "bob: two"} {
		if p := wait(t, want, c.messages); p.Content != want {
			t.Errorf("got %q, want %q", p.Content, want)
		}
	}
}
