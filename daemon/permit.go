package daemon

import (
	"context"
	"slices"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/daemon/session"
)

// permit finds the mesh that an operation of the daemon itself is about and checks that the caller may have what stands behind the capability there. The bus
// checks calls and sends by their subjects; the daemon's own operations are open to every session.
func (d *Daemon) permit(ctx context.Context, actor, capability, slug string) (*meshRun, error) {
	m, err := d.mesh(slug)
	if err != nil || actor == bus.User {
		return m, err
	}
	s, err := d.caller(ctx, actor)
	switch {
	case err != nil:
		return nil, err
	case s.OnlyMesh && s.Mesh != slug:
		return nil, bus.OtherMesh(s.Mesh)
	case s.Caps != nil && !slices.Contains(s.Caps, capability):
		return nil, bus.MissingCapability(capability, "", s.Caps)
	}
	return m, nil
}

// caller is the live session that makes a request.
func (d *Daemon) caller(ctx context.Context, actor string) (session.Session, error) {
	s, err := d.session.Get(ctx, actor)
	if err != nil || !s.EndedAt.IsZero() {
		return session.Session{}, &bus.APIError{Code: 401, Reason: "no_session", Detail: "this session is not registered any more"}
	}
	return s, nil
}

// linkOf is the link by which a request of actor goes to the broker of m. That of a limited session takes the session's own, if the broker holds sessions to
// their limits there: it is then checked twice. Everything else goes over the member's.
func (d *Daemon) linkOf(ctx context.Context, actor string, m *meshRun) *bridge.Link {
	if limits, _ := m.links.Limits(); actor != bus.User && limits {
		if s, err := d.session.Get(ctx, actor); err == nil && s.Caps != nil && s.Mesh == m.joined.Slug {
			if l, ok := m.links.Session(s.ID); ok {
				return l
			}
		}
	}
	return m.links.Member()
}
