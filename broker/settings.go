package broker

import (
	"fmt"
	"maps"

	"claudemesh/wire"
)

// meshSettings shows the settings of the mesh to every member, and changes them for its admins.
func (c *conn) meshSettings(data []byte, reqID string) {
	var f wire.MeshSettings
	if !c.decode(data, reqID, &f) {
		return
	}
	if f.Changes() {
		if no := c.mayTouch(wire.TypeMeshSettings, false); no != nil {
			c.fail(reqID, no.code, no.message)
			return
		}
		if err := c.b.changeSettings(c.mesh, f); err != nil {
			c.storeFailed(reqID, wire.TypeMeshSettings, err)
			return
		}
	}
	c.b.mu.RLock()
	perMinute, burst := c.mesh.sendLimit(c.b.lim)
	own := c.mesh.rec.Settings.SendRate != 0 || c.mesh.rec.Settings.SendBurst != 0
	c.b.mu.RUnlock()
	c.reply(wire.MeshSettingsResult{
		Type: wire.TypeMeshSettingsResult, SendRate: perMinute, SendBurst: burst, Default: !own, SelfEditable: c.b.selfEditable(c.mesh), ReqID: reqID,
	})
}

// changeSettings stores the mesh with what f names changed. One at a time: two changes of different fields must not undo each other.
func (b *Broker) changeSettings(m *meshState, f wire.MeshSettings) error {
	b.settling.Lock()
	defer b.settling.Unlock()
	b.mu.RLock()
	rec := m.rec
	b.mu.RUnlock()
	if f.SendRate != nil {
		rec.Settings.SendRate = *f.SendRate
	}
	if f.SendBurst != nil {
		rec.Settings.SendBurst = *f.SendBurst
	}
	if len(f.SelfEditable) > 0 {
		rec.Settings.SelfEditable = maps.Clone(rec.Settings.SelfEditable)
		if rec.Settings.SelfEditable == nil {
			rec.Settings.SelfEditable = map[string]bool{}
		}
		maps.Copy(rec.Settings.SelfEditable, f.SelfEditable)
	}
	ctx, cancel := b.deadline()
	defer cancel()
	if err := b.store.put(ctx, meshKey(rec.ID), rec); err != nil {
		return fmt.Errorf("store settings: %w", err)
	}
	b.mu.Lock()
	m.rec.Settings = rec.Settings
	b.mu.Unlock()
	return nil
}

// selfEditable says what members may edit of their own profile: everything that the team has not taken away.
func (b *Broker) selfEditable(m *meshState) map[string]bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	out := map[string]bool{}
	for _, field := range wire.ProfileFields() {
		may, decided := m.rec.Settings.SelfEditable[field]
		out[field] = may || !decided
	}
	return out
}
