package bridge

import (
	"slices"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/jonboulle/clockwork"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// limitedMesh is a mesh with one limited session, on a broker that the test plays.
func limitedMesh(t *testing.T, edit ...func(*MeshConfig)) (*scripted, *Mesh, SessionIdentity) {
	t.Helper()
	b := newScripted(t)
	cfg := MeshConfig{
		Slug: "acme", MeshID: "mesh1", MemberID: "member1", BrokerURL: b.url, Member: identity(t), DisplayName: "Ada", PID: 42,
		Backoff: 20 * time.Millisecond, Handler: newListener(),
	}
	for _, e := range edit {
		e(&cfg)
	}
	m, _, _ := runMesh(t, cfg)
	id := SessionIdentity{ID: "s1", Name: "bob", Key: identity(t), Role: "reviewer", Caps: []string{mesh.CapStateRead, mesh.CapDM}}
	if err := m.AddSession(id); err != nil {
		t.Fatal(err)
	}
	return b, m, id
}

// nextSession is the next connection, which must be the session's, with its hello.
func (b *scripted) nextSession() (*peer, wire.SessionHello) {
	b.t.Helper()
	p := b.next()
	var h wire.SessionHello
	if head := p.read(&h); head.Type != wire.TypeSessionHello {
		b.t.Fatalf("a %s came, not a session", head.Type)
	}
	return p, h
}

func TestLimitsReachTheBroker(t *testing.T) {
	t.Run("the session waits for the broker's word, and then its attestation names the limits", func(t *testing.T) {
		b, m, id := limitedMesh(t)
		p := b.next() // whatever the session did meanwhile, it made no connection
		if head := p.read(nil); head.Type != wire.TypeHello {
			t.Fatalf("%s came first", head.Type)
		}
		if _, known := m.Limits(); known {
			t.Error("it is known before the broker has said it")
		}
		p.welcome(wire.CapSessionCaps)
		s, h := b.nextSession()
		if a := h.ParentAttestation; a.Check(time.Now()) != nil || a.Version != mesh.AttestationLimited || !slices.Equal(a.Caps(), []string{"dm", "state-read"}) || h.Role != "reviewer" {
			t.Errorf("%+v", h)
		}
		s.welcome(wire.CapSessionCaps)
		link, _ := m.Session(id.ID)
		if err := link.WaitOpen(within(t)); err != nil {
			t.Error(err)
		}
		if limits, known := m.Limits(); !limits || !known {
			t.Error("the broker is not known to limit sessions")
		}
	})
	t.Run("a broker that knows no limits gets the attestation that it knows", func(t *testing.T) {
		b, m, id := limitedMesh(t)
		b.open()
		s, h := b.nextSession()
		if a := h.ParentAttestation; a.Check(time.Now()) != nil || a.AllowedCaps != nil || a.Version != 0 {
			t.Errorf("%+v", a)
		}
		s.welcome()
		link, _ := m.Session(id.ID)
		if err := link.WaitOpen(within(t)); err != nil {
			t.Error(err)
		}
		if limits, known := m.Limits(); limits || !known {
			t.Error("the broker is taken to limit sessions")
		}
	})
	t.Run("a broker that turns out to know limits is told of them at once", func(t *testing.T) {
		b, m, id := limitedMesh(t)
		b.open()
		s, _ := b.nextSession()
		s.welcome(wire.CapSessionCaps) // another broker than the member's link has spoken to
		s.readEnd()
		s, h := b.nextSession()
		if h.ParentAttestation.Version != mesh.AttestationLimited {
			t.Errorf("%+v", h.ParentAttestation)
		}
		s.welcome(wire.CapSessionCaps)
		link, _ := m.Session(id.ID)
		if err := link.WaitOpen(within(t)); err != nil {
			t.Error(err)
		}
	})
	t.Run("a session without limits waits for nothing", func(t *testing.T) {
		b, m, _ := limitedMesh(t)
		if err := m.AddSession(SessionIdentity{ID: "s2", Name: "free", Key: identity(t)}); err != nil {
			t.Fatal(err)
		}
		var kinds []string
		for range 2 {
			kinds = append(kinds, b.next().read(nil).Type)
		}
		if slices.Sort(kinds); !slices.Equal(kinds, []string{wire.TypeHello, wire.TypeSessionHello}) {
			t.Error(kinds)
		}
	})
}

// A member's word for a session lasts 12 hours. A connection that lasts longer goes on, and the next one brings a new word.
func TestASessionOutlivesItsAttestation(t *testing.T) {
	clock := clockwork.NewFakeClockAt(time.UnixMilli(1777941200000))
	b, m, id := limitedMesh(t, func(c *MeshConfig) { c.Clock = clock })
	b.open(wire.CapSessionCaps)
	s, first := b.nextSession()
	s.welcome(wire.CapSessionCaps)
	link, _ := m.Session(id.ID)
	if err := link.WaitOpen(within(t)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		clock.Advance(11 * time.Hour)
		if err := link.Post(within(t), wire.MCPCallResponse{Type: wire.TypeMCPCallResponse, CallID: "c"}); err != nil {
			t.Fatal(err)
		}
		if head := s.read(nil); head.Type != wire.TypeMCPCallResponse {
			t.Fatal(head)
		}
	}
	if first.ParentAttestation.Check(clock.Now()) == nil {
		t.Fatal("the attestation is still good; this test shows nothing")
	}
	s.close(websocket.CloseGoingAway, "restart")
	m.Kick()
	s, again := b.nextSession()
	a := again.ParentAttestation
	if err := a.Check(clock.Now()); err != nil || a.ExpiresAt != clock.Now().Add(attestationLife).UnixMilli() || again.SessionPubkey != first.SessionPubkey {
		t.Errorf("%v: %+v", err, again)
	}
	s.welcome(wire.CapSessionCaps)
	if err := link.WaitOpen(within(t)); err != nil {
		t.Error(err)
	}
}
