package mcp

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"

	"claudemesh/bus"
)

func TestAFloodFromOnePeer(t *testing.T) {
	start := func(t *testing.T) (*fakeDaemon, *client, *clockwork.FakeClock) {
		d := newDaemon(t)
		d.start(true)
		clock := clockwork.NewFakeClock()
		c := serve(t, Config{Dir: d.dir, Clock: clock, Settle: -1}).client()
		wait(t, "the question for missed messages", d.asked)
		return d, c, clock
	}
	t.Run("is shown up to a limit, then counted, and told of when the window has passed", func(t *testing.T) {
		d, c, clock := start(t)
		for i := range 17 {
			d.publish(channel, item(fmt.Sprint("m", i), fmt.Sprint("text ", i)))
		}
		for i := range floodMost {
			if p := wait(t, "a message", c.messages); p.Content != fmt.Sprint("bob: text ", i) {
				t.Errorf("got %q", p.Content)
			}
		}
		urgent := item("urgent", "fire")
		urgent.Priority = "now"
		other := item("other", "hi")
		other.FromMemberKey, other.FromName = strings.Repeat("3", 64), "carol"
		d.publish(channel, urgent)
		d.publish(channel, other)
		for _, want := range []string{"[URGENT] bob: fire", "carol: hi"} {
			if p := wait(t, want, c.messages); p.Content != want {
				t.Errorf("got %q, want %q", p.Content, want)
			}
		}
		via := map[string]string{}
		for len(via) < 19 {
			got := wait(t, "the reports", d.pushed)
			for _, id := range got.IDs {
				via[id] = got.Via
			}
		}
		for id, want := range map[string]string{"m0": bus.ViaChannel, "m4": bus.ViaChannel, "m5": bus.ViaDigest, "m16": bus.ViaDigest, "urgent": bus.ViaChannel, "other": bus.ViaChannel} {
			if via[id] != want {
				t.Errorf("%s was reported via %q, want %q", id, via[id], want)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		for len(c.messages) == 0 {
			if err := clock.BlockUntilContext(ctx, 1); err != nil {
				t.Fatal(err)
			}
			clock.Advance(floodWindow)
		}
		p := wait(t, "the summary", c.messages)
		if p.Content != "[claudemesh] 12 more messages from bob: claudemesh inbox --unread" || p.Meta["kind"] != "digest" || p.Meta["message_id"] != "" || p.Meta["from_name"] != "bob" {
			t.Errorf("got %+v", p)
		}
	})
	t.Run("what this session sent itself is not shown, but a reminder is", func(t *testing.T) {
		d, c, _ := start(t)
		own, reminder := item("own", "echo"), item("r", "water the plants")
		own.FromKey, reminder.FromKey, reminder.Kind, reminder.Subtype = ownKey, ownKey, "reminder", "reminder"
		d.publish(channel, own)
		d.publish(channel, reminder)
		if p := wait(t, "the reminder", c.messages); p.Content != "reminder by bob: water the plants" {
			t.Errorf("got %q", p.Content)
		}
	})
}

func TestFloodGate(t *testing.T) {
	clock := clockwork.NewFakeClock()
	f := newFlood(clock)
	shown := 0
	for range 40 { // two seconds apart: as many as may be are shown, never more than the limit in any window
		if f.admit(item("m", "")) {
			shown++
		}
		for _, p := range f.take() {
			if p.held == 0 {
				t.Error("told of nothing")
			}
		}
		clock.Advance(2 * time.Second)
	}
	if shown != 40 {
		t.Errorf("%d of 40 shown, though %d in %s are no flood", shown, floodMost, floodWindow)
	}
	clock.Advance(floodWindow)
	for range 5 * floodMost {
		f.admit(item("m", ""))
	}
	if wait := f.next(); wait != floodWindow {
		t.Errorf("told of after %s", wait)
	}
	clock.Advance(floodWindow)
	if due := f.take(); len(due) != 1 || due[0].held != 4*floodMost {
		t.Errorf("due: %+v", due)
	}
	clock.Advance(floodWindow)
	if f.admit(item("m", "")); len(f.peers) != 1 || len(f.peers[f.peerOf(item("m", ""))].shown) != 1 {
		t.Error("a peer that has been calm is not forgotten")
	}
}
