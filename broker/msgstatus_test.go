package broker

import (
	"fmt"
	"slices"
	"testing"

	"claudemesh/wire"
)

func TestMessageStatus(t *testing.T) {
	r := newRig(t)
	bob, carol, dave := r.addMember("bob"), r.addMember("carol"), r.addMember("dave")
	a, b := r.member(r.owner), r.member(bob)
	status := func(c *client, id string) wire.MessageStatusResult {
		t.Helper()
		for { // until the fan-out has noted that the message is in the mailboxes: a push may be faster
			got := into[wire.MessageStatusResult](c, c.call(wire.TypeMessageStatus, map[string]any{"messageId": id}))
			if !slices.ContainsFunc(got.Recipients, func(r wire.RecipientStatus) bool { return r.State == wire.RecipientQueued }) {
				return got
			}
		}
	}
	refusal := func(c *client, id string) string {
		t.Helper()
		return into[wire.Error](c, c.call(wire.TypeMessageStatus, map[string]any{"messageId": id})).Code
	}
	one := func(got wire.MessageStatusResult) wire.RecipientStatus {
		t.Helper()
		if len(got.Recipients) != 1 {
			t.Fatalf("%+v", got)
		}
		return got.Recipients[0]
	}
	for i := range 50 { // so that there is something to look through
		a.mustSend(sendFrame(fmt.Sprint("f", i), carol.PublicKey(), "x"))
	}
	id := a.mustSend(sendFrame("m1", bob.PublicKey(), "x")).MessageID
	p := b.message()
	t.Run("pushed and not acknowledged", func(t *testing.T) {
		got := status(a, id)
		if r := one(got); r.Status != "held" || r.State != "pushed" || r.Name != "bob" || got.Delivered || got.DeliveredAt != nil || got.TargetSpec != bob.PublicKey() || got.ClientMessageID != "m1" {
			t.Errorf("%+v", got)
		}
	})
	b.clientAck(p, "")
	r.mailIn(r.mailboxOf(bob), 0)
	t.Run("delivered", func(t *testing.T) {
		got := status(a, id)
		if r := one(got); r.Status != "delivered" || r.State != "delivered" || r.At == "" || !got.Delivered || got.DeliveredAt == nil {
			t.Errorf("%+v", got)
		}
	})
	t.Run("may be asked for by the beginning of the id, and by the recipient", func(t *testing.T) {
		if got := status(b, id[:8]); !got.Delivered || got.MessageID != id[:8] || got.FullID != id {
			t.Errorf("%+v", got)
		}
	})
	t.Run("is nobody else's business but the owner's", func(t *testing.T) {
		between := b.mustSend(sendFrame("m1", carol.PublicKey(), "x")).MessageID
		if got := refusal(r.member(dave), between); got != wire.CodeForbidden {
			t.Error(got)
		}
		if got := one(status(a, between)); got.Status != "disconnected" || got.State != "waiting" {
			t.Errorf("%+v", got)
		}
	})
	t.Run("held back by the recipient's status", func(t *testing.T) {
		b.setStatus(wire.StatusDND)
		f := sendFrame("m2", bob.PublicKey(), "x")
		got := one(status(a, a.mustSend(f).MessageID))
		for got.State == "queued" {
			got = one(status(a, messageID(r.broker.idSecret, r.mesh.ID, r.memberID(r.owner), "m2")))
		}
		if got.Status != "held" || got.State != "gated" {
			t.Errorf("%+v", got)
		}
		b.setStatus(wire.StatusIdle)
		b.clientAck(b.message(), "")
	})
	t.Run("in the middle of a mailbox", func(t *testing.T) {
		for _, i := range []int{0, 1, 25, 49} {
			got := one(status(a, messageID(r.broker.idSecret, r.mesh.ID, r.memberID(r.owner), fmt.Sprint("f", i))))
			if got.Status != "disconnected" || got.Name != "carol" {
				t.Errorf("%d: %+v", i, got)
			}
		}
	})
	t.Run("of a broadcast: each recipient's own", func(t *testing.T) {
		id := a.mustSend(sendFrame("all", "*", "x")).MessageID
		b.clientAck(b.message(), "")
		r.mailIn(r.mailboxOf(bob), 0)
		states := map[string]string{}
		got := status(a, id)
		for _, r := range got.Recipients {
			states[r.Name] = r.Status
		}
		if got.Delivered || states["bob"] != "delivered" || states["carol"] != "disconnected" || len(states) != 3 {
			t.Errorf("%+v", got)
		}
	})
	t.Run("after a restart the time is not known, and what is known stays true", func(t *testing.T) {
		r.restart()
		a := r.member(r.owner)
		if got := status(a, id); !got.Delivered || got.DeliveredAt != nil {
			t.Errorf("%+v", got)
		}
		if got := refusal(a, "short"); got != wire.CodeInvalidArgument {
			t.Error(got)
		}
		if got := refusal(a, "not-an-id-but-long"); got != wire.CodeInvalidArgument {
			t.Error(got)
		}
		if got := refusal(a, "00000000000000000000000000000000"); got != wire.CodeNotFound {
			t.Error(got)
		}
		if got := refusal(a, "00000000"); got != wire.CodeNotFound {
			t.Error(got)
		}
	})
}
