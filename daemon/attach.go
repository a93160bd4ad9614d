package daemon

import (
	"context"

	"claudemesh/bus"
	"claudemesh/daemon/session"
)

// noteConversation enters what the client of a session talks about now.
func (d *Daemon) noteConversation(context.Context, string, string) error { return nil }

// attached is the session of a client that nobody launched.
func (d *Daemon) attached(context.Context, bus.HookEvent) (session.Session, string, error) {
	return session.Session{}, "", nil
}
