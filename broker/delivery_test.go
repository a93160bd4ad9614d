package broker

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/mesh"
	"claudemesh/wire"
)

func TestAClientThatNeverAcknowledges(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	a := r.member(r.owner)
	t.Run("has received what its socket took", func(t *testing.T) {
		b := r.member(bob, withoutAcks)
		a.mustSend(sendFrame("m1", bob.PublicKey(), "x"))
		b.message()
		r.mailIn(r.mailboxOf(bob), 0)
		b.close()
	})
	t.Run("does not take mail from one that acknowledges", func(t *testing.T) {
		plain := r.member(bob, withoutAcks, withSession("plain"))
		acking := r.member(bob, withSession("acking"))
		a.mustSend(sendFrame("m2", bob.PublicKey(), "x"))
		plain.message()
		p := acking.message()
		plain.settle()
		r.mailIn(r.mailboxOf(bob), 1)
		acking.clientAck(p, "")
		r.mailIn(r.mailboxOf(bob), 0)
		plain.close()
		acking.close()
	})
	t.Run("becomes one that does by its first client_ack", func(t *testing.T) {
		b := r.member(bob, withoutAcks)
		a.mustSend(sendFrame("m3", bob.PublicKey(), "x"))
		b.clientAck(b.message(), "")
		b.settle()
		a.mustSend(sendFrame("m4", bob.PublicKey(), "x"))
		b.message()
		b.settle()
		r.mailIn(r.mailboxOf(bob), 1)
	})
}

func TestUnacknowledgedMailComesAgain(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	for i := range 3 {
		a.mustSend(sendFrame(fmt.Sprint("m", i), bob.PublicKey(), fmt.Sprint(i)))
	}
	b.message()
	b.clientAck(b.message(), "")
	b.message()
	r.mailIn(r.mailboxOf(bob), 2)
	b.close()
	b = r.member(bob)
	if x, y := text(b.message()), text(b.message()); x != "0" || y != "2" {
		t.Errorf("got %s and %s", x, y)
	}
	t.Run("but not when it was acknowledged by message id before it came again", func(t *testing.T) {
		held := r.member(bob, withSession("w"))
		p := held.message()
		held.clientAck(p, "")
		r.mailIn(r.mailboxOf(bob), 1)
	})
	t.Run("nor when only the client message id is given", func(t *testing.T) {
		b.write(wire.ClientAck{Type: wire.TypeClientAck, ClientMessageID: "m2"})
		r.mailIn(r.mailboxOf(bob), 0)
	})
}

func TestTheWindowBoundsUnacknowledgedPushes(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Limits.Window = 4 })
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	for i := range 10 {
		a.mustSend(sendFrame(fmt.Sprint("m", i), bob.PublicKey(), fmt.Sprint(i)))
	}
	r.mailIn(r.mailboxOf(bob), 10)
	var got []wire.Push
	for range 4 {
		got = append(got, b.message())
	}
	b.settle()
	b.settle()
	b.quiet()
	for i := 0; i < len(got); i++ {
		b.clientAck(got[i], "")
		if len(got) < 10 {
			got = append(got, b.message())
		}
	}
	for i, p := range got {
		if text(p) != fmt.Sprint(i) {
			t.Errorf("message %d is %q", i, text(p))
		}
	}
	r.mailIn(r.mailboxOf(bob), 0)
}

func TestMailThatOverflowsTheLiveQueueComesFromTheStream(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Limits.Window = 4 })
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	b.settle()
	const n = liveCopies + 100
	for i := range n {
		a.write(sendFrame(fmt.Sprint("m", i), bob.PublicKey(), fmt.Sprint(i)))
	}
	r.mailIn(r.mailboxOf(bob), n)
	for i := range n {
		p := b.message()
		if text(p) != fmt.Sprint(i) {
			t.Fatalf("message %d is %q", i, text(p))
		}
		b.clientAck(p, "")
	}
	r.mailIn(r.mailboxOf(bob), 0)
}

func TestMailAcknowledgedBeforeItIsPushedIsNotPushed(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Limits.Window = 1 })
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	a.mustSend(sendFrame("m1", bob.PublicKey(), "first"))
	second := a.mustSend(sendFrame("m2", bob.PublicKey(), "second"))
	a.mustSend(sendFrame("m3", bob.PublicKey(), "third"))
	p := b.message()
	b.write(wire.ClientAck{Type: wire.TypeClientAck, BrokerMessageID: second.MessageID}) // stored by an earlier connection, say
	b.clientAck(p, "")
	if p := b.message(); text(p) != "third" {
		t.Errorf("got %q", text(p))
	}
	r.mailIn(r.mailboxOf(bob), 1)
}

func TestALostLiveCopyIsNoticedByTheNext(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	a.mustSend(sendFrame("m1", bob.PublicKey(), "first"))
	b.message()
	for c := range r.broker.meshes[r.mesh.ID].readers[bob.PublicKey()] {
		forged := &nats.Msg{Data: []byte(`{"a":999}`), Header: nats.Header{"Nats-Sequence": {"1000"}, "Nats-Last-Sequence": {"999"}}}
		c.pump.copy(c.pump.boxes[0], forged)
	}
	b.settle()
	a.mustSend(sendFrame("m2", bob.PublicKey(), "second"))
	if p := b.message(); text(p) != "second" {
		t.Errorf("got %q", text(p))
	}
}

func TestAcknowledgedMailIsNotPushedAgainWhileItsDeletionIsUnderWay(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	a := r.member(r.owner)
	a.mustSend(sendFrame("m1", bob.PublicKey(), "first"))
	a.mustSend(sendFrame("m2", bob.PublicKey(), "second"))
	r.mailIn(r.mailboxOf(bob), 2)
	msg, err := r.broker.store.mail.GetMsg(t.Context(), 1, jetstream.WithGetMsgSubject(r.mailboxOf(bob)))
	if err != nil {
		t.Fatal(err)
	}
	r.broker.settler.recent.Add(entry{r.mailboxOf(bob), msg.Sequence}, struct{}{}) // acknowledged, and the store is slow
	if p := r.member(bob).message(); text(p) != "second" {
		t.Errorf("got %q", text(p))
	}
}

func TestAcknowledgementsWithGapsDeleteNothingElse(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	a := r.member(r.owner)
	const n = 12
	for i := range n {
		a.mustSend(sendFrame(fmt.Sprint("m", i), bob.PublicKey(), fmt.Sprint(i)))
	}
	box := r.mailboxOf(bob)
	r.mailIn(box, n)
	var all []settlement
	for prev := uint64(0); len(all) < n; prev = all[len(all)-1].seq {
		msg, err := r.broker.store.mail.GetMsg(t.Context(), prev+1, jetstream.WithGetMsgSubject(box))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, settlement{subject: box, seq: msg.Sequence, prev: prev})
	}
	left, gone := n, map[int]bool{}
	for _, tc := range []struct {
		name string
		ack  []int
	}{
		{"the oldest, then a gap", []int{0, 1, 2, 5, 6}},
		{"not the oldest", []int{4, 7, 8}},
		{"some again, and the oldest", []int{8, 3, 4, 0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var js []settlement
			for _, i := range tc.ack {
				js = append(js, all[i])
				if !gone[i] {
					gone[i] = true
					left--
				}
			}
			r.broker.settler.remove(box, js)
			r.mailIn(box, left)
		})
	}
	b := r.member(bob)
	for _, i := range []int{9, 10, 11} {
		if p := b.message(); text(p) != fmt.Sprint(i) {
			t.Errorf("%q is left where %d was due", text(p), i)
		}
	}
}

func TestSessionsHaveTheirOwnMailbox(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	key := newIdentity(t)
	a, b := r.member(r.owner), r.member(bob)
	s := r.session(bob, key)
	a.mustSend(sendFrame("s1", key.PublicKey(), "to the session"))
	p := s.message()
	s.clientAck(p, "")
	b.settle()
	b.quiet()
	t.Run("which takes mail while the session is offline, after a restart too", func(t *testing.T) {
		s.close()
		r.restart()
		a = r.member(r.owner)
		a.mustSend(sendFrame("s2", key.PublicKey(), "later"))
		if p := r.session(bob, key).message(); text(p) != "later" {
			t.Errorf("%+v", p)
		}
	})
	t.Run("and a sibling session can write to it", func(t *testing.T) {
		sib := r.session(bob, newIdentity(t))
		sib.mustSend(sendFrame("s3", key.PublicKey(), "sibling"))
		sib.mustSend(sendFrame("s4", bob.PublicKey(), "to its own member"))
		if no := sib.send(sendFrame("s5", sib.lastPeer(), "self")); no.Code != wire.AckNoPeer {
			t.Errorf("%+v", no)
		}
	})
}

// lastPeer is the routing key of whoever connected last.
func (c *client) lastPeer() string {
	c.t.Helper()
	peers := into[wire.PeersList](c, c.call(wire.TypeListPeers, nil)).Peers
	return peers[len(peers)-1].Pubkey
}

func TestReceipts(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	key := newIdentity(t)
	a, b, s := r.member(r.owner), r.member(bob), r.session(bob, key)
	receipt := func(c *client) wire.Receipt { t.Helper(); return into[wire.Receipt](c, c.wait(wire.TypeReceipt)) }

	ack := a.mustSend(sendFrame("m1", bob.PublicKey(), "x"))
	p := b.message()
	b.clientAck(p, wire.StateDelivered)
	got := receipt(a)
	if got.MessageID != ack.MessageID || got.ClientMessageID != "m1" || got.State != wire.StateDelivered || got.RecipientPubkey != bob.PublicKey() || got.MailID == "" || got.At == "" {
		t.Errorf("%+v", got)
	}
	t.Run("surfaced comes later, from another connection of the member, and once", func(t *testing.T) {
		for range 2 {
			s.write(wire.ClientAck{Type: wire.TypeClientAck, BrokerMessageID: p.MessageID, State: wire.StateSurfaced, Via: "channel", By: "bob's session"})
		}
		s.settle()
		got := receipt(a)
		if got.State != wire.StateSurfaced || got.Via != "channel" || got.By != "bob's session" || got.RecipientPubkey != bob.PublicKey() {
			t.Errorf("%+v", got)
		}
		r.mailIn(receiptSubject(r.mesh.ID, r.owner.PublicKey()), 2)
	})
	t.Run("a receipt is kept until it is acknowledged, over a restart", func(t *testing.T) {
		r.restart()
		a = r.member(r.owner)
		for range 2 {
			got := receipt(a)
			a.write(wire.ClientAck{Type: wire.TypeClientAck, BrokerMessageID: got.MailID})
		}
		r.mailIn(receiptSubject(r.mesh.ID, r.owner.PublicKey()), 0)
	})
	t.Run("an acknowledgement by somebody who was not sent the message makes none", func(t *testing.T) {
		eve := r.member(r.addMember("eve"))
		a.mustSend(sendFrame("m2", bob.PublicKey(), "x"))
		b := r.member(bob)
		p := b.message()
		eve.clientAck(p, wire.StateSurfaced)
		eve.settle()
		b.settle()
		r.mailIn(r.mailboxOf(bob), 1)
		r.mailIn(receiptSubject(r.mesh.ID, r.owner.PublicKey()), 0)
		b.clientAck(p, "")
		receipt(a)
	})
	t.Run("a member that never asked for receipts gets none", func(t *testing.T) {
		carol := r.addMember("carol")
		c := r.member(carol, withoutAcks)
		c.mustSend(sendFrame("m3", bob.PublicKey(), "x"))
		b := r.member(bob)
		b.clientAck(b.message(), "")
		r.mailIn(r.mailboxOf(bob), 0)
		r.mailIn(receiptSubject(r.mesh.ID, carol.PublicKey()), 0)
	})
	t.Run("every recipient of a multicast makes its own", func(t *testing.T) {
		dave := r.addMember("dave")
		ack := a.mustSend(sendFrame("m4", "*", "x"))
		from := map[string]bool{}
		for _, who := range []mesh.Identity{bob, dave} {
			c := r.member(who)
			c.clientAck(c.message(), "")
		}
		for range 2 {
			got := receipt(a)
			if got.MessageID == ack.MessageID {
				from[got.RecipientPubkey] = true
			}
		}
		if !from[bob.PublicKey()] || !from[dave.PublicKey()] {
			t.Errorf("receipts from %v", from)
		}
	})
}
