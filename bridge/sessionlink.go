package bridge

import (
	"context"
	"sync"
	"time"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// SessionIdentity is one session as the broker sees it. Name, Cwd and Role are cut to the protocol's limits.
type SessionIdentity struct {
	ID, Name string
	Key      mesh.Identity
	Cwd      string
	PID      int
	Role     string
	Groups   []mesh.Group
	Caps     []string // what it may do; nil: whatever the member may. The broker is told if it knows limits, see Limits
}

// sessionLink is a session and the goroutine of its link.
type sessionLink struct {
	SessionIdentity
	link *Link

	// Guarded by the mesh's mutex, as starting and stopping are.
	cancel context.CancelFunc // nil: not started
	done   chan struct{}
	signed bool // the last hello named the limits
}

// AddSession opens a link for a session, now or when Run starts. Errors: ErrSessionExists for an id or key that has a link, ErrClosed after Run.
func (m *Mesh) AddSession(id SessionIdentity) error {
	s := &sessionLink{SessionIdentity: id, done: make(chan struct{})}
	s.link = m.link(Source{Session: id.ID, Key: id.Key.PublicKey()}, m.cfg.Log.With("session", id.ID), func(now time.Time) (any, error) {
		m.mu.Lock()
		id, abilities := s.SessionIdentity, m.abilities // its groups may have changed
		limit := id.Caps != nil && abilities.known && abilities.sessionCaps
		s.signed = limit
		m.mu.Unlock()
		if id.Caps != nil && !abilities.known {
			return nil, errUnknownAbilities
		}
		return m.sessionHello(id, limit, now)
	})
	s.link.cfg.OnWelcome = func(capabilities []string) error {
		m.learn(capabilities)
		m.mu.Lock()
		defer m.mu.Unlock()
		if s.Caps != nil && !s.signed && m.abilities.sessionCaps {
			return errNotLimited
		}
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return ErrClosed
	}
	for _, other := range m.sessions {
		if other.ID == id.ID || other.Key.PublicKey() == id.Key.PublicKey() {
			return ErrSessionExists
		}
	}
	m.sessions[id.ID] = s
	if m.ctx != nil {
		s.start(m.ctx, &m.tasks)
	}
	return nil
}

// SetGroups changes the groups that a session's next hello names. An unknown id is not an error.
func (m *Mesh) SetGroups(id string, groups []mesh.Group) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.sessions[id]; s != nil {
		s.Groups = groups
	}
}

// RemoveSession closes a session's link and returns when it has stopped. An unknown id is not an error. It must not be called from a handler of that link.
func (m *Mesh) RemoveSession(id string) {
	m.mu.Lock()
	s := m.sessions[id]
	delete(m.sessions, id)
	running := s != nil && s.cancel != nil
	m.mu.Unlock()
	if running {
		s.cancel()
		<-s.done
	}
}

func (s *sessionLink) start(ctx context.Context, tasks *sync.WaitGroup) {
	ctx, s.cancel = context.WithCancel(ctx)
	tasks.Go(func() {
		defer close(s.done)
		defer s.cancel()
		_ = s.link.Run(ctx) // its end is in the link's state, and told to the handler
	})
}

// attestationLife is how long the member vouches for a session's key. It is renewed with every connection; an open connection outlives it.
const attestationLife = 12 * time.Hour

func (m *Mesh) memberHello(sessionID string, now time.Time) (any, error) {
	h := wire.SignHello(wire.Hello{
		Capabilities: []string{wire.CapClientAck, wire.CapReceipts, wire.CapOwnMulticast, wire.CapOwnGating, wire.CapTopicKeys, wire.CapChanges},
		MeshID:       m.cfg.MeshID, MemberID: m.cfg.MemberID, SessionID: sessionID,
		DisplayName: clean(m.cfg.DisplayName, wire.MaxNameBytes), PID: int64(m.cfg.PID), Cwd: clean(m.cfg.Cwd, wire.MaxTextBytes),
		Hostname: clean(m.cfg.Hostname, wire.MaxTextBytes), PeerType: peerType, Channel: "claudemesh-daemon",
	}, m.cfg.Member, now)
	return h, h.Validate()
}

// sessionHello is a session's hello; with limit, its attestation names what the session may do.
func (m *Mesh) sessionHello(s SessionIdentity, limit bool, now time.Time) (any, error) {
	h := wire.SessionHello{
		Capabilities: []string{wire.CapClientAck, wire.CapOwnGating},
		MeshID:       m.cfg.MeshID, ParentMemberID: m.cfg.MemberID, SessionID: s.ID,
		DisplayName: clean(s.Name, wire.MaxNameBytes), PID: int64(s.PID), Cwd: clean(s.Cwd, wire.MaxTextBytes),
		Hostname: clean(m.cfg.Hostname, wire.MaxTextBytes), PeerType: peerType, Channel: "claudemesh-session",
		Groups: s.Groups, Role: clean(s.Role, wire.MaxNameBytes),
	}
	if limit {
		h = wire.SignLimitedSessionHello(h, m.cfg.Member, s.Key, now, attestationLife, s.Caps)
	} else {
		h = wire.SignSessionHello(h, m.cfg.Member, s.Key, now, attestationLife)
	}
	return h, h.Validate()
}

// peerType is what a connection of a daemon claims to be, for itself and for its sessions.
const peerType = "ai"
