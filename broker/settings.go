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
	own := c.mesh.rec.SendRate != 0 || c.mesh.rec.SendBurst != 0
	policy := c.mesh.policy()
	c.b.mu.RUnlock()
	c.reply(wire.MeshSettingsResult{
		Type: wire.TypeMeshSettingsResult, SendRate: perMinute, SendBurst: burst, Default: !own, SelfEditable: policy, ReqID: reqID,
	})
}

// changeSettings stores the mesh with what f names changed.
func (b *Broker) changeSettings(m *meshState, f wire.MeshSettings) error {
	b.editing.Lock()
	defer b.editing.Unlock()
	b.mu.RLock()
	rec := m.rec
	rec.SelfEditable = m.policy()
	b.mu.RUnlock()
	if f.SendRate != nil {
		rec.SendRate = *f.SendRate
	}
	if f.SendBurst != nil {
		rec.SendBurst = *f.SendBurst
	}
	maps.Copy(rec.SelfEditable, f.SelfEditable)
	ctx, cancel := b.deadline()
	defer cancel()
	if err := b.store.put(ctx, meshKey(rec.ID), rec); err != nil {
		return fmt.Errorf("store settings: %w", err)
	}
	b.mu.Lock()
	m.rec.SendRate, m.rec.SendBurst, m.rec.SelfEditable = rec.SendRate, rec.SendBurst, rec.SelfEditable // never changed in place
	b.mu.Unlock()
	return nil
}

// policy is what members may change of their own profile. Called under the lock.
func (m *meshState) policy() map[string]bool {
	p := wire.SelfEditable()
	maps.Copy(p, m.rec.SelfEditable)
	return p
}
