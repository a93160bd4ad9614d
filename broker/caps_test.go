package broker

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// limitedFrame is a session_hello whose attestation names caps.
func (r *rig) limitedFrame(who, key mesh.Identity, caps []string, edit ...func(*wire.SessionHello)) wire.SessionHello {
	h := r.sessionFrame(who, key, edit...)
	return wire.SignLimitedSessionHello(h, who, key, r.now(), time.Hour, caps)
}

// limited connects a session that may do only what caps names.
func (r *rig) limited(who mesh.Identity, caps ...string) *client {
	r.t.Helper()
	c := r.dial()
	c.write(r.limitedFrame(who, newIdentity(r.t), caps))
	ack := into[wire.HelloAck](c, c.wait(wire.TypeHelloAck))
	if !slices.Contains(ack.Capabilities, wire.CapSessionCaps) {
		r.t.Fatal("the broker does not say that it knows limits")
	}
	return c
}

// refusalOf asks for op with nothing in the frame and returns the error that comes back, if one does.
func (c *client) refusalOf(op string) wire.Error {
	c.t.Helper()
	const reqID = "walk"
	c.write(map[string]any{"type": op, "_reqId": reqID})
	return into[wire.Error](c, c.next(func(h wire.Head, _ []byte) bool { return h.ReqID == reqID }))
}

// Every operation over real connections, by sessions of the owner, whom no role stops: one that has all capabilities but the one that is needed, and one
// that has only that.
func TestLimitsHoldOnTheWire(t *testing.T) {
	r := newRig(t)
	for op := range ops {
		if op == wire.TypeSend || op == wire.TypeClientAck { // by target, see below; never answered
			continue
		}
		t.Run(op, func(t *testing.T) {
			r.t = t
			var err error
			if r.mesh, err = r.broker.CreateMesh(t.Context(), "walk", r.owner.PublicKey(), "alice"); err != nil {
				t.Fatal(err)
			}
			need, _ := mesh.OpCapability(op)
			without := r.limited(r.owner, slices.DeleteFunc(mesh.Capabilities(), func(c string) bool { return c == need })...)
			defer without.close()
			e := without.refusalOf(op)
			switch {
			case rules[op].direct:
				if e.Code != wire.CodeForbidden {
					t.Errorf("%+v", e)
				}
			case need == "":
				if e.Code == wire.CodeForbidden {
					t.Errorf("every session may do it: %+v", e)
				}
			case e.Code != wire.CodeForbidden || !strings.Contains(e.Message, "lacks the capability "+need+" "):
				t.Errorf("without %s: %+v", need, e)
			}
			with := r.limited(r.owner, slices.DeleteFunc([]string{need}, func(c string) bool { return c == "" })...)
			defer with.close()
			if e := with.refusalOf(op); (e.Code == wire.CodeForbidden) != rules[op].direct || strings.Contains(e.Message, "lacks the capability") {
				t.Errorf("with %s: %+v", need, e)
			}
		})
	}
}

func TestLimitedSessions(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	key := r.owner.PublicKey()
	t.Run("send by target", func(t *testing.T) {
		for _, c := range []struct {
			name   string
			caps   []string
			target string
			lacks  string
		}{
			{"one peer with dm", []string{mesh.CapDM}, key, ""},
			{"one peer without", []string{mesh.CapBroadcast}, key, mesh.CapDM},
			{"everybody with broadcast", []string{mesh.CapBroadcast}, "*", ""},
			{"everybody without", []string{mesh.CapDM}, "*", mesh.CapBroadcast},
			{"a group without", []string{mesh.CapDM}, "@all", mesh.CapBroadcast},
			{"a topic without", []string{mesh.CapDM}, "#general", mesh.CapBroadcast},
			{"with nothing", nil, key, mesh.CapDM},
			{"with a capability that nobody knows", []string{"fly"}, key, mesh.CapDM},
			{"with one that is written large", []string{"DM"}, key, ""},
		} {
			t.Run(c.name, func(t *testing.T) {
				s := r.limited(bob, c.caps...)
				defer s.close()
				ack := s.send(wire.Send{Type: wire.TypeSend, ID: "1", ClientMessageID: c.name, TargetSpec: c.target, Priority: wire.PriorityNow, Nonce: "bg==", Ciphertext: "Yw=="})
				if c.lacks == "" && !ack.Queued || c.lacks != "" && (ack.Queued || !strings.Contains(ack.Error, "capability "+c.lacks+" ")) {
					t.Errorf("%+v", ack)
				}
			})
		}
	})
	t.Run("a reminder is checked by its target, and may always go to oneself", func(t *testing.T) {
		s := r.limited(bob, mesh.CapSchedule)
		defer s.close()
		in := r.now().Add(time.Hour).UnixMilli()
		e := into[wire.Error](s, s.call(wire.TypeSchedule, map[string]any{"to": "*", "message": "x", "deliverAt": in}))
		if e.Code != wire.CodeForbidden || !strings.Contains(e.Message, mesh.CapBroadcast) {
			t.Errorf("%+v", e)
		}
	})
	t.Run("the list of peers shows what a session does and what it may", func(t *testing.T) {
		free, limited, none := newIdentity(t), newIdentity(t), newIdentity(t)
		role := func(h *wire.SessionHello) { h.Role = "reviewer" }
		a := r.session(bob, free, role)
		defer a.close()
		for k, caps := range map[mesh.Identity][]string{limited: {"state-read", "DM"}, none: {}} {
			c := r.dial()
			defer c.close()
			c.write(r.limitedFrame(bob, k, caps, role))
			c.wait(wire.TypeHelloAck)
		}
		list := into[wire.PeersList](a, a.call(wire.TypeListPeers, nil))
		for _, p := range list.Peers {
			if p.Role != "reviewer" {
				t.Errorf("%+v", p)
			}
			switch p.Pubkey {
			case free.PublicKey():
				if p.AllowedCaps != nil {
					t.Errorf("%v", *p.AllowedCaps)
				}
			case limited.PublicKey():
				if p.AllowedCaps == nil || !slices.Equal(*p.AllowedCaps, []string{"dm", "state-read"}) {
					t.Errorf("%+v", p)
				}
			case none.PublicKey():
				if p.AllowedCaps == nil || len(*p.AllowedCaps) != 0 {
					t.Errorf("%+v", p)
				}
			}
		}
		if len(list.Peers) != 3 {
			t.Errorf("%d peers", len(list.Peers))
		}
	})
	for name, edit := range map[string]func(*mesh.Attestation){
		"limits that were taken off are refused":     func(a *mesh.Attestation) { a.AllowedCaps, a.Version = nil, 0 },
		"limits that were widened are refused":       func(a *mesh.Attestation) { a.AllowedCaps = &[]string{mesh.CapDM, mesh.CapAdmin} },
		"a list under version 1 is refused":          func(a *mesh.Attestation) { a.Version = 1 },
		"an attestation of the future is refused":    func(a *mesh.Attestation) { a.Version = 3 },
		"version 2 that names nothing is refused":    func(a *mesh.Attestation) { a.AllowedCaps = nil },
		"a name of a capability that is two is, too": func(a *mesh.Attestation) { a.AllowedCaps = &[]string{"dm,admin"} },
	} {
		t.Run(name, func(t *testing.T) {
			h := r.limitedFrame(bob, newIdentity(t), []string{mesh.CapDM})
			edit(&h.ParentAttestation)
			c := r.dial()
			c.write(h)
			e := into[wire.Error](c, c.wait(wire.TypeError))
			if code, reason := c.closed(); e.Code != wire.CodeBadSignature && e.Code != wire.CodeMalformed || code != websocket.ClosePolicyViolation || reason != e.Code {
				t.Errorf("%+v, closed %d %s", e, code, reason)
			}
		})
	}
}

// An attestation vouches for a hello. A connection outlives it, with the limits that it came with; another hello with it is refused.
func TestAConnectionOutlivesItsAttestation(t *testing.T) {
	clock, at := fakeClock(time.UnixMilli(1777941200000))
	r := newRig(t, at)
	key := newIdentity(t)
	h := r.limitedFrame(r.owner, key, []string{mesh.CapStateRead})
	c := r.dial()
	c.write(h)
	c.wait(wire.TypeHelloAck)
	clock.Advance(13 * time.Hour)
	if e := c.refusalOf(wire.TypeListState); e.Code != "" {
		t.Errorf("%+v", e)
	}
	if e := c.refusalOf(wire.TypeSetState); e.Code != wire.CodeForbidden {
		t.Errorf("%+v", e)
	}
	again := r.dial()
	again.write(h)
	if e := into[wire.Error](again, again.wait(wire.TypeError)); e.Code != wire.CodeExpired {
		t.Errorf("%+v", e)
	}
	again.closed()
	fresh := r.dial()
	fresh.write(r.limitedFrame(r.owner, key, []string{mesh.CapStateRead}))
	fresh.wait(wire.TypeHelloAck)
}
