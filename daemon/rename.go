package daemon

import (
	"context"
	"encoding/json"
	"fmt"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// renameMesh gives a mesh another slug. The subjects of the bus, the grants of sessions and the stores all carry it, so the mesh is taken out and put in
// again under its new name; sessions cannot live through that.
func (d *Daemon) renameMesh(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.MeshRename
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	d.config.Lock()
	defer d.config.Unlock()
	m, err := d.mesh(req.Mesh)
	if err != nil {
		return nil, err
	}
	switch _, err := d.mesh(req.Slug); {
	case !mesh.ValidSlug(req.Slug) || !req.Local && (len(req.Slug) < 2 || len(req.Slug) > 32):
		return nil, &bus.APIError{Code: 400, Reason: "bad_slug", Detail: "a slug is 2 to 32 of a-z, 0-9 and -, and does not begin with -"}
	case req.Slug == req.Mesh:
		return nil, &bus.APIError{Code: 400, Reason: "bad_slug", Detail: "that is its name already"}
	case err == nil:
		return nil, &bus.APIError{Code: 409, Reason: "mesh_exists", Detail: fmt.Sprintf("another mesh %q is joined here", req.Slug)}
	}
	live, err := d.session.Live(ctx)
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	var running []string
	for _, s := range live {
		if s.Mesh == req.Mesh {
			running = append(running, s.Name)
		}
	}
	if len(running) > 0 && !req.Force {
		return nil, &bus.APIError{
			Code: 409, Reason: "sessions_running", Detail: fmt.Sprintf("%d sessions run on this mesh; end them first, or have them ended with --force", len(running)),
			Data: map[string]any{"sessions": running},
		}
	}
	if !req.Local {
		fields, err := json.Marshal(wire.MeshRename{Slug: req.Slug})
		if err != nil {
			return nil, fmt.Errorf("encode rename: %w", err)
		}
		if _, err := m.call(ctx, m.links.Member(), wire.TypeMeshRename, fields); err != nil {
			return nil, err
		}
	}
	ctx = context.WithoutCancel(ctx) // the broker has it: the rest follows, whatever the caller does
	if _, err := d.endSessions(ctx, req.Mesh); err != nil {
		return nil, err
	}
	if _, err := d.detach(ctx, m, ""); err != nil {
		return nil, err
	}
	j := m.joined
	j.Slug = req.Slug
	if j.Name == req.Mesh {
		j.Name = req.Slug
	}
	err = d.moveMesh(ctx, move{From: req.Mesh, To: req.Slug}, func(c *mesh.Config) error {
		for i := range c.Meshes {
			if c.Meshes[i].Slug == req.Mesh {
				c.Meshes[i].Slug, c.Meshes[i].Name = j.Slug, j.Name
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := d.attach(j); err != nil {
		return nil, fmt.Errorf("attach mesh: %w", err)
	}
	d.opt.Log.Info("mesh_renamed", "mesh", j.Slug, "was", req.Mesh, "local", req.Local)
	return bus.MeshRenamed{Mesh: j.Slug, Was: req.Mesh, MeshID: j.MeshID, Local: req.Local}, nil
}
