package conformance

import (
	"crypto/rand"
	"slices"
	"strings"
	"time"

	"claudemesh/mesh"
	"claudemesh/wire"
)

func newKey() mesh.Identity {
	id, err := mesh.NewIdentity(rand.Reader)
	if err != nil {
		panic(stop{differs("no randomness: %v", err)})
	}
	return id
}

// turnedAway says a hello that must be refused: an error frame with that code, then a close whose reason is the code.
func (p *play) turnedAway(h any, code string, closeCode int) {
	s := p.dialExtra()
	s.write(h)
	e := s.take(func(f fields) bool { return f["type"] == wire.TypeError })
	if e == nil {
		panic(stop{differs("no error frame")})
	}
	need(e, fields{"code": code, "message": nil})
	got, reason, ended := s.closed()
	if !ended || got != closeCode || reason != code && closeCode == 1008 {
		panic(stop{differs("closed with %d %q, ended %v", got, reason, ended)})
	}
}

func (p *play) sessionHello(who peer, key mesh.Identity, id string) wire.SessionHello {
	return wire.SignSessionHello(wire.SessionHello{
		MeshID: p.meshID, ParentMemberID: who.memberID, DisplayName: who.name, SessionID: id, PID: 2, Cwd: "/check", PeerType: "ai", Channel: "claudemesh-session",
	}, who.who, key, time.Now(), time.Hour)
}

func (p *play) session(who peer, key mesh.Identity, id string) *socket {
	s := p.dialExtra()
	s.write(p.sessionHello(who, key, id))
	if s.take(func(f fields) bool { return f["type"] == wire.TypeHelloAck }) == nil {
		panic(stop{differs("no hello_ack to session_hello")})
	}
	return s
}

func helloChecks() []check {
	return []check{
		{wire.TypeHello, "a signed hello is acknowledged with presence, name, profile and services", func(p *play) finding {
			s := p.dialExtra()
			h := p.hello(p.bob)
			h.SessionID = p.name("second")
			s.write(wire.SignHello(h, p.bob.who, time.Now()))
			ack := s.take(func(f fields) bool { return f["type"] == wire.TypeHelloAck })
			if ack == nil {
				return differs("no hello_ack")
			}
			need(ack, fields{"presenceId": nil, "memberDisplayName": p.bob.name, "memberProfile": nil, "services": nil})
			need(fields(ack["memberProfile"].(map[string]any)), fields{"roleTag": nil, "groups": nil, "messageMode": nil})
			return same()
		}},
		{wire.TypeHello, "any other frame before hello is refused with no_hello, and the socket stays", func(p *play) finding {
			s := p.dialExtra()
			s.write(fields{"type": wire.TypeListPeers})
			e := s.take(func(f fields) bool { return f["type"] == wire.TypeError })
			need(e, fields{"code": wire.CodeNoHello, "message": "must send hello first"})
			s.write(wire.SignHello(p.hello(p.bob), p.bob.who, time.Now()))
			if s.take(func(f fields) bool { return f["type"] == wire.TypeHelloAck }) == nil {
				return differs("no hello_ack afterwards")
			}
			return same()
		}},
		{wire.TypeHello, "a wrong signature is refused", func(p *play) finding {
			h := wire.SignHello(p.hello(p.bob), p.bob.who, time.Now())
			h.MemberID += "x"
			p.turnedAway(h, wire.CodeBadSignature, 1008)
			return same()
		}},
		{wire.TypeHello, "a timestamp two minutes off is refused", func(p *play) finding {
			p.turnedAway(wire.SignHello(p.hello(p.bob), p.bob.who, time.Now().Add(-2*time.Minute)), wire.CodeTimestampSkew, 1008)
			return same()
		}},
		{wire.TypeHello, "a key that is no member is refused", func(p *play) finding {
			p.turnedAway(wire.SignHello(p.hello(p.bob), newKey(), time.Now()), wire.CodeUnauthorized, 1008)
			return same()
		}},
		{wire.TypeHello, "a session key of another shape is refused", func(p *play) finding {
			h := p.hello(p.bob)
			h.SessionPubkey = strings.Repeat("Z", 64)
			p.turnedAway(wire.SignHello(h, p.bob.who, time.Now()), wire.CodeBadSessionPubkey, 1008)
			return same()
		}},
		{wire.TypeHello, "a member does not evict another by using its session id", func(p *play) finding {
			h := p.hello(p.bob)
			h.SessionID = p.name(p.alice.name)
			s := p.dialExtra()
			s.write(wire.SignHello(h, p.bob.who, time.Now()))
			s.take(func(f fields) bool { return f["type"] == wire.TypeHelloAck })
			if _, reason, ended := p.a.closed(); ended {
				return defective(23, "closed: %s", reason)
			}
			return corrected(23)
		}},
		{wire.TypeHello, "a second hello on one socket is refused", func(p *play) finding {
			p.b.write(wire.SignHello(p.hello(p.bob), p.bob.who, time.Now()))
			f := p.b.take(func(f fields) bool { return f["type"] == wire.TypeError || f["type"] == wire.TypeHelloAck })
			if f == nil || f["type"] == wire.TypeHelloAck {
				return defective(26, "it is taken")
			}
			return corrected(26)
		}},
		{wire.TypeSessionHello, "a session with an attestation is acknowledged, and listed under its own key", func(p *play) finding {
			key := newKey()
			p.session(p.bob, key, p.name("session"))
			list := p.a.must(wire.TypeListPeers, nil, wire.TypePeersList)
			r := row(rows(list, "peers"), "pubkey", key.PublicKey())
			if r == nil {
				return differs("not listed")
			}
			need(r, fields{"memberPubkey": p.bob.who.PublicKey(), "sessionId": p.name("session"), "displayName": p.bob.name})
			return same()
		}},
		{wire.TypeSessionHello, "an attestation for another key is refused", func(p *play) finding {
			h := p.sessionHello(p.bob, newKey(), p.name("session"))
			h.ParentAttestation.SessionPubkey = newKey().PublicKey()
			p.turnedAway(h, wire.CodeAttestationMismatch, 1008)
			return same()
		}},
		{wire.TypeSessionHello, "an attestation that is over is refused", func(p *play) finding {
			key := newKey()
			h := p.sessionHello(p.bob, key, p.name("session"))
			h.ParentAttestation = mesh.Attest(p.bob.who, key.PublicKey(), time.Now().Add(-time.Minute))
			p.turnedAway(h, wire.CodeExpired, 1008)
			return same()
		}},
		{wire.TypeSessionHello, "a session that does not hold its key is refused", func(p *play) finding {
			h := p.sessionHello(p.bob, newKey(), p.name("session"))
			h.Signature = wire.SignSessionHello(h, p.bob.who, newKey(), time.Now(), time.Hour).Signature
			p.turnedAway(h, wire.CodeBadSignature, 1008)
			return same()
		}},
		{wire.TypeSessionHello, "the role that a session tells is shown to its peers", func(p *play) finding {
			key := newKey()
			h := p.sessionHello(p.bob, key, p.name("session"))
			h.Role = "reviewer"
			s := p.dialExtra()
			s.write(h)
			if s.take(func(f fields) bool { return f["type"] == wire.TypeHelloAck }) == nil {
				return differs("no hello_ack to session_hello")
			}
			if p.a.peer(key.PublicKey())["role"] != "reviewer" {
				return defective(35, "it is not")
			}
			return corrected(35)
		}},
		{wire.TypeSessionHello, "a session is held to the capabilities in its attestation, or its attestation is refused", func(p *play) finding {
			key := newKey()
			h := p.sessionHello(p.bob, key, p.name("session"))
			s := p.dialExtra()
			s.write(wire.SignLimitedSessionHello(h, p.bob.who, key, time.Now(), time.Hour, []string{mesh.CapStateRead, "fly"}))
			f := s.take(func(f fields) bool { return f["type"] == wire.TypeHelloAck || f["type"] == wire.TypeError })
			announced, _ := f["capabilities"].([]any)
			switch {
			case f == nil:
				return differs("no answer to session_hello")
			case f["type"] == wire.TypeError && f["code"] == wire.CodeBadSignature: // the reference knows version 1 only
				return same()
			case f["type"] == wire.TypeError || !slices.Contains(announced, any(wire.CapSessionCaps)):
				return differs("%s", show(f))
			}
			s.must(wire.TypeListState, nil, wire.TypeStateList)
			no := s.ask(wire.TypeSetState, fields{"key": p.name("limited"), "value": 1})
			need(no.frame, fields{"type": wire.TypeError, "code": wire.CodeForbidden})
			if text, _ := no.frame["message"].(string); !strings.Contains(text, mesh.CapStateWrite) {
				return differs("what it lacks is not named: %q", text)
			}
			caps, _ := p.a.peer(key.PublicKey())["allowed_caps"].([]any)
			if !slices.Equal(caps, []any{"fly", mesh.CapStateRead}) {
				return differs("its limits are shown as %v", caps)
			}
			return same()
		}},
		{wire.TypeSessionHello, "nobody claims a session key that another member has proven", func(p *play) finding {
			key := newKey()
			p.session(p.bob, key, p.name("session"))
			h := p.hello(p.carol)
			h.SessionID, h.SessionPubkey = p.name("thief"), key.PublicKey()
			s := p.dialExtra()
			s.write(wire.SignHello(h, p.carol.who, time.Now()))
			f := s.take(func(f fields) bool { return f["type"] == wire.TypeHelloAck || f["type"] == wire.TypeError })
			if f == nil || f["type"] == wire.TypeHelloAck {
				return defective(51, "the claim is taken")
			}
			return corrected(51)
		}},
	}
}
