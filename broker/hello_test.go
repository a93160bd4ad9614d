package broker

import (
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"claudemesh/mesh"
	"claudemesh/wire"
)

func TestRefusedHellos(t *testing.T) {
	r := newRig(t)
	bob, gone := r.addMember("bob"), r.addMember("gone")
	if err := r.broker.RevokeMember(t.Context(), r.mesh.ID, gone.PublicKey()); err != nil {
		t.Fatal(err)
	}
	stranger, key := newIdentity(t), newIdentity(t)
	proven := newIdentity(t)
	r.session(bob, proven).close()
	resign := func(h wire.Hello, who mesh.Identity) wire.Hello {
		h.Signature = who.Sign(mesh.HelloString(h.MeshID, h.MemberID, h.Pubkey, h.Timestamp))
		return h
	}
	hello := func(fn func(*wire.Hello)) wire.Hello { h := r.helloFrame(bob); fn(&h); return h }
	session := func(fn func(*wire.SessionHello)) wire.SessionHello { h := r.sessionFrame(bob, key); fn(&h); return h }
	attest := func(h *wire.SessionHello, until time.Duration) {
		h.ParentAttestation = mesh.Attest(bob, key.PublicKey(), r.now().Add(until))
	}
	for _, tc := range []struct {
		name, code, message string
		frame               any
	}{
		{"a session key that is none", "bad_session_pubkey", "sessionPubkey must be 64 lowercase hex chars", hello(func(h *wire.Hello) { h.SessionPubkey = "XYZ" })},
		{"a clock 61 s behind", "timestamp_skew", "hello rejected: timestamp_skew", wire.SignHello(r.helloFrame(bob), bob, r.now().Add(-61*time.Second))},
		{"a clock 62 s ahead", "timestamp_skew", "hello rejected: timestamp_skew", wire.SignHello(r.helloFrame(bob), bob, r.now().Add(62*time.Second))},
		{"a timestamp at the end of numbers", "timestamp_skew", "hello rejected: timestamp_skew", hello(func(h *wire.Hello) { h.Timestamp = -1 << 63 })},
		{"a short signature", "malformed", "hello rejected: malformed", hello(func(h *wire.Hello) { h.Signature = "abcd" })},
		{"a short key", "malformed", "hello rejected: malformed", hello(func(h *wire.Hello) { h.Pubkey = "abcd" })},
		{"a wrong signature", "bad_signature", "hello rejected: bad_signature", hello(func(h *wire.Hello) { h.Signature = strings.Repeat("0", 128) })},
		{"somebody else's signature", "bad_signature", "hello rejected: bad_signature", resign(r.helloFrame(bob), stranger)},
		{"a key that is no member", "unauthorized", "pubkey not found in mesh", wire.SignHello(r.helloFrame(stranger), stranger, r.now())},
		{"an unknown mesh", "unauthorized", "pubkey not found in mesh", wire.SignHello(hello(func(h *wire.Hello) { h.MeshID = "nope" }), bob, r.now())},
		{"the session key of another member", "bad_session_pubkey", "sessionPubkey belongs to another peer", r.helloFrame(r.owner, func(h *wire.Hello) { h.SessionPubkey = proven.PublicKey() })},
		{"the member key of another member as session key", "bad_session_pubkey", "sessionPubkey belongs to another peer", r.helloFrame(r.owner, func(h *wire.Hello) { h.SessionPubkey = bob.PublicKey() })},
		{"the id of another member", "unauthorized", "memberId is not that of pubkey", r.helloFrame(bob, func(h *wire.Hello) { h.MemberID = r.memberID(r.owner) })},
		{"no session id", "invalid", "hello rejected: invalid: invalid frame: sessionId missing", hello(func(h *wire.Hello) { h.SessionID = "" })},

		{"a session_hello with a bad session key", "bad_session_pubkey", "sessionPubkey must be 64 lowercase hex chars", session(func(h *wire.SessionHello) { h.SessionPubkey = "" })},
		{"with a bad parent key", "bad_parent_pubkey", "parentMemberPubkey must be 64 lowercase hex chars", session(func(h *wire.SessionHello) { h.ParentMemberPubkey = strings.ToUpper(h.ParentMemberPubkey) })},
		{"with an attestation for another session", "attestation_mismatch", "parentAttestation does not bind the claimed session+parent pubkeys", session(func(h *wire.SessionHello) {
			h.ParentAttestation = mesh.Attest(bob, stranger.PublicKey(), r.now().Add(time.Hour))
		})},
		{"without attestation", "attestation_mismatch", "parentAttestation does not bind the claimed session+parent pubkeys", session(func(h *wire.SessionHello) { h.ParentAttestation = mesh.Attestation{} })},
		{"with an expired attestation", "expired", "attestation rejected: expired", session(func(h *wire.SessionHello) { attest(h, -time.Second) })},
		{"with one that lives too long", "ttl_too_long", "attestation rejected: ttl_too_long", session(func(h *wire.SessionHello) { attest(h, 25*time.Hour) })},
		{"with one whose signature has no shape", "malformed", "attestation rejected: malformed", session(func(h *wire.SessionHello) { h.ParentAttestation.Signature = "00" })},
		{"with one that is not signed by the parent", "bad_signature", "attestation rejected: bad_signature", session(func(h *wire.SessionHello) { h.ParentAttestation.Signature = strings.Repeat("0", 128) })},
		{"with an old clock", "timestamp_skew", "session_hello rejected: timestamp_skew", session(func(h *wire.SessionHello) { h.Timestamp -= 61_000 })},
		{"with a short session signature", "malformed", "session_hello rejected: malformed", session(func(h *wire.SessionHello) { h.Signature = "" })},
		{"with a wrong session signature", "bad_signature", "session_hello rejected: bad_signature", session(func(h *wire.SessionHello) { h.Signature = strings.Repeat("0", 128) })},
		{"of a parent that is no member", "unauthorized", "parent pubkey not found in mesh", r.sessionFrame(stranger, key)},
		{"with another member's id", "parent_member_id_mismatch", "parentMemberId does not match parentMemberPubkey", r.sessionFrame(bob, key, func(h *wire.SessionHello) { h.ParentMemberID = r.memberID(r.owner) })},
		{"with a session key that another member proved", "bad_session_pubkey", "sessionPubkey belongs to another peer", r.sessionFrame(r.owner, proven)},
		{"with a member key as session key", "bad_session_pubkey", "sessionPubkey belongs to another peer", r.sessionFrame(bob, r.owner)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := r.dial()
			c.write(tc.frame)
			e := into[wire.Error](c, c.wait(wire.TypeError))
			if e.Code != tc.code || e.Message != tc.message || e.ReqID != "" {
				t.Errorf("%+v", e)
			}
			if code, reason := c.closed(); code != websocket.ClosePolicyViolation || reason != tc.code {
				t.Errorf("closed with %d %q", code, reason)
			}
		})
	}
	t.Run("a removed member is banned, in both hellos", func(t *testing.T) {
		for _, f := range []any{r.helloFrame(gone), r.sessionFrame(gone, key)} {
			c := r.dial()
			c.write(f)
			if e := into[wire.Error](c, c.wait(wire.TypeError)); e.Code != "revoked" || e.Message != `You've been removed from "Test mesh". Contact the mesh owner to rejoin.` {
				t.Errorf("%+v", e)
			}
			if code, reason := c.closed(); code != wire.CloseBanned || reason != "banned" {
				t.Errorf("closed with %d %q", code, reason)
			}
		}
	})
	t.Run("nothing after a refused hello is looked at", func(t *testing.T) {
		claimed := newIdentity(t)
		for range 50 { // the second frame must be handled before the first one's answer is out
			c := r.dial()
			c.write(r.sessionFrame(stranger, key))
			h := r.helloFrame(bob, func(h *wire.Hello) { h.SessionPubkey = claimed.PublicKey() })
			_ = c.ws.WriteMessage(websocket.TextMessage, mustJSON(t, h)) // may find the socket closed already
			if code, _ := c.closed(); code != websocket.ClosePolicyViolation {
				t.Errorf("closed with %d", code)
			}
		}
		r.broker.mu.RLock()
		defer r.broker.mu.RUnlock()
		if s := r.broker.meshes[r.mesh.ID].sessions[claimed.PublicKey()]; s != nil {
			t.Errorf("registered: %+v", s)
		}
	})
}

func TestAConnectionThatSaysNothingIsClosed(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Limits.HelloDeadline = 50 * time.Millisecond })
	if code, reason := r.dial().closed(); code != websocket.ClosePolicyViolation || reason != "hello_timeout" {
		t.Errorf("closed with %d %q", code, reason)
	}
	c := r.dial()
	c.write(map[string]any{"type": "list_peers"})
	if code, _ := c.closed(); code != websocket.ClosePolicyViolation {
		t.Errorf("closed with %d", code)
	}
}

func TestCapacity(t *testing.T) {
	clock, stopped := fakeClock(time.Now())
	r := newRig(t, stopped, func(c *Config) { c.Limits.ConnsPerMesh, c.Limits.Unauthenticated = 2, 2 })
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	var silent []*client
	t.Run("a full mesh refuses", func(t *testing.T) {
		c := r.dial()
		c.write(r.helloFrame(bob, withSession("third")))
		if e := into[wire.Error](c, c.wait(wire.TypeError)); e.Code != "capacity" || e.Message != "mesh at connection capacity" {
			t.Errorf("%+v", e)
		}
		if code, reason := c.closed(); code != websocket.ClosePolicyViolation || reason != "capacity" {
			t.Errorf("closed with %d %q", code, reason)
		}
	})
	t.Run("but lets a connection take its own place", func(t *testing.T) {
		b2 := r.member(bob)
		if code, reason := b.closed(); code != websocket.CloseNormalClosure || reason != reasonReplaced {
			t.Errorf("closed with %d %q", code, reason)
		}
		b = b2
	})
	t.Run("a place is free again after every kind of end", func(t *testing.T) {
		for range 10 {
			b.close()
			a.event(wire.EventPeerLeft)
			b = r.member(bob)
		}
	})
	t.Run("more sockets than allowed are turned away before the upgrade", func(t *testing.T) {
		silent = []*client{r.dial(), r.dial()}
		_, res, err := websocket.DefaultDialer.Dial(r.wsURL(), nil)
		if err == nil || res == nil || res.StatusCode != 503 {
			t.Errorf("%v %v", res, err)
		}
	})
	t.Run("unless one of those there has been silent for a while: it makes room", func(t *testing.T) {
		r.until("both to be counted", func() bool {
			r.broker.mu.RLock()
			defer r.broker.mu.RUnlock()
			return len(r.broker.silent) == 2
		})
		clock.Advance(graceful)
		a2 := r.member(r.owner) // takes its own place
		if code, reason := silent[0].closed(); code != websocket.ClosePolicyViolation || reason != "hello_timeout" {
			t.Errorf("closed with %d %q", code, reason)
		}
		a2.settle()
		silent[1].write(r.helloFrame(bob)) // the other one still can
		silent[1].wait(wire.TypeHelloAck)
	})
}

func TestWhoReplacesWhom(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	a := r.member(r.owner)
	key := newIdentity(t)

	t.Run("the same session id of another member evicts nobody", func(t *testing.T) {
		b := r.member(bob, withSession("daemon-77"))
		other := r.member(r.owner, withSession("daemon-77"))
		b.settle()
		other.settle()
		b.close()
		other.close()
	})
	t.Run("a session's new connection takes over silently, keeping its presence", func(t *testing.T) {
		s1 := r.dial()
		s1.write(r.sessionFrame(bob, key))
		ack1 := into[wire.HelloAck](s1, s1.wait(wire.TypeHelloAck))
		s1.call(wire.TypeSetSummary, map[string]any{"summary": "busy"})
		a.eventOf(wire.EventPeerJoined, key.PublicKey())
		s2 := r.dial()
		s2.write(r.sessionFrame(bob, key))
		ack2 := into[wire.HelloAck](s2, s2.wait(wire.TypeHelloAck))
		if code, reason := s1.closed(); code != websocket.CloseNormalClosure || reason != reasonReplaced {
			t.Errorf("closed with %d %q", code, reason)
		}
		if ack1.PresenceID != ack2.PresenceID {
			t.Error("another presence")
		}
		peers := into[wire.PeersList](s2, s2.call(wire.TypeListPeers, nil)).Peers
		if p := peers[len(peers)-1]; p.Summary == nil || *p.Summary != "busy" || p.Pubkey != key.PublicKey() || p.PeerRole != wire.RoleSession {
			t.Errorf("%+v", p)
		}
		a.settle()
		for _, data := range a.held {
			if strings.Contains(string(data), key.PublicKey()) {
				t.Errorf("told: %s", data)
			}
		}
		a.mustSend(sendFrame("k1", key.PublicKey(), "x"))
		s2.clientAck(s2.message(), "")
		s2.close()
		a.eventOf(wire.EventPeerLeft, key.PublicKey())
	})
	t.Run("a member's own hello does not evict its session with the same session id", func(t *testing.T) {
		s := r.session(bob, key, func(h *wire.SessionHello) { h.SessionID = "shared" })
		b := r.member(bob, withSession("shared"))
		s.settle()
		b.close()
		s.close()
	})
	t.Run("a replaced connection with another key has left", func(t *testing.T) {
		k1, k2 := newIdentity(t), newIdentity(t)
		r.member(bob, func(h *wire.Hello) { h.SessionPubkey = k1.PublicKey() })
		r.member(bob, func(h *wire.Hello) { h.SessionPubkey = k2.PublicKey() })
		a.eventOf(wire.EventPeerLeft, k1.PublicKey())
	})
	t.Run("who proves a key evicts who only claimed it, and a claim is kept against other claims", func(t *testing.T) {
		k := newIdentity(t)
		claim := r.member(r.owner, withSession("claim"), func(h *wire.Hello) { h.SessionPubkey = k.PublicKey() })
		c := r.dial()
		c.write(r.helloFrame(bob, func(h *wire.Hello) { h.SessionPubkey = k.PublicKey() }))
		if e := into[wire.Error](c, c.wait(wire.TypeError)); e.Code != wire.CodeBadSessionPubkey {
			t.Errorf("%+v", e)
		}
		s := r.session(bob, k)
		if code, reason := claim.closed(); code != websocket.ClosePolicyViolation || reason != wire.CodeBadSessionPubkey {
			t.Errorf("closed with %d %q", code, reason)
		}
		s.settle()
	})
	t.Run("mail for a claimed key is taken only while it is claimed", func(t *testing.T) {
		k := newIdentity(t)
		b := r.member(bob, withSession("x"), func(h *wire.Hello) { h.SessionPubkey = k.PublicKey() })
		a.mustSend(sendFrame("claimed", k.PublicKey(), "x"))
		b.clientAck(b.message(), "")
		b.close()
		a.eventOf(wire.EventPeerLeft, k.PublicKey())
		if ack := a.send(sendFrame("unclaimed", k.PublicKey(), "x")); ack.Code != wire.AckNoPeer {
			t.Errorf("%+v", ack)
		}
	})
}

func TestWhatAMemberFindsAgain(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	a := r.member(r.owner)
	b := r.member(bob)
	if p := a.event(wire.EventPeerJoined); !strings.Contains(string(p.EventData), `"groups":[]`) || p.SenderPubkey != "system" {
		t.Errorf("%+v", p)
	}
	b.call(wire.TypeJoinGroup, map[string]any{"name": "dev", "role": "lead"})
	b.call(wire.TypeSetSummary, map[string]any{"summary": "refactoring"})
	b.call("set_stats", map[string]any{"stats": map[string]any{"messagesIn": 3}})
	b.close()
	a.event(wire.EventPeerLeft)
	r.restart()
	a = r.member(r.owner, withSession("a2"))
	c := r.dial()
	c.write(r.helloFrame(bob))
	ack := into[wire.HelloAck](c, c.wait(wire.TypeHelloAck))
	if !ack.Restored || ack.LastSummary != "refactoring" || ack.LastSeenAt == "" || len(ack.RestoredGroups) != 1 || ack.RestoredGroups[0].Role != "lead" ||
		ack.RestoredStats == nil || ack.RestoredStats.MessagesIn != 3 {
		t.Errorf("%+v", ack)
	}
	if p := a.event(wire.EventPeerReturned); !strings.Contains(string(p.EventData), "refactoring") || !strings.Contains(string(p.EventData), "lastSeenAt") {
		t.Errorf("%s", p.EventData)
	}
}

func TestRemovingAMemberCutsItsConnections(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	b, s := r.member(bob), r.session(bob, newIdentity(t))
	if err := r.broker.RevokeMember(t.Context(), r.mesh.ID, bob.PublicKey()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*client{b, s} {
		if code, reason := c.closed(); code != wire.CloseBanned || reason != "banned" {
			t.Errorf("closed with %d %q", code, reason)
		}
	}
	a := r.member(r.owner)
	a.mustSend(sendFrame("all", "*", "x"))
	r.mailIn(r.mailboxOf(bob), 0)
}
