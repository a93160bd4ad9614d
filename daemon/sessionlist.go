package daemon

import (
	"context"
	"fmt"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/daemon/session"
	"claudemesh/mesh"
)

// What is told about sessions: never a key, never a token.

func (d *Daemon) sessionInfo(s session.Session) bus.SessionInfo {
	info := bus.SessionInfo{
		ID: s.ID, Mesh: s.Mesh, Name: s.Name, Pubkey: s.PublicKey, PID: s.PID, Cwd: s.Cwd, Role: s.Role, Groups: []mesh.Group{}, OnlyMesh: s.OnlyMesh, Parent: s.Parent,
		StartedAt: s.RegisteredAt.UnixMilli(), Link: string(bridge.Closed), MessageMode: s.MessageMode, Conversation: s.Conversation,
	}
	for _, g := range s.Groups {
		info.Groups = append(info.Groups, decodeGroup(g))
	}
	if s.Caps != nil {
		info.Caps, info.CapsHeld = &s.Caps, bus.CapsUnknown
	}
	if m, err := d.mesh(s.Mesh); err == nil {
		if limits, known := m.links.Limits(); s.Caps != nil && known {
			info.CapsHeld = bus.CapsHeldHere
			if limits {
				info.CapsHeld = bus.CapsHeldBoth
			}
		}
		info.MessageMode = m.modeOf(s.MessageMode)
		if l, ok := m.links.Session(s.ID); ok {
			st := l.State()
			info.Link, info.LinkError = string(st.Phase), st.Err
		}
		if c := d.ladder.of(s.ID); c != nil {
			info.Wake = c.info()
		}
	}
	return info
}

func (d *Daemon) listSessions(ctx context.Context, c *bus.Call) (any, error) {
	live, err := d.session.Live(ctx)
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	out := bus.SessionList{Sessions: []bus.SessionInfo{}}
	for _, s := range live {
		if c.Actor == bus.User || c.Actor == s.ID || c.Actor == s.Parent {
			info := d.sessionInfo(s)
			if n, err := d.inbox.CountUnread(ctx, s.ID, s.Mesh); err == nil {
				info.Unread = int(n)
			}
			out.Sessions = append(out.Sessions, info)
		}
	}
	return out, nil
}

func (d *Daemon) sessionMe(ctx context.Context, c *bus.Call) (any, error) {
	if c.Actor == bus.User {
		return nil, &bus.APIError{Code: 404, Reason: "no_session", Detail: "the caller is the user, not a session"}
	}
	s, err := d.session.Get(ctx, c.Actor)
	if err != nil {
		return nil, &bus.APIError{Code: 404, Reason: "no_session", Detail: "this session is not registered any more"}
	}
	return d.sessionInfo(s), nil // without the count: shims ask often, and it takes as long as there are messages
}
