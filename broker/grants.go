package broker

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// Grants are a recipient's word on who may write to it, kept one record per member and in memory. They are looked at once, when a message is accepted: what
// was accepted is delivered, what is refused is stored nowhere.

// grantsFamily names the records: grants.MESHID.PUBKEY.
const grantsFamily = "grants"

// admits reports whether who takes messages of that capability (mesh.CapDM, mesh.CapBroadcast) from the member with that key. Called under the lock.
func (who *member) admits(sender, capability string) bool {
	if sender == who.Pubkey {
		return true
	}
	caps, listed := who.grants[sender]
	return !listed || slices.Contains(caps, capability)
}

// loadGrants reads every member's grants.
func (b *Broker) loadGrants(ctx context.Context) error {
	all, err := listRecords[wire.Grants](ctx, b.store, grantsFamily)
	if err != nil {
		return err
	}
	for _, r := range all {
		_, meshID, key := splitKey(r.Key)
		if m := b.meshes[meshID]; m != nil && m.members[key] != nil {
			m.members[key].grants = r.Value
		}
	}
	return nil
}

// setGrants changes the entries named of a member's own grants, and returns all. A session's key stands for its member.
func (b *Broker) setGrants(ctx context.Context, m *meshState, who *member, change wire.Grants) (wire.Grants, *refusal, error) {
	b.editing.Lock()
	defer b.editing.Unlock()
	b.mu.RLock()
	next := maps.Clone(who.grants)
	if next == nil {
		next = wire.Grants{}
	}
	for key, caps := range change {
		if owner := m.ownerOf(key); owner != "" {
			key = owner
		}
		if caps == nil {
			delete(next, key)
		} else {
			next[key] = caps
		}
	}
	b.mu.RUnlock()
	if len(next) > wire.MaxGrants {
		return nil, refused(wire.CodeLimit, fmt.Sprintf("a member keeps at most %d grants", wire.MaxGrants)), nil
	}
	if err := b.store.putRecord(ctx, recordKey(grantsFamily, m.rec.ID, who.Pubkey), next); err != nil {
		return nil, nil, err
	}
	b.mu.Lock()
	who.grants = next // never changed in place
	b.mu.Unlock()
	return next, nil, nil
}

func (c *conn) grantsGet(_ []byte, reqID string) {
	c.b.mu.RLock()
	all := c.member.grants
	c.b.mu.RUnlock()
	c.replyGrants(all, reqID)
}

func (c *conn) grantsSet(data []byte, reqID string) {
	var f wire.GrantsSet
	if !c.decode(data, reqID, &f) {
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	all, no, err := c.b.setGrants(ctx, c.mesh, c.member, f.Grants)
	switch {
	case err != nil:
		c.storeFailed(reqID, wire.TypeGrantsSet, err)
	case no != nil:
		c.fail(reqID, no.code, no.message)
	default:
		c.replyGrants(all, reqID)
	}
}

func (c *conn) replyGrants(all wire.Grants, reqID string) {
	if all == nil {
		all = wire.Grants{}
	}
	c.reply(wire.GrantsResult{Type: wire.TypeGrantsResult, Grants: all, Default: wire.DefaultGrant(), ReqID: reqID})
}

// serveGrants is the reference's route for the same.
func (b *Broker) serveGrants(w http.ResponseWriter, r *http.Request, who httpCaller) {
	var req struct {
		Grants wire.Grants `json:"grants"`
	}
	if no := readSigned(w, r, who, &req); no != nil {
		answer(w, no.status, map[string]any{"error": no.code})
		return
	}
	b.mu.RLock()
	slug := who.mesh.rec.Slug
	b.mu.RUnlock()
	if r.PathValue("slug") != slug {
		answer(w, http.StatusNotFound, map[string]any{"error": "mesh not found"})
		return
	}
	if req.Grants == nil {
		answer(w, http.StatusBadRequest, map[string]any{"error": "grants required"})
		return
	}
	if err := req.Grants.Validate(); err != nil {
		answer(w, http.StatusBadRequest, map[string]any{"error": err.Error()})
		return
	}
	ctx, cancel := b.deadline()
	defer cancel()
	all, no, err := b.setGrants(ctx, who.mesh, who.member, req.Grants)
	switch {
	case err != nil:
		b.log.Error("grants not stored", "err", err)
		answer(w, http.StatusInternalServerError, map[string]any{"error": "internal"})
	case no != nil:
		answer(w, http.StatusBadRequest, map[string]any{"error": no.message})
	default:
		answer(w, http.StatusOK, map[string]any{"ok": true, "grants": all})
	}
}

// blocked refuses a direct message that its recipient's grants do not allow. Called under the lock.
func (m *meshState) blocked(sender *member, target string) *refusal {
	if who := m.memberByKey(target); who != nil && !who.admits(sender.Pubkey, mesh.CapDM) {
		return refused(wire.AckBlocked, "blocked by recipient grants (sender lacks dm capability)")
	}
	return nil
}
