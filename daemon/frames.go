package daemon

import (
	"context"

	"claudemesh/bridge"
	"claudemesh/wire"
)

// Frame is called by the bridge for what the broker tells beside mail and answers. A kind that is not known here is one of a newer broker.
func (m *meshRun) Frame(ctx context.Context, from bridge.Source, kind string, data []byte) {
	switch kind {
	case wire.TypeMCPCallForward:
		m.offers.forwarded(ctx, from, data)
	case wire.TypeStateChange, wire.TypeSkillChange:
		m.heard(from, kind, data)
	default:
		m.d.opt.Log.Debug("frame_passed_over", "mesh", m.joined.Slug, "kind", kind)
	}
}
