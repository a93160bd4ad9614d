package daemon

import (
	"context"

	"claudemesh/bridge"
)

// Frame is called by the bridge for what the broker tells beside mail and answers. A kind that is not known here is one of a newer broker.
func (m *meshRun) Frame(_ context.Context, _ bridge.Source, kind string, _ []byte) {
	switch kind {
	default:
		m.d.opt.Log.Debug("frame_passed_over", "mesh", m.joined.Slug, "kind", kind)
	}
}
