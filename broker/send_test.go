package broker

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"claudemesh/mesh"
	"claudemesh/wire"
)

func TestOneClientMessageIDStandsForOneMessage(t *testing.T) {
	r := newRig(t)
	bob, carol := r.addMember("bob"), r.addMember("carol")
	a, b := r.member(r.owner), r.member(bob)
	withPrint := func(f wire.Send, print string) wire.Send { f.RequestFingerprint = print; return f }
	fp1, fp2 := strings.Repeat("1", 64), strings.Repeat("2", 64)

	first := a.mustSend(withPrint(sendFrame("id", bob.PublicKey(), "sealed once"), fp1))
	t.Run("the same request gets the first message id, whatever its cipher text", func(t *testing.T) {
		again := a.mustSend(withPrint(sendFrame("id", bob.PublicKey(), "sealed again"), fp1))
		if !again.Duplicate || again.MessageID != first.MessageID {
			t.Errorf("%+v after %+v", again, first)
		}
	})
	t.Run("another request is refused and nothing is stored", func(t *testing.T) {
		no := a.send(withPrint(sendFrame("id", bob.PublicKey(), "other"), fp2))
		if no.Queued || no.Code != wire.AckIDReused || !strings.HasPrefix(no.Error, "idempotency_key_reused: ") || no.MessageID != "" {
			t.Errorf("%+v", no)
		}
	})
	t.Run("without a fingerprint the frame itself is compared", func(t *testing.T) {
		one := a.mustSend(sendFrame("bare", bob.PublicKey(), "x"))
		if two := a.mustSend(sendFrame("bare", bob.PublicKey(), "x")); !two.Duplicate || two.MessageID != one.MessageID {
			t.Errorf("%+v after %+v", two, one)
		}
		if no := a.send(sendFrame("bare", bob.PublicKey(), "y")); no.Code != wire.AckIDReused {
			t.Errorf("%+v", no)
		}
	})
	t.Run("ids belong to the member: another member may use the same one", func(t *testing.T) {
		c := r.member(carol)
		if ack := c.mustSend(sendFrame("id", bob.PublicKey(), "carol's")); ack.Duplicate || ack.MessageID == first.MessageID {
			t.Errorf("%+v", ack)
		}
	})
	t.Run("a repetition is recognised after a restart, and when the target is gone", func(t *testing.T) {
		r.restart()
		if err := r.broker.RevokeMember(t.Context(), r.mesh.ID, bob.PublicKey()); err != nil {
			t.Fatal(err)
		}
		a2 := r.member(r.owner)
		again := a2.mustSend(withPrint(sendFrame("id", bob.PublicKey(), "later"), fp1))
		if !again.Duplicate || again.MessageID != first.MessageID {
			t.Errorf("%+v", again)
		}
		if no := a2.send(sendFrame("new", bob.PublicKey(), "x")); no.Code != wire.AckNoPeer {
			t.Errorf("%+v", no)
		}
	})
	_ = b
}

func TestConcurrentRepetitionsMakeOneMessage(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	b := r.member(bob)
	var wg sync.WaitGroup
	acks := make([]wire.Ack, 8)
	for i := range acks {
		c := r.member(r.owner, withSession(fmt.Sprint("s", i)))
		wg.Go(func() { acks[i] = c.mustSend(sendFrame("same", bob.PublicKey(), "x")) })
	}
	wg.Wait()
	fresh := 0
	for _, a := range acks {
		if a.MessageID != acks[0].MessageID {
			t.Errorf("ids differ: %+v", acks)
		}
		if !a.Duplicate {
			fresh++
		}
	}
	if fresh != 1 {
		t.Errorf("%d of %d were first", fresh, len(acks))
	}
	b.message()
	r.member(r.owner, withSession("end")).mustSend(sendFrame("end", bob.PublicKey(), "end"))
	if p := b.message(); p.ClientMessageID != "end" {
		t.Errorf("a second copy: %+v", p)
	}
}

func TestRefusedSends(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	a := r.member(r.owner)
	stranger := newIdentity(t)
	edit := func(fn func(*wire.Send)) wire.Send { f := sendFrame("id", bob.PublicKey(), "x"); fn(&f); return f }
	for _, tc := range []struct {
		name        string
		frame       wire.Send
		code, error string
	}{
		{"to a key that nobody ever proved", edit(func(f *wire.Send) { f.TargetSpec = stranger.PublicKey() }), wire.AckNoPeer, noPeer},
		{"to a name", edit(func(f *wire.Send) { f.TargetSpec = "bob" }), wire.AckNoPeer, noPeer},
		{"to a key in upper case", edit(func(f *wire.Send) { f.TargetSpec = strings.ToUpper(bob.PublicKey()) }), wire.AckNoPeer, noPeer},
		{"to the own key", edit(func(f *wire.Send) { f.TargetSpec = r.owner.PublicKey() }), wire.AckNoPeer, noPeer},
		{"to a topic", edit(func(f *wire.Send) { f.TargetSpec = "#nowhere" }), wire.AckNotFound, `not_found: no topic "nowhere"`},
		{"to a group without name", edit(func(f *wire.Send) { f.TargetSpec = "@" }), wire.AckInvalid, "invalid: group name missing"},
		{"with an unknown priority", edit(func(f *wire.Send) { f.Priority = "urgent" }), wire.AckInvalid, "invalid: invalid frame: priority must be now, next or low"},
		{"without target", edit(func(f *wire.Send) { f.TargetSpec = "" }), wire.AckInvalid, "invalid: invalid frame: targetSpec missing"},
		{"with an odd fingerprint", edit(func(f *wire.Send) { f.RequestFingerprint = "xyz" }), wire.AckInvalid, "invalid: request_fingerprint must be 64 hex digits"},
		{"with too much text", edit(func(f *wire.Send) { f.Ciphertext = strings.Repeat("A", 66_000) }), wire.AckPayloadTooLarge, "payload too large: 66072 bytes > MAX_MESSAGE_BYTES=65536"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ack := a.send(tc.frame)
			if ack.Queued || ack.MessageID != "" || ack.Code != tc.code || ack.Error != tc.error {
				t.Errorf("%+v", ack)
			}
		})
	}
	t.Run("with a field of the wrong type, the answer still has the id", func(t *testing.T) {
		a.write(map[string]any{"type": "send", "id": "typed", "targetSpec": 7, "_reqId": "q"})
		if ack := a.ack("typed"); ack.Queued || ack.Code != wire.AckInvalid || ack.ReqID != "q" {
			t.Errorf("%+v", ack)
		}
	})
	t.Run("and the largest allowed one is taken", func(t *testing.T) {
		f := sendFrame("big", bob.PublicKey(), "")
		f.Ciphertext = strings.Repeat("A", wire.MaxSendBytes-len(f.Nonce)-len(f.TargetSpec))
		a.mustSend(f)
		if p := r.member(bob).message(); p.Ciphertext != f.Ciphertext {
			t.Error("the text came back different")
		}
	})
}

func TestAFullMailboxRefusesDirectMailAndIsSkippedByMulticasts(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Limits.MailboxDepth = 3 })
	bob, carol := r.addMember("bob"), r.addMember("carol")
	a := r.member(r.owner)
	for i := range 3 {
		a.mustSend(sendFrame(fmt.Sprint("m", i), bob.PublicKey(), "x"))
	}
	r.mailIn(r.mailboxOf(bob), 3)
	if no := a.send(sendFrame("over", bob.PublicKey(), "x")); no.Code != wire.AckUnavailable {
		t.Errorf("%+v", no)
	}
	a.mustSend(sendFrame("all", "*", "x"))
	r.mailIn(r.mailboxOf(carol), 1)
	r.mailIn(r.mailboxOf(bob), 3)
	b := r.member(bob)
	for range 3 {
		b.clientAck(b.message(), "")
	}
	r.mailIn(r.mailboxOf(bob), 0)
	a.mustSend(sendFrame("again", bob.PublicKey(), "x"))
}

func TestMailOfOneRecipientKeepsTheOrderOfAcceptance(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	b := r.member(bob)
	const senders, each = 4, 100
	var wg sync.WaitGroup
	for s := range senders {
		c := r.member(r.owner, withSession(fmt.Sprint("s", s)))
		wg.Go(func() {
			for i := range each {
				c.write(sendFrame(fmt.Sprintf("%d-%d", s, i), bob.PublicKey(), "x"))
			}
			for i := range each {
				if ack := into[wire.Ack](c, c.wait(wire.TypeAck)); !ack.Queued || ack.ID != fmt.Sprintf("%d-%d", s, i) {
					t.Errorf("ack %d of sender %d: %+v", i, s, ack)
				}
			}
		})
	}
	next := map[int]int{}
	for range senders * each {
		p := b.message()
		var s, i int
		fmt.Sscanf(p.ClientMessageID, "%d-%d", &s, &i)
		if i != next[s] {
			t.Fatalf("sender %d: message %d where %d was due", s, i, next[s])
		}
		next[s]++
		b.clientAck(p, "")
	}
	wg.Wait()
	r.mailIn(r.mailboxOf(bob), 0)
}

func TestMulticasts(t *testing.T) {
	r := newRig(t)
	bob, carol, dave := r.addMember("bob"), r.addMember("carol"), r.addMember("dave")
	a, b := r.member(r.owner), r.member(bob)
	c := r.member(carol)
	inDev := func(h *wire.Hello) { h.Groups = []mesh.Group{{Name: "dev", Role: "lead"}} }

	t.Run("all reaches the offline ones too, and not the sender", func(t *testing.T) {
		a.mustSend(sendFrame("all", "*", "everybody"))
		for _, who := range []*client{b, c, r.member(dave)} {
			if p := who.message(); text(p) != "everybody" || p.TargetSpec != "*" || p.SenderMemberPubkey != r.owner.PublicKey() {
				t.Errorf("%+v", p)
			} else {
				who.clientAck(p, "")
				who.settle()
			}
		}
		r.mailIn(r.mailboxOf(r.owner), 0)
	})
	t.Run("the own member gets a copy when one of its connections asked", func(t *testing.T) {
		own := r.member(r.owner, withSession("own"), func(h *wire.Hello) { h.Capabilities = append(h.Capabilities, wire.CapOwnMulticast) })
		a.mustSend(sendFrame("all2", "@all", "us too"))
		p := own.message()
		if text(p) != "us too" {
			t.Errorf("%+v", p)
		}
		own.clientAck(p, "")
		d := r.member(dave)
		for _, who := range []*client{b, c, d} {
			who.clientAck(who.message(), "")
			who.settle()
		}
		a.settle()
		a.quiet()
		own.close()
		d.close()
	})
	t.Run("a group reaches those who joined it, also while they are offline", func(t *testing.T) {
		r.member(dave, inDev).close()
		b.call(wire.TypeJoinGroup, map[string]any{"name": "dev"})
		a.mustSend(sendFrame("dev", "@dev", "developers"))
		for _, who := range []*client{b, r.member(dave)} {
			p := who.message()
			if text(p) != "developers" {
				t.Errorf("%+v", p)
			}
			who.clientAck(p, "")
			who.settle()
		}
		c.settle()
		c.quiet()
	})
	t.Run("not those who left it", func(t *testing.T) {
		b.call(wire.TypeLeaveGroup, map[string]any{"name": "dev"})
		a.mustSend(sendFrame("dev2", "@dev", "still"))
		r.mailIn(r.mailboxOf(dave), 1)
		r.mailIn(r.mailboxOf(bob), 0)
	})
	t.Run("not those who hide", func(t *testing.T) {
		c.call("set_visible", map[string]any{"visible": false})
		a.mustSend(sendFrame("all3", "*", "the visible"))
		b.clientAck(b.message(), "")
		r.mailIn(r.mailboxOf(carol), 0)
	})
	t.Run("a group without members takes the message all the same", func(t *testing.T) {
		a.mustSend(sendFrame("none", "@nobody", "x"))
	})
	t.Run("a session's group counts while the session is offline", func(t *testing.T) {
		s := r.session(bob, newIdentity(t), func(h *wire.SessionHello) { h.Groups = []mesh.Group{{Name: "night"}} })
		s.close()
		r.restart()
		r.member(r.owner).mustSend(sendFrame("night", "@night", "owls"))
		r.mailIn(r.mailboxOf(bob), 1)
	})
}
