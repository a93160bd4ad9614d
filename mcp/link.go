package mcp

import (
	"context"
	"sync"

	"claudemesh/bus"
)

// link is the connection to the daemon as the handlers of MCP requests see it: there or not, changing under them. The feed keeps it.
type link struct {
	mu      sync.Mutex
	current *session
	changed chan struct{} // closed when current changes
}

// session is one connection and whose it is.
type session struct {
	client *bus.Client
	actor  string
	slug   string
	pubkey string
}

func newLink() *link { return &link{changed: make(chan struct{})} }

// set replaces the connection; nil when it is lost.
func (l *link) set(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current = s
	close(l.changed)
	l.changed = make(chan struct{})
}

// get returns the connection that is open now, or nil.
func (l *link) get() *session {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current == nil || l.current.client.Conn().IsClosed() {
		return nil
	}
	return l.current
}

// await returns the connection, waiting for one until ctx ends; then nil.
func (l *link) await(ctx context.Context) *session {
	for {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		if s := l.get(); s != nil {
			return s
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// call asks the broker of the session's mesh.
func (s *session) call(ctx context.Context, op string, in, out any) error {
	return s.client.Do(ctx, bus.CallSubject(s.slug, s.actor, op), in, out)
}

// daemon asks the daemon.
func (s *session) daemon(ctx context.Context, op string, in, out any) error {
	return s.client.Do(ctx, bus.DaemonSubject(s.actor, op), in, out)
}
