package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// The end of a membership: the broker is told, if it is to be and can be; then the mesh is taken out of this daemon. History stays, under a name that no
// mesh can have, and comes back when the same mesh is joined again.

func (d *Daemon) leaveMesh(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.MeshLeave
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	return d.endMembership(ctx, req.Mesh, wire.TypeMeshLeave, struct{}{}, req.Local)
}

func (d *Daemon) deleteMesh(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.MeshDelete
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	m, err := d.mesh(req.Mesh)
	if err != nil {
		return nil, err
	}
	slug := m.joined.Slug
	if row, err := m.server(ctx); err == nil {
		slug = row.Slug // the broker's, which may be another
	}
	return d.endMembership(ctx, req.Mesh, wire.TypeMeshDelete, wire.MeshDelete{Slug: slug}, false)
}

// over reports whether the broker has ended the membership already: there is nothing left to tell it.
func (m *meshRun) over() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return errors.Is(m.ended, bridge.ErrMeshDeleted) || errors.Is(m.ended, bridge.ErrBanned) || errors.Is(m.ended, bridge.ErrLeft)
}

func (d *Daemon) endMembership(ctx context.Context, slug, op string, frame any, local bool) (any, error) {
	d.config.Lock()
	defer d.config.Unlock()
	m, err := d.mesh(slug)
	if err != nil {
		return nil, err
	}
	out := bus.MeshLeft{Mesh: slug, MeshID: m.joined.MeshID, Local: local}
	switch {
	case local:
	case m.over():
		out.Note = "the broker had ended this membership before"
	default:
		fields, err := json.Marshal(frame)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		m.leaving.Store(true) // the broker closes the links now, which is no news to the user
		if _, err := m.call(ctx, m.links.Member(), op, fields); err != nil {
			m.leaving.Store(false)
			return nil, err
		}
	}
	// From here on it is done, whatever the caller does.
	ctx = context.WithoutCancel(ctx)
	reason := "the mesh was left"
	if op == wire.TypeMeshDelete {
		reason = "the mesh was deleted"
	}
	d.publishEvent(slug, "system", map[string]any{"mesh": slug, "event": "mesh_left", "reason": reason})
	if out.Sessions, err = d.endSessions(ctx, slug); err != nil {
		return nil, err
	}
	if out.Unsent, err = d.detach(ctx, m, reason); err != nil {
		return nil, err
	}
	out.KeptAs = retired(m.joined)
	err = d.moveMesh(ctx, move{From: slug, To: out.KeptAs}, func(c *mesh.Config) error {
		c.Remove(slug)
		out.Joined = len(c.Meshes)
		return nil
	})
	if err != nil {
		return nil, err
	}
	d.opt.Log.Info("mesh_left", "mesh", slug, "local", local, "sessions", out.Sessions, "unsent", out.Unsent)
	return out, nil
}

// endSessions ends the sessions that run on a mesh.
func (d *Daemon) endSessions(ctx context.Context, slug string) (n int, err error) {
	live, err := d.session.Live(ctx)
	if err != nil {
		return 0, fmt.Errorf("list sessions: %w", err)
	}
	for _, s := range live {
		if s.Mesh != slug {
			continue
		}
		if err := d.endSession(ctx, s.ID); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// detach takes a mesh out of the running daemon: nothing is accepted for it, its links are closed, and when reason is given what waited has failed.
func (d *Daemon) detach(ctx context.Context, m *meshRun, reason string) (unsent int, err error) {
	m.gate.Lock()
	m.left = true
	m.gate.Unlock()
	d.mu.Lock()
	delete(d.meshes, m.joined.Slug)
	d.mu.Unlock()
	m.cancel()
	m.tasks.Wait()
	if reason == "" {
		return 0, nil
	}
	failed, err := d.outbox.FailMesh(ctx, m.joined.Slug, reason)
	if err != nil {
		return 0, err
	}
	for _, row := range failed {
		m.publishReceipt(row, bus.Receipt{State: bus.StateFailed, Reason: reason})
	}
	return len(failed), nil
}

// retired is the name under which the stores keep what they have of a mesh that was left. "@" is in no slug.
func retired(j mesh.Joined) string { return j.Slug + retirement(j) }

func retirement(j mesh.Joined) string { return "@" + j.MeshID[:min(8, len(j.MeshID))] }
