package daemon

import (
	"context"
	"fmt"

	"claudemesh/bus"
	"claudemesh/mesh"
)

// reloadMeshes attaches the memberships that were put into config.json beside this daemon, by sync or restore. It takes none away, and none that is attached
// is changed: for those the daemon has to be started anew.
func (d *Daemon) reloadMeshes(_ context.Context, _ *bus.Call) (any, error) {
	d.config.Lock()
	defer d.config.Unlock()
	config, err := mesh.LoadConfig(d.opt.ConfigDir)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	out := bus.MeshesReloaded{Attached: []string{}}
	for _, j := range config.Meshes {
		if _, err := d.mesh(j.Slug); err == nil {
			continue
		}
		// What is kept of the same mesh from before it was left.
		for _, rename := range []func(context.Context, string, string) error{d.outbox.RenameMesh, d.inbox.RenameMesh, d.session.RenameMesh} {
			if err := rename(d.ctx, "*"+retirement(j), j.Slug); err != nil {
				return nil, err
			}
		}
		if err := d.attach(j); err != nil {
			d.notice(fmt.Sprintf("mesh %s is not attached: %v", j.Slug, err))
			continue
		}
		d.opt.Log.Info("mesh_attached", "mesh", j.Slug, "broker", j.BrokerURL)
		out.Attached = append(out.Attached, j.Slug)
	}
	return out, nil
}
