package bridge

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"claudemesh/mesh"
	"claudemesh/wire"
)

func identity(t *testing.T) mesh.Identity {
	t.Helper()
	id, err := mesh.NewIdentity(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

type arrival struct {
	from    Source
	push    *wire.Push
	receipt *wire.Receipt
	frame   string
}

// listener is a Handler that shows what came.
type listener struct {
	mail   chan arrival
	states chan struct {
		Source
		State
	}
}

func newListener() *listener {
	return &listener{make(chan arrival, 64), make(chan struct {
		Source
		State
	}, 1024)}
}

func (h *listener) Push(_ context.Context, from Source, batch []wire.Push) ([]wire.ClientAck, error) {
	for _, p := range batch {
		if err := h.push(from, p); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func (h *listener) push(from Source, p wire.Push) error {
	h.mail <- arrival{from: from, push: &p}
	return nil
}

func (h *listener) Receipts(_ context.Context, batch []wire.Receipt) error {
	for _, r := range batch {
		h.mail <- arrival{receipt: &r}
	}
	return nil
}

func (h *listener) Frame(_ context.Context, from Source, kind string, data []byte) {
	h.mail <- arrival{from: from, frame: kind + " " + string(data)}
}

func (h *listener) State(from Source, s State) {
	h.states <- struct {
		Source
		State
	}{from, s}
}

func runMesh(t *testing.T, cfg MeshConfig) (*Mesh, context.CancelFunc, <-chan error) {
	t.Helper()
	m := NewMesh(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended, done := make(chan error, 1), make(chan struct{})
	go func() { defer close(done); ended <- m.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return m, cancel, ended
}

func TestMesh(t *testing.T) {
	config := func(t *testing.T, b *scripted) (MeshConfig, *listener) {
		h := newListener()
		return MeshConfig{
			Slug: "acme", MeshID: "mesh1", MemberID: "member1", BrokerURL: b.url, Member: identity(t), DisplayName: "Ada\n" + strings.Repeat("x", 200),
			Hostname: "host", Cwd: "/w", PID: 42, Backoff: 20 * time.Millisecond, Handler: h,
		}, h
	}

	t.Run("the member's hello proves the member and says what a daemon can do", func(t *testing.T) {
		b := newScripted(t)
		cfg, _ := config(t, b)
		runMesh(t, cfg)
		p := b.next()
		var h wire.Hello
		if head := p.read(&h); head.Type != wire.TypeHello {
			t.Fatal(head)
		}
		if !mesh.VerifySignature(cfg.Member.PublicKey(), mesh.HelloString("mesh1", "member1", h.Pubkey, h.Timestamp), h.Signature) {
			t.Fatal("bad signature")
		}
		if h.SessionPubkey != "" || h.Channel != "claudemesh-daemon" || h.PeerType != "ai" || h.PID != 42 || !strings.HasPrefix(h.DisplayName, "Adaxx") || len(h.DisplayName) > wire.MaxNameBytes {
			t.Fatalf("%+v", h)
		}
		if strings.Join(h.Capabilities, " ") != "client_ack receipts own_multicast own_gating topic_keys changes" {
			t.Fatal(h.Capabilities)
		}
		// The id is the same on the next connection, so that it replaces the old one, and differs in another process.
		p.ws.Close()
		var again wire.Hello
		if b.next().read(&again); again.SessionID != h.SessionID || !strings.HasPrefix(h.SessionID, "daemon-") {
			t.Fatal(h.SessionID, again.SessionID)
		}
		other := newScripted(t)
		cfg.BrokerURL = other.url
		runMesh(t, cfg)
		if other.next().read(&again); again.SessionID == h.SessionID {
			t.Fatal("two daemons share a session id")
		}
	})

	t.Run("a session's hello carries its groups and a fresh attestation each time", func(t *testing.T) {
		b := newScripted(t)
		cfg, _ := config(t, b)
		m := NewMesh(cfg)
		key := identity(t)
		if err := m.AddSession(SessionIdentity{ID: "s1", Name: "worker", Key: key, Cwd: "/p", PID: 7, Role: "dev", Groups: []mesh.Group{{Name: "g"}}}); err != nil {
			t.Fatal(err)
		}
		link, _ := m.Session("s1")
		now := time.Now()
		for range 2 {
			frame, err := link.cfg.Hello(now)
			h, ok := frame.(wire.SessionHello)
			if err != nil || !ok {
				t.Fatal(err)
			}
			if err := h.ParentAttestation.Check(now); err != nil {
				t.Fatal(err)
			}
			if h.ParentAttestation.ExpiresAt != now.Add(12*time.Hour).UnixMilli() || h.ParentMemberID != "member1" || h.SessionID != "s1" || h.Channel != "claudemesh-session" || len(h.Groups) != 1 || h.Role != "dev" || h.PID != 7 || h.Capabilities[0] != wire.CapClientAck {
				t.Fatalf("%+v", h)
			}
			if !mesh.VerifySignature(key.PublicKey(), mesh.SessionHelloString("mesh1", cfg.Member.PublicKey(), key.PublicKey(), h.Timestamp), h.Signature) {
				t.Fatal("bad signature")
			}
			now = now.Add(13 * time.Hour)
		}
	})

	t.Run("what comes is told by its link, and each key sends by its own link", func(t *testing.T) {
		b := newScripted(t)
		cfg, h := config(t, b)
		m, _, _ := runMesh(t, cfg)
		member := b.open()
		key := identity(t)
		if err := m.AddSession(SessionIdentity{ID: "s1", Key: key}); err != nil {
			t.Fatal(err)
		}
		session := b.open()
		session.write(push("1"))
		if a := receive(t, h.mail); a.from != (Source{Session: "s1", Key: key.PublicKey()}) || a.push.ClientMessageID != "1" {
			t.Fatalf("%+v", a)
		}
		member.write(push("2"))
		if a := receive(t, h.mail); a.from != (Source{Key: cfg.Member.PublicKey()}) {
			t.Fatalf("%+v", a)
		}
		member.write(wire.Receipt{Type: wire.TypeReceipt, MailID: "r", State: wire.StateSurfaced})
		if a := receive(t, h.mail); a.receipt == nil || a.receipt.MailID != "r" {
			t.Fatalf("%+v", a)
		}
		sl, _ := m.Session("s1")
		for _, c := range []struct {
			key   string
			link  *Link
			id    mesh.Identity
			exact bool
		}{{key.PublicKey(), sl, key, true}, {cfg.Member.PublicKey(), m.Member(), cfg.Member, true}, {identity(t).PublicKey(), m.Member(), cfg.Member, false}} {
			if l, id, exact := m.LinkFor(c.key); l != c.link || id.PublicKey() != c.id.PublicKey() || exact != c.exact {
				t.Fatalf("%v %v %v", l == c.link, id, exact)
			}
		}
	})

	t.Run("a session is refused twice, removed with its connection, and can come again", func(t *testing.T) {
		b := newScripted(t)
		cfg, _ := config(t, b)
		m, _, _ := runMesh(t, cfg)
		b.open()
		key := identity(t)
		for range 2 {
			if err := m.AddSession(SessionIdentity{ID: "s1", Key: key}); err != nil {
				t.Fatal(err)
			}
			p := b.open()
			for _, id := range []SessionIdentity{{ID: "s1", Key: identity(t)}, {ID: "s2", Key: key}} {
				if err := m.AddSession(id); !errors.Is(err, ErrSessionExists) {
					t.Fatal(err)
				}
			}
			link, _ := m.Session("s1")
			m.RemoveSession("s1")
			if s := link.State(); s.Phase != Closed {
				t.Fatalf("%+v", s)
			}
			p.readEnd()
			if _, ok := m.Session("s1"); ok {
				t.Fatal("still there")
			}
		}
		m.RemoveSession("nobody")
	})

	t.Run("a session that is kicked stays closed and harms no other link", func(t *testing.T) {
		b := newScripted(t)
		cfg, h := config(t, b)
		m, _, _ := runMesh(t, cfg)
		member := b.open()
		if err := m.AddSession(SessionIdentity{ID: "s1", Key: identity(t)}); err != nil {
			t.Fatal(err)
		}
		b.open().close(wire.CloseKicked, "kicked")
		link, _ := m.Session("s1")
		if err := link.WaitOpen(within(t)); err != nil && !errors.Is(err, ErrKicked) {
			t.Fatal(err)
		}
		member.write(push("1"))
		receive(t, h.mail)
		for {
			if s := receive(t, h.states); s.Session == "s1" && s.Phase == Closed {
				if s.Err != ErrKicked.Error() {
					t.Fatalf("%+v", s)
				}
				return
			}
		}
	})

	t.Run("a banned member ends the mesh and all its links", func(t *testing.T) {
		b := newScripted(t)
		cfg, _ := config(t, b)
		m := NewMesh(cfg)
		ended := make(chan error, 1)
		go func() { ended <- m.Run(context.Background()) }()
		member := b.open()
		if err := m.AddSession(SessionIdentity{ID: "s1", Key: identity(t)}); err != nil {
			t.Fatal(err)
		}
		session := b.open()
		member.close(wire.CloseBanned, "banned")
		if err := receive(t, ended); !errors.Is(err, ErrBanned) {
			t.Fatal(err)
		}
		session.readEnd()
		if err := m.AddSession(SessionIdentity{ID: "s2", Key: identity(t)}); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
		m.RemoveSession("s1")
		if err := m.Run(context.Background()); !errors.Is(err, ErrRunning) {
			t.Fatal(err)
		}
	})

	t.Run("a stopped mesh stops its sessions too", func(t *testing.T) {
		b := newScripted(t)
		cfg, _ := config(t, b)
		m, cancel, ended := runMesh(t, cfg)
		b.open()
		if err := m.AddSession(SessionIdentity{ID: "s1", Key: identity(t)}); err != nil {
			t.Fatal(err)
		}
		b.open()
		m.Kick()
		cancel()
		if err := receive(t, ended); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		link, _ := m.Session("s1")
		if s := link.State(); s.Phase != Closed {
			t.Fatalf("%+v", s)
		}
	})
}
