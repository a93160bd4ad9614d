package broker

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strconv"
	"testing"
	"time"

	"claudemesh/mesh"
	"claudemesh/wire"
)

func urgent(f wire.Send) wire.Send { f.Priority = wire.PriorityNow; return f }

func (c *client) setStatus(status string) {
	c.t.Helper()
	c.call(wire.TypeSetStatus, map[string]any{"status": status})
}

// expect takes the next messages and compares their texts.
func (c *client) expect(texts ...string) {
	c.t.Helper()
	for _, want := range texts {
		if got := text(c.message()); got != want {
			c.t.Fatalf("got %q, want %q", got, want)
		}
	}
}

func TestMailForABusyPeer(t *testing.T) {
	clock, withClock := fakeClock(time.Now())
	r := newRig(t, withClock)
	bob := r.addMember("bob")
	a := r.member(r.owner)
	b := r.member(bob, withoutAcks)
	n := 0
	send := func(text string, now bool) {
		t.Helper()
		n++
		f := sendFrame(fmt.Sprint("m", n), bob.PublicKey(), text)
		if now {
			f = urgent(f)
		}
		a.mustSend(f)
	}
	t.Run("waits unless it is urgent, and comes in order when the status is idle", func(t *testing.T) {
		b.setStatus(wire.StatusWorking)
		send("1", false)
		send("2", true)
		send("3", false)
		send("4", true)
		b.expect("2", "4")
		b.setStatus(wire.StatusDND)
		send("5", false)
		send("6", true)
		b.expect("6")
		b.setStatus(wire.StatusIdle)
		send("7", false)
		b.expect("1", "3", "5", "7")
		r.mailIn(r.mailboxOf(bob), 0)
	})
	t.Run("comes to a client that holds back by itself", func(t *testing.T) {
		own := r.member(bob, withSession("own"), func(h *wire.Hello) { h.Capabilities = append(h.Capabilities, wire.CapOwnGating) })
		own.setStatus(wire.StatusDND)
		b.setStatus(wire.StatusDND)
		send("8", false)
		p := own.message()
		if text(p) != "8" {
			t.Errorf("got %q", text(p))
		}
		own.clientAck(p, "")
		r.mailIn(r.mailboxOf(bob), 0)
		send("9", true)
		b.expect("9")
		own.clientAck(own.message(), "")
		r.mailIn(r.mailboxOf(bob), 0)
		b.setStatus(wire.StatusIdle)
		send("10", false)
		b.expect("10") // and 8 has gone
		own.clientAck(own.message(), "")
		own.close()
	})
	t.Run("a status of working that nobody repeats for a minute is taken back", func(t *testing.T) {
		b.setStatus(wire.StatusWorking)
		send("11", false)
		send("12", true)
		b.expect("12")
		clock.Advance(workingLife + time.Second)
		clock.Advance(sweepEvery)
		b.expect("11")
		b.setStatus(wire.StatusDND)
		send("13", false)
		clock.Advance(time.Hour)
		clock.Advance(sweepEvery)
		send("14", true)
		b.expect("14")
		b.setStatus(wire.StatusIdle)
		b.expect("13")
	})
	t.Run("waits as well for a connection that takes the place of another", func(t *testing.T) {
		b.setStatus(wire.StatusDND)
		b = r.member(bob, withoutAcks)
		send("17", false)
		send("18", true)
		b.expect("18")
		b.setStatus(wire.StatusIdle)
		b.expect("17")
	})
	t.Run("comes to the next connection, which is idle", func(t *testing.T) {
		b.setStatus(wire.StatusDND)
		send("15", false)
		send("16", true)
		b.expect("16")
		b.close()
		b = r.member(bob, withoutAcks, withSession("next"))
		b.expect("15")
	})
}

// Whatever a peer's status does while mail comes in, and whenever it acknowledges: everything arrives once, and the messages of each priority in the order
// in which they were accepted.
func TestNothingIsLostWhileTheStatusChanges(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	rng := rand.New(rand.NewPCG(1, 2))
	const messages = 300
	statuses := []string{wire.StatusIdle, wire.StatusWorking, wire.StatusDND}
	for i := range messages {
		f := sendFrame(fmt.Sprint("m", i), bob.PublicKey(), fmt.Sprint(i))
		if rng.IntN(3) == 0 {
			f = urgent(f)
		}
		a.write(f)
		if rng.IntN(4) == 0 {
			a.ack(f.ID)
			b.setStatus(statuses[rng.IntN(3)])
		}
	}
	b.setStatus(wire.StatusIdle)
	next := map[string]int{wire.PriorityNow: -1, wire.PriorityNext: -1}
	var owed []wire.Push
	for range messages {
		p := b.message()
		i, err := strconv.Atoi(text(p))
		if err != nil || i <= next[p.Priority] {
			t.Fatalf("%s message %q after %d", p.Priority, text(p), next[p.Priority])
		}
		next[p.Priority] = i
		if owed = append(owed, p); rng.IntN(5) == 0 {
			for _, p := range owed {
				b.clientAck(p, "")
			}
			owed = nil
		}
	}
	b.settle()
	b.quiet()
	for _, p := range owed {
		b.clientAck(p, "")
	}
	r.mailIn(r.mailboxOf(bob), 0)
}

func TestWhoSaysTheStatus(t *testing.T) {
	at := time.Now()
	for _, tc := range []struct {
		name   string
		before presence
		status string
		by     statusSource
		want   statusSource
	}{
		{"another status has a new source", presence{status: "working", statusBy: byHook, statusAt: at}, "idle", byDefault, byDefault},
		{"the same status gets a higher source", presence{status: "idle", statusBy: byDefault, statusAt: at}, "idle", byHand, byHand},
		{"a fresh one keeps a higher source", presence{status: "idle", statusBy: byHook, statusAt: at.Add(-freshStatus)}, "idle", byHand, byHook},
		{"an old one does not", presence{status: "idle", statusBy: byHook, statusAt: at.Add(-freshStatus - 1)}, "idle", byHand, byHand},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &conn{presence: tc.before}
			c.become(tc.status, tc.by, at)
			if c.status != tc.status || c.statusBy != tc.want || !c.statusAt.Equal(at) {
				t.Errorf("%+v", c.presence)
			}
		})
	}
}

func TestProfile(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	profile := func() *wire.PeerProfile {
		t.Helper()
		for _, p := range into[wire.PeersList](a, a.call(wire.TypeListPeers, nil)).Peers {
			if p.MemberPubkey == bob.PublicKey() {
				return p.Profile
			}
		}
		t.Fatal("not listed")
		return nil
	}
	b.call(wire.TypeSetProfile, map[string]any{"title": "builder", "capabilities": []string{"go"}})
	b.call(wire.TypeSetProfile, map[string]any{"bio": "I fix CI"})
	if p := profile(); p == nil || p.Title != "builder" || p.Bio != "I fix CI" || len(p.Capabilities) != 1 {
		t.Errorf("%+v", p)
	}
	t.Run("comes back with the member, and not from its sessions", func(t *testing.T) {
		s := r.session(bob, newIdentity(t))
		b.close()
		s.close()
		a.event(wire.EventPeerLeft)
		a.event(wire.EventPeerLeft)
		b = r.member(bob)
		if p := profile(); p == nil || p.Title != "builder" {
			t.Errorf("%+v", p)
		}
	})
	t.Run("an empty field is removed", func(t *testing.T) {
		b.call(wire.TypeSetProfile, map[string]any{"title": "", "bio": "", "capabilities": []string{}})
		if p := profile(); p != nil {
			t.Errorf("%+v", p)
		}
	})
	t.Run("is bounded", func(t *testing.T) {
		e := into[wire.Error](b, b.call(wire.TypeSetProfile, map[string]any{"bio": string(make([]byte, wire.MaxBioBytes+1))}))
		if e.Code != wire.CodeInvalid {
			t.Errorf("%+v", e)
		}
	})
}

func TestAGroupReachesTheGroupsBelowIt(t *testing.T) {
	r := newRig(t)
	bob, carol, dave := r.addMember("bob"), r.addMember("carol"), r.addMember("dave")
	in := func(name string) func(*wire.Hello) {
		return func(h *wire.Hello) { h.Groups = []mesh.Group{{Name: name}} }
	}
	a, b := r.member(r.owner), r.member(bob, in("dev/core"))
	r.member(dave, in("developers"))
	c := r.member(carol, in("dev/core/net"))
	c.close()
	a.eventOf(wire.EventPeerLeft, carol.PublicKey())
	f := sendFrame("g1", "@dev", "hi")
	f.RequestFingerprint = "32da922a37f1e9ea05c1adf6063167bfcdabfaa8f880d2f75d8da95a8b5594f3"
	f.ReplyToID = "earlier"
	a.mustSend(f)
	live := b.message()
	r.mailIn(r.mailboxOf(dave), 0)
	late := r.member(carol).message()
	if !reflect.DeepEqual(live, late) {
		t.Errorf("the live copy differs from the later one:\n%+v\n%+v", live, late)
	}
	if live.ClientMessageID != "g1" || live.SenderName != "alice" || live.RequestFingerprint == "" || live.ReplyToID != "earlier" || live.TargetSpec != "@dev" {
		t.Errorf("%+v", live)
	}
	a.settle()
	a.quiet()
}
