package broker

import (
	"fmt"
	"testing"
	"time"

	"claudemesh/wire"
)

func TestTheRateLimit(t *testing.T) {
	clock, withClock := fakeClock(time.Now())
	r := newRig(t, withClock, func(c *Config) { c.Limits.SendRate, c.Limits.SendBurst = 60, 3 })
	bob := r.addMember("bob")
	a := r.member(r.owner)
	send := func(c *client, id string) wire.Ack { t.Helper(); return c.send(sendFrame(id, bob.PublicKey(), id)) }
	for i := range 3 {
		if got := send(a, fmt.Sprint("m", i)); !got.Queued {
			t.Fatalf("%+v", got)
		}
	}
	t.Run("refuses what is too much, and says when to come back", func(t *testing.T) {
		got := send(a, "m3")
		if got.Queued || got.Code != wire.AckRateLimited || got.RetryAfterMS != 1000 || got.Error != "rate_limit: max 60 msg/min (burst 3) — slow down" {
			t.Errorf("%+v", got)
		}
	})
	t.Run("is shared by the connections of a member", func(t *testing.T) {
		if got := send(r.session(r.owner, newIdentity(t)), "m4"); got.Code != wire.AckRateLimited {
			t.Errorf("%+v", got)
		}
	})
	t.Run("is nobody else's", func(t *testing.T) {
		b := r.member(bob)
		if got := b.send(sendFrame("m0", r.owner.PublicKey(), "x")); !got.Queued {
			t.Errorf("%+v", got)
		}
	})
	t.Run("never refuses a message that was accepted before", func(t *testing.T) {
		if got := send(a, "m1"); !got.Queued || !got.Duplicate {
			t.Errorf("%+v", got)
		}
	})
	t.Run("lets nobody overtake who was refused", func(t *testing.T) {
		clock.Advance(999 * time.Millisecond) // almost a token
		if got := send(a, "m4"); got.Code != wire.AckRateLimited || got.RetryAfterMS != 1 {
			t.Errorf("%+v", got)
		}
		clock.Advance(time.Millisecond)
		if got := send(a, "m3"); !got.Queued {
			t.Errorf("%+v", got)
		}
	})
	t.Run("is set by the team's admins", func(t *testing.T) {
		b := r.member(bob)
		if e := into[wire.Error](b, b.call(wire.TypeMeshSettings, map[string]any{"sendRate": 1})); e.Code != wire.CodeForbidden {
			t.Errorf("%+v", e)
		}
		if got := into[wire.MeshSettingsResult](b, b.call(wire.TypeMeshSettings, nil)); got.SendRate != 60 || got.SendBurst != 3 || !got.Default || !got.SelfEditable["groups"] {
			t.Errorf("%+v", got)
		}
		got := into[wire.MeshSettingsResult](a, a.call(wire.TypeMeshSettings, map[string]any{"sendRate": 600, "sendBurst": 50, "selfEditable": map[string]bool{"groups": false}}))
		if got.SendRate != 600 || got.SendBurst != 50 || got.Default || got.SelfEditable["groups"] || !got.SelfEditable["roleTag"] {
			t.Errorf("%+v", got)
		}
		clock.Advance(time.Second)
		for i := range 10 {
			if got := send(a, fmt.Sprint("n", i)); !got.Queued {
				t.Fatalf("%d: %+v", i, got)
			}
		}
	})
	t.Run("and stays so", func(t *testing.T) {
		r.restart()
		a := r.dial()
		a.write(r.helloFrame(r.owner))
		if ack := into[wire.HelloAck](a, a.wait(wire.TypeHelloAck)); ack.MeshPolicy.SelfEditable["groups"] {
			t.Errorf("%+v", ack.MeshPolicy)
		}
		if got := into[wire.MeshSettingsResult](a, a.call(wire.TypeMeshSettings, nil)); got.SendRate != 600 {
			t.Errorf("%+v", got)
		}
	})
	t.Run("takes no numbers out of range and no unknown fields of a profile", func(t *testing.T) {
		for _, in := range []map[string]any{{"sendRate": -1}, {"sendRate": wire.MaxSendRate + 1}, {"sendBurst": -1}, {"selfEditable": map[string]bool{"shoes": true}}} {
			a := r.member(r.owner, withSession("x"))
			if e := into[wire.Error](a, a.call(wire.TypeMeshSettings, in)); e.Code != wire.CodeInvalid {
				t.Errorf("%v: %+v", in, e)
			}
		}
	})
}

func TestABrokerWithoutALimitHasNone(t *testing.T) {
	var l sendLimiter
	for range 10_000 {
		if _, ok := l.take(0, 0, time.Unix(0, 0)); !ok {
			t.Fatal("refused")
		}
	}
}
