package daemon

import (
	"context"
	"fmt"
	"slices"

	"claudemesh/bus"
)

// permit finds the mesh that an operation of the daemon itself is about and checks that the caller may have what stands behind the capability there. The bus
// checks calls and sends by their subjects; the daemon's own operations are open to every session.
func (d *Daemon) permit(ctx context.Context, actor, capability, slug string) (*meshRun, error) {
	m, err := d.mesh(slug)
	if err != nil || actor == bus.User {
		return m, err
	}
	s, err := d.session.Get(ctx, actor)
	switch {
	case err != nil || !s.EndedAt.IsZero():
		return nil, &bus.APIError{Code: 401, Reason: "no_session", Detail: "this session is not registered any more"}
	case s.OnlyMesh && s.Mesh != slug:
		return nil, &bus.APIError{Code: 403, Reason: "forbidden", Detail: fmt.Sprintf("this session may use mesh %s only", s.Mesh)}
	case s.Caps != nil && !slices.Contains(s.Caps, capability):
		return nil, &bus.APIError{Code: 403, Reason: "forbidden", Detail: "this session lacks the capability " + capability}
	}
	return m, nil
}
