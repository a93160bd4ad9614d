package broker

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/wire"
)

func withSubject(s string) jetstream.StreamInfoOpt { return jetstream.WithSubjectFilter(s) }

func TestADirectMessageReachesAnOnlineMember(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	ack := a.mustSend(sendFrame("m1", bob.PublicKey(), "hi"))
	p := b.message()
	if text(p) != "hi" || p.MessageID != ack.MessageID || p.ClientMessageID != "m1" || p.SenderPubkey != r.owner.PublicKey() ||
		p.SenderMemberPubkey != r.owner.PublicKey() || p.SenderName != "alice" || p.TargetSpec != bob.PublicKey() || p.MeshID != r.mesh.ID {
		t.Errorf("push %+v", p)
	}
	b.clientAck(p, "")
	r.mailIn(r.mailboxOf(bob), 0)
}

func TestMailForAnOfflineMemberWaits(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	a := r.member(r.owner)
	for i := range 20 {
		a.mustSend(sendFrame(fmt.Sprint("m", i), bob.PublicKey(), fmt.Sprint(i)))
	}
	t.Run("and comes in order when it connects", func(t *testing.T) {
		b := r.member(bob)
		for i := range 20 {
			if p := b.message(); text(p) != fmt.Sprint(i) {
				t.Fatalf("message %d is %q", i, text(p))
			}
		}
		b.close()
	})
	t.Run("and comes again after a restart of the broker because it was not acknowledged", func(t *testing.T) {
		r.restart()
		b := r.member(bob)
		for i := range 20 {
			p := b.message()
			if text(p) != fmt.Sprint(i) {
				t.Fatalf("message %d is %q", i, text(p))
			}
			b.clientAck(p, "")
		}
		r.mailIn(r.mailboxOf(bob), 0)
		b.close()
	})
	t.Run("and does not come once it was", func(t *testing.T) {
		r.restart()
		b := r.member(bob)
		r.member(r.owner, withSession("other")).mustSend(sendFrame("last", bob.PublicKey(), "last"))
		if p := b.message(); text(p) != "last" {
			t.Fatalf("got %q", text(p))
		}
	})
}

func withSession(id string) func(*wire.Hello) { return func(h *wire.Hello) { h.SessionID = id } }
