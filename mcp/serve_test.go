package mcp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"claudemesh/bus"
	"claudemesh/mcp/feed"
)

func TestMessagesReachTheClient(t *testing.T) {
	t.Run("a message published for the session is shown, then reported as pushed", func(t *testing.T) {
		d := newDaemon(t)
		d.start(true)
		c := serve(t, Config{Dir: d.dir}).client()
		wait(t, "the question for missed messages", d.asked)
		d.publish(channel, item("m1", "ship it"))
		p := wait(t, "the message", c.messages)
		if p.Content != "bob: ship it" {
			t.Errorf("content %q", p.Content)
		}
		for key, want := range map[string]string{
			"from_name": "bob", "mesh": slug, "message_id": "b-m1", "priority": "next", "from_key": strings.Repeat("1", 64), "from_member": strings.Repeat("2", 64),
		} {
			if p.Meta[key] != want {
				t.Errorf("meta %s is %q, want %q", key, p.Meta[key], want)
			}
		}
		d.awaitPushed("m1")
	})

	t.Run("what is to be shown here is heard, not what is there for taps and for those who follow the inbox", func(t *testing.T) {
		d := newDaemon(t)
		d.start(true)
		c := serve(t, Config{Dir: d.dir}).client()
		wait(t, "the question for missed messages", d.asked)
		for i, subject := range []string{bus.SessionMsgSubject(slug, sessionID), bus.MemberMsgSubject(slug), bus.AllMsgSubject(slug), bus.GroupMsgSubject(slug, "reviewers")} {
			d.publish(subject, item(fmt.Sprint("m", i), subject))
		}
		d.publish(channel, item("mine", "mine"))
		if p := wait(t, "the session's message", c.messages); p.Content != "bob: mine" {
			t.Errorf("got %q", p.Content)
		}
	})

	t.Run("missed messages come first, in order, and once, however often they are heard", func(t *testing.T) {
		d := newDaemon(t)
		var ids []string
		for i := range 250 { // more than one question's worth
			id := fmt.Sprintf("m%03d", i)
			ids = append(ids, id)
			it := item(id, id)
			it.FromMemberKey = fmt.Sprintf("%064x", i/floodMost) // no peer floods
			d.keep(it)
		}
		d.start(true)
		c := serve(t, Config{Dir: d.dir}).client()
		for _, id := range ids {
			if p := wait(t, id, c.messages); p.Content != "bob: "+id {
				t.Fatalf("got %q, want %s", p.Content, id)
			}
		}
		d.awaitPushed(ids...)
		d.publish(channel, item("m007", "again"))
		d.publish(channel, item("last", "last"))
		if p := wait(t, "the last message", c.messages); p.Content != "bob: last" {
			t.Errorf("got %q", p.Content)
		}
	})

	t.Run("a payload that is no message makes it ask instead", func(t *testing.T) {
		d := newDaemon(t)
		d.start(true)
		c := serve(t, Config{Dir: d.dir}).client()
		wait(t, "the first question", d.asked)
		d.keep(item("m1", "kept"))
		d.publish(channel, []byte("\xff{"))
		if p := wait(t, "the message", c.messages); p.Content != "bob: kept" {
			t.Errorf("got %q", p.Content)
		}
	})

	t.Run("a message that cannot be opened is announced without text", func(t *testing.T) {
		d := newDaemon(t)
		it := item("m1", "garbage that must not be shown")
		it.State = bus.StateUndecryptable
		d.keep(it)
		d.start(true)
		c := serve(t, Config{Dir: d.dir}).client()
		p := wait(t, "the message", c.messages)
		if strings.Contains(p.Content, "garbage") || !strings.Contains(p.Content, "could not be opened") {
			t.Errorf("got %+v", p)
		}
		d.awaitPushed("m1")
	})
}

func TestTheShimOutlivesTheDaemon(t *testing.T) {
	t.Run("a restart loses nothing and repeats nothing, even when the report was lost", func(t *testing.T) {
		d := newDaemon(t)
		d.refuse = true
		d.keep(item("m1", "one"))
		d.start(true)
		c := serve(t, Config{Dir: d.dir}).client()
		if p := wait(t, "the first message", c.messages); p.Content != "bob: one" {
			t.Fatalf("got %q", p.Content)
		}
		d.stop()
		d.mu.Lock()
		d.refuse = false
		d.mu.Unlock()
		d.keep(item("m2", "two"))
		d.start(true)
		if p := wait(t, "the second message", c.messages); p.Content != "bob: two" {
			t.Fatalf("got %q: the first message was repeated, or the second lost", p.Content)
		}
		d.awaitPushed("m1", "m2")
	})

	t.Run("no daemon at the start", func(t *testing.T) {
		d := newDaemon(t)
		c := serve(t, Config{Dir: d.dir}).client()
		d.keep(item("m1", "one"))
		d.start(true)
		wait(t, "the message", c.messages)
	})

	t.Run("a token that is not accepted yet", func(t *testing.T) {
		d := newDaemon(t)
		d.keep(item("m1", "one"))
		d.start(false)
		s := serve(t, Config{Dir: d.dir})
		c := s.client()
		if err := d.server.Grants().Add(bus.HashToken(token), d.grant()); err != nil {
			t.Fatal(err)
		}
		wait(t, "the message", c.messages)
	})

	t.Run("a token file that comes later", func(t *testing.T) {
		d := newDaemon(t)
		d.keep(item("m1", "one"))
		d.start(true)
		file := tokenFile(t, d.dir)
		s := serve(t, Config{Dir: d.dir, Getenv: func(name string) string {
			return map[string]string{feed.EnvSession: sessionID, feed.EnvTokenFile: file}[name]
		}})
		c := s.client()
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		wait(t, "the message", c.messages)
		if strings.Contains(s.log.String(), token) {
			t.Error("the token is in the log")
		}
	})
}

func TestReportsComeAfterTheWrite(t *testing.T) {
	d := newDaemon(t)
	d.keep(item("m1", "one"))
	d.start(true)
	broken := errors.New("broken pipe")
	s := serve(t, Config{Dir: d.dir, Out: writerFunc(func(p []byte) (int, error) {
		if strings.Contains(string(p), methodChannel) {
			return 0, broken
		}
		return len(p), nil
	})})
	go io.WriteString(s.in, `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}
{"jsonrpc":"2.0","method":"notifications/initialized"}
`)
	if err := s.end(); !errors.Is(err, broken) {
		t.Errorf("the shim ended with %v", err)
	}
	select {
	case ids := <-d.pushed:
		t.Errorf("reported as surfaced, but never written: %v", ids)
	default:
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestAMemberThatWantsNoMessagesShown(t *testing.T) {
	d := newDaemon(t)
	d.keep(item("m1", "one"))
	d.mode = "inbox"
	d.start(true)
	clock := clockwork.NewFakeClock()
	c := serve(t, Config{Dir: d.dir, Clock: clock, Settle: -1}).client()
	wait(t, "the introduction", d.shims)
	wait(t, "the question whether anything was missed", d.met)
	d.publish(channel, item("m2", "two"))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sweep := func() {
		t.Helper()
		if err := clock.BlockUntilContext(ctx, 1); err != nil {
			t.Fatal(err)
		}
		clock.Advance(time.Minute)
	}
	sweep()
	wait(t, "the next look", d.met)
	select {
	case <-d.asked:
		t.Fatal("asked for messages that nobody wants to be shown")
	case p := <-c.messages:
		t.Fatalf("shown %q", p.Content)
	default:
	}
	d.mu.Lock()
	d.mode = "push"
	d.mu.Unlock()
	for {
		select {
		case p := <-c.messages:
			if p.Content != "bob: one" {
				t.Errorf("shown %q", p.Content)
			}
			return
		default:
			sweep()
		}
	}
}

func TestFirstMessageWaitsForTheClientToSettle(t *testing.T) {
	d := newDaemon(t)
	d.keep(item("m1", "one"))
	d.start(true)
	clock := clockwork.NewFakeClock()
	c := serve(t, Config{Dir: d.dir, Clock: clock}).client()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := clock.BlockUntilContext(ctx, 1); err != nil {
		t.Fatal(err)
	}
	select {
	case <-d.asked:
		t.Fatal("asked for messages before the client had settled")
	default:
	}
	clock.Advance(settle)
	wait(t, "the message", c.messages)
}

func TestHandshake(t *testing.T) {
	t.Run("a client sees the channel capability, no tools, and instructions", func(t *testing.T) {
		c := serve(t, Config{Dir: t.TempDir()}).client()
		init := c.session.InitializeResult()
		if v, ok := init.Capabilities.Experimental["claude/channel"]; !ok || fmt.Sprint(v) != "map[]" {
			t.Errorf("experimental capabilities %v", init.Capabilities.Experimental)
		}
		if !strings.Contains(init.Instructions, "claudemesh send") || !strings.Contains(init.Instructions, `"alice"`) || !strings.Contains(init.Instructions, "untrusted") {
			t.Errorf("instructions %q", init.Instructions)
		}
		tools, err := c.session.ListTools(context.Background(), &sdk.ListToolsParams{})
		if err != nil || len(tools.Tools) != 0 {
			t.Errorf("tools %v, %v", tools, err)
		}
	})

	t.Run("the discover probe is refused at once, before initialize, with its string id", func(t *testing.T) {
		got := talk(t, `{"jsonrpc":"2.0","id":"server-discover-probe-1","method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}`)
		if got[0] != `{"jsonrpc":"2.0","id":"server-discover-probe-1","error":{"code":-32601,"message":"method not found"}}` {
			t.Errorf("answer %s", got[0])
		}
	})

	t.Run("the revision without channels is never agreed to", func(t *testing.T) {
		got := talk(t, `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2026-07-28","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
		if !strings.Contains(got[0], `"protocolVersion":"2025-11-25"`) {
			t.Errorf("answer %s", got[0])
		}
		got = talk(t, `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}`)
		if !strings.Contains(got[0], `"error"`) {
			t.Errorf("answer %s", got[0])
		}
	})

	t.Run("tools are an empty list, not null, and garbage and unknown methods are survived", func(t *testing.T) {
		got := talk(t,
			`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`,
			"\x00\xff garbage", "", "[]", `{"jsonrpc":"2.0","method":"notifications/unknown"}`,
			`{"jsonrpc":"2.0","id":2,"method":"no/such"}`,
			`{"jsonrpc":"2.0","id":3,"method":"tools/list"}`,
		)
		if !strings.Contains(got[1]+got[2], `"tools":[]`) || !strings.Contains(got[1]+got[2], `-32601`) {
			t.Errorf("answers %s", got[1:])
		}
	})

	t.Run("without a session it stays, and says so", func(t *testing.T) {
		s := serve(t, Config{Dir: t.TempDir(), Getenv: func(string) string { return "" }})
		c := s.client()
		if got := c.session.InitializeResult().Instructions; !strings.Contains(got, "by itself") {
			t.Errorf("instructions %q", got)
		}
		if err := c.session.Ping(context.Background(), nil); err != nil {
			t.Errorf("ping: %v", err)
		}
	})
}

// talk writes lines to a shim and returns as many answers as there are lines with an id.
func talk(t *testing.T, lines ...string) []string {
	t.Helper()
	s := serve(t, Config{Dir: t.TempDir()})
	go io.WriteString(s.in, strings.Join(lines, "\n")+"\n")
	var want int
	for _, l := range lines {
		if strings.Contains(l, `"id"`) {
			want++
		}
	}
	answers := make(chan string, want)
	go func() {
		r := bufio.NewReader(s.out)
		for range want {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			answers <- strings.TrimSpace(line)
		}
	}()
	var got []string
	for range want {
		got = append(got, wait(t, "an answer", answers))
	}
	return got
}

func TestTheShimEndsWithItsClient(t *testing.T) {
	t.Run("when stdin ends", func(t *testing.T) {
		d := newDaemon(t)
		d.start(true)
		s := serve(t, Config{Dir: d.dir})
		s.client()
		wait(t, "the question for missed messages", d.asked)
		s.in.Close()
		if err := s.end(); err != nil {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("when it is interrupted, though stdin stays open", func(t *testing.T) {
		s := serve(t, Config{Dir: t.TempDir()})
		s.client()
		s.cancel()
		if err := s.end(); err != nil {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("when stdin ends before anything was said", func(t *testing.T) {
		s := serve(t, Config{Dir: t.TempDir()})
		s.in.Close()
		if err := s.end(); err != nil {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("not when a line is too long", func(t *testing.T) {
		s := serve(t, Config{Dir: t.TempDir()})
		var wrote atomic.Bool
		go func() {
			long := strings.Repeat("x", 1<<20)
			for range 17 {
				io.WriteString(s.in, long)
			}
			wrote.Store(true)
			io.WriteString(s.in, "\n"+`{"jsonrpc":"2.0","id":9,"method":"ping"}`+"\n")
		}()
		var answer struct{ ID int }
		lines := make(chan string, 1)
		go func() {
			line, _ := bufio.NewReader(s.out).ReadString('\n')
			lines <- line
		}()
		line := wait(t, "an answer after the long line", lines)
		if err := json.Unmarshal([]byte(line), &answer); err != nil || answer.ID != 9 || !wrote.Load() {
			t.Errorf("answer %q", line)
		}
	})
}
