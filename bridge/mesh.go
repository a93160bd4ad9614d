package bridge

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jonboulle/clockwork"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// MeshConfig describes one member's links to the broker of one mesh. All but Dial, TLS, Backoff, Clock, Rand and Log is required.
type MeshConfig struct {
	Slug, MeshID, MemberID, BrokerURL string
	Member                            mesh.Identity
	// DisplayName, Hostname and Cwd are cut to the protocol's limits.
	DisplayName, Hostname, Cwd string
	PID                        int
	Dial                       func(ctx context.Context, network, addr string) (net.Conn, error)
	TLS                        func() (*tls.Config, error) // as in LinkConfig
	Backoff                    time.Duration               // as in LinkConfig
	Clock                      clockwork.Clock
	Rand                       io.Reader
	Log                        *slog.Logger
	Handler                    Handler
}

// Handler receives what the links of a mesh bring in. The rules of LinkConfig.OnPush, OnReceipt, OnState and OnFrame hold for each link; different links call it
// at the same time.
type Handler interface {
	Push(ctx context.Context, from Source, batch []wire.Push) (acks []wire.ClientAck, err error)
	Receipts(ctx context.Context, batch []wire.Receipt) error
	State(from Source, s State)
	Frame(ctx context.Context, from Source, kind string, data []byte)
}

// Source says which link something came by.
type Source struct {
	Session string // the session's id; empty: the member's link
	Key     string // the public key of that link, 64 hex
}

// Mesh is the member's link and the links of its sessions. Its methods may be called from anywhere, before and while it runs.
type Mesh struct {
	cfg    MeshConfig
	member *Link

	mu        sync.Mutex
	ctx       context.Context // while Run runs
	ended     bool
	sessions  map[string]*sessionLink
	abilities abilities
	started   atomic.Bool
	tasks     sync.WaitGroup // the links of sessions
}

// NewMesh returns a mesh whose links are closed until Run.
func NewMesh(cfg MeshConfig) *Mesh {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	m := &Mesh{cfg: cfg, sessions: map[string]*sessionLink{}}
	if cfg.Rand != nil {
		m.cfg.Rand = &lockedReader{r: cfg.Rand} // one source, several links
	}
	m.member = m.link(Source{Key: cfg.Member.PublicKey()}, cfg.Log, nil)
	// Random, not the pid: the broker keeps one connection per session id, and two hosts may well have equal pids.
	id := fmt.Sprintf("daemon-%016x", m.member.rand.uint64())
	m.member.cfg.Hello = func(now time.Time) (any, error) { return m.memberHello(id, now) }
	m.member.cfg.OnWelcome = func(capabilities []string) error { m.learn(capabilities); return nil }
	return m
}

func (m *Mesh) link(from Source, log *slog.Logger, hello func(time.Time) (any, error)) *Link {
	return NewLink(LinkConfig{
		URL: m.cfg.BrokerURL, Hello: hello, Dial: m.cfg.Dial, TLS: m.cfg.TLS, Backoff: m.cfg.Backoff, Clock: m.cfg.Clock, Rand: m.cfg.Rand, Log: log,
		OnPush: func(ctx context.Context, batch []wire.Push) ([]wire.ClientAck, error) {
			return m.cfg.Handler.Push(ctx, from, batch)
		},
		OnReceipt: m.cfg.Handler.Receipts,
		OnFrame:   func(ctx context.Context, kind string, data []byte) { m.cfg.Handler.Frame(ctx, from, kind, data) },
		OnState:   func(s State) { m.cfg.Handler.State(from, s) },
	})
}

// Member is the member's link.
func (m *Mesh) Member() *Link { return m.member }

// Session is the link of a session, if it has one.
func (m *Mesh) Session(id string) (*Link, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.sessions[id]
	if !ok {
		return nil, false
	}
	return s.link, true
}

// LinkFor returns the link and the identity that send for a sender key. When the key has no link here, they are the member's, and the last result is false:
// what was sealed under that key must be sealed again.
func (m *Mesh) LinkFor(senderKey string) (*Link, mesh.Identity, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sessions {
		if s.Key.PublicKey() == senderKey {
			return s.link, s.Key, true
		}
	}
	return m.member, m.cfg.Member, senderKey == m.cfg.Member.PublicKey()
}

// Kick ends the pauses of all links.
func (m *Mesh) Kick() {
	m.member.Kick()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sessions {
		s.link.Kick()
	}
}

// Run serves all links until ctx ends (it returns ctx's error) or the member is refused for good (ErrKicked, ErrBanned,
// ErrMeshDeleted, ErrLeft). A session's link that is refused
// for good stays closed, with the reason in its state, until the session is removed. When Run returns, every link has stopped. It may be called once.
func (m *Mesh) Run(ctx context.Context) error {
	if !m.started.CompareAndSwap(false, true) {
		return ErrRunning
	}
	ctx, stop := context.WithCancel(ctx)
	m.mu.Lock()
	m.ctx = ctx
	for _, s := range m.sessions {
		s.start(ctx, &m.tasks)
	}
	m.mu.Unlock()

	err := m.member.Run(ctx)

	m.mu.Lock()
	m.ended = true
	m.mu.Unlock()
	stop()
	m.tasks.Wait()
	return err
}
