package daemon

import (
	"encoding/json"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/wire"
)

// Changes of what the mesh keeps become events of the bus, once each: the broker tells of those made elsewhere over every link, of which the member's
// counts; of one made over the member's own link it tells that link nothing, and the call itself is the news.

// maxEventValue bounds the value that an event carries; a longer one is left out, and value_bytes says so.
const maxEventValue = 64 << 10

// stateChanged publishes mesh.<slug>.event.state_change.
func (m *meshRun) stateChanged(s wire.StateChange) {
	e := bus.StateChange{Mesh: m.joined.Slug, Key: s.Key, UpdatedBy: printable(s.UpdatedBy), Deleted: s.Deleted, At: m.d.opt.Clock.Now().UnixMilli()}
	if !s.Deleted {
		e.ValueBytes = len(s.Value)
	}
	if e.ValueBytes > 0 && e.ValueBytes <= maxEventValue {
		e.Value = s.Value
	}
	m.d.journal.Publish(bus.EventSubject(m.joined.Slug, wire.TypeStateChange), e)
}

// skillChanged publishes mesh.<slug>.event.skill_change.
func (m *meshRun) skillChanged(s wire.SkillChange) {
	e := bus.SkillChange{Mesh: m.joined.Slug, Name: printable(s.Name), Action: s.Action, By: printable(s.By), At: m.d.opt.Clock.Now().UnixMilli()}
	m.d.journal.Publish(bus.EventSubject(m.joined.Slug, wire.TypeSkillChange), e)
}

// heard takes a change that the broker tells of.
func (m *meshRun) heard(from bridge.Source, kind string, data []byte) {
	if from.Session != "" {
		return
	}
	var err error
	switch kind {
	case wire.TypeStateChange:
		var s wire.StateChange
		if err = wire.Decode(data, &s); err == nil {
			m.stateChanged(s)
		}
	case wire.TypeSkillChange:
		var s wire.SkillChange
		if err = wire.Decode(data, &s); err == nil {
			m.skillChanged(s)
		}
	}
	if err != nil {
		m.d.opt.Log.Warn("frame_passed_over", "mesh", m.joined.Slug, "kind", kind, "error", err)
	}
}

// made publishes the change that a call over the member's link has made.
func (m *meshRun) made(op string, request, reply []byte) {
	by := m.roster.name(m.joined.Pubkey)
	switch op {
	case wire.TypeSetState:
		var s wire.SetState
		if json.Unmarshal(request, &s) == nil {
			m.stateChanged(wire.StateChange{Key: s.Key, Value: s.Value, UpdatedBy: by})
		}
	case wire.TypeDeleteState:
		var a wire.StateAck
		if json.Unmarshal(reply, &a) == nil && a.Action == wire.ActionDeleted {
			m.stateChanged(wire.StateChange{Key: a.Key, UpdatedBy: by, Deleted: true})
		}
	case wire.TypeShareSkill, wire.TypeRemoveSkill:
		var a wire.SkillAck
		if json.Unmarshal(reply, &a) == nil && a.Action != wire.ActionNotFound {
			m.skillChanged(wire.SkillChange{Name: a.Name, Action: a.Action, By: by})
		}
	}
}
