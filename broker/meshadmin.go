package broker

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/gorilla/websocket"

	"claudemesh/wire"
)

// Renaming, deleting, leaving and listing meshes. Each can be asked for by a frame; those that the reference has as HTTP routes, by a signed request too.

// slugForm is what a mesh may be renamed to; the reference's rule.
var slugForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{1,31}$`)

// rename gives a mesh another slug, another name, or both; what is empty stays.
func (b *Broker) rename(ctx context.Context, m *meshState, slug, name string) (meshRecord, *refusal, error) {
	b.joining.Lock() // keeps the slug free until it is ours
	defer b.joining.Unlock()
	b.editing.Lock() // the record is one with the mesh's settings
	defer b.editing.Unlock()
	b.mu.RLock()
	rec, gone := m.rec, b.meshes[m.rec.ID] != m
	taken := false
	for _, o := range b.meshes {
		taken = taken || o != m && o.rec.Slug == slug
	}
	b.mu.RUnlock()
	switch {
	case gone:
		return rec, refused(wire.CodeMeshDeleted, "the mesh was deleted"), nil
	case slug != "" && !slugForm.MatchString(slug):
		return rec, refused(wire.CodeInvalid, "a slug is 2 to 32 of a-z, 0-9 and -, and does not begin with -"), nil
	case name != "" && !validName(name):
		return rec, refused(wire.CodeInvalid, "a name is at most 128 bytes without control characters"), nil
	case taken:
		return rec, refused(wire.CodeConflict, "another mesh of this broker has that slug"), nil
	}
	if slug != "" {
		rec.Slug = slug
	}
	if name != "" {
		rec.Name = strings.TrimSpace(name)
	}
	if err := b.store.put(ctx, meshKey(rec.ID), rec); err != nil {
		return rec, nil, fmt.Errorf("rename mesh: %w", err)
	}
	b.mu.Lock()
	m.rec.Slug, m.rec.Name = rec.Slug, rec.Name // id and owner never change, and are read without the lock
	b.mu.Unlock()
	return rec, nil, nil
}

func (c *conn) meshRename(data []byte, reqID string) {
	var f wire.MeshRename
	if !c.decode(data, reqID, &f) {
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	rec, no, err := c.b.rename(ctx, c.mesh, f.Slug, f.Name)
	switch {
	case err != nil:
		c.storeFailed(reqID, wire.TypeMeshRename, err)
	case no != nil:
		c.fail(reqID, no.code, no.message)
	default:
		c.reply(wire.MeshRenamed{Type: wire.TypeMeshRenamed, Slug: rec.Slug, Name: rec.Name, ReqID: reqID})
	}
}

func (b *Broker) serveRename(w http.ResponseWriter, r *http.Request, who httpCaller) {
	var f wire.MeshRename
	no := b.ownMesh(r, who)
	if no == nil {
		no = readSigned(w, r, who, &f)
	}
	if no == nil && f.Validate() != nil {
		no = &httpRefusal{http.StatusBadRequest, wire.CodeInvalid}
	}
	if no != nil {
		answer(w, no.status, wire.MeshRenamed{Error: no.code})
		return
	}
	ctx, cancel := b.deadline()
	defer cancel()
	rec, refusal, err := b.rename(ctx, who.mesh, f.Slug, f.Name)
	switch {
	case err != nil:
		b.log.Error("mesh not renamed", "err", err)
		answer(w, http.StatusServiceUnavailable, wire.MeshRenamed{Error: wire.CodeUnavailable})
	case refusal != nil && refusal.code == wire.CodeConflict:
		answer(w, http.StatusConflict, wire.MeshRenamed{Error: refusal.code})
	case refusal != nil:
		answer(w, http.StatusBadRequest, wire.MeshRenamed{Error: refusal.code})
	default:
		answer(w, http.StatusOK, wire.MeshRenamed{Slug: rec.Slug, Name: rec.Name})
	}
}

// ownMesh checks that the slug in the path is that of the mesh the caller signed for.
func (b *Broker) ownMesh(r *http.Request, who httpCaller) *httpRefusal {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if r.PathValue("slug") != who.mesh.rec.Slug {
		return &httpRefusal{http.StatusNotFound, wire.CodeNotFound}
	}
	return nil
}

func (c *conn) meshDelete(data []byte, reqID string) {
	var f wire.MeshDelete
	if !c.decode(data, reqID, &f) {
		return
	}
	c.b.mu.RLock()
	slug := c.mesh.rec.Slug
	c.b.mu.RUnlock()
	if f.Slug != slug {
		c.fail(reqID, wire.CodeConflict, "the slug of this mesh is another one")
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	if err := c.b.deleteMesh(ctx, c.mesh, c); err != nil {
		c.storeFailed(reqID, wire.TypeMeshDelete, err)
		return
	}
	c.lastWord(wire.MeshDeleted{Type: wire.TypeMeshDeleted, Deleted: slug, ReqID: reqID}, wire.CodeMeshDeleted)
}

func (b *Broker) serveDelete(w http.ResponseWriter, r *http.Request, who httpCaller) {
	no := b.ownMesh(r, who)
	if no == nil {
		no = readSigned(w, r, who, &struct{}{})
	}
	if no != nil {
		answer(w, no.status, map[string]any{"error": no.code})
		return
	}
	ctx, cancel := b.deadline()
	defer cancel()
	if err := b.deleteMesh(ctx, who.mesh, nil); err != nil {
		b.log.Error("mesh not deleted", "err", err)
		answer(w, http.StatusServiceUnavailable, map[string]any{"error": wire.CodeUnavailable})
		return
	}
	answer(w, http.StatusOK, map[string]any{"ok": true, "deleted": r.PathValue("slug")})
}

// lastWord answers a request that ends the connection's membership, then closes.
func (c *conn) lastWord(v any, reason string) {
	data, err := wire.Encode(v)
	if err != nil {
		c.close(websocket.CloseInternalServerErr, "internal")
		return
	}
	c.push(frame{data: data, refuse: &farewell{wire.CloseBanned, reason}})
}

// meshLeave ends the caller's own membership. Its key may become a member again by a new invite; nothing but the history that others keep remembers it.
func (c *conn) meshLeave(_ []byte, reqID string) {
	if c.caller().role == roleOwner {
		c.fail(reqID, wire.CodeConflict, "the owner cannot leave: nobody else could invite, rename or delete; delete the mesh instead")
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	if err := c.b.dropMember(ctx, c.mesh, c.member, c); err != nil {
		c.storeFailed(reqID, wire.TypeMeshLeave, err)
		return
	}
	c.lastWord(wire.MeshLeft{Type: wire.TypeMeshLeft, ReqID: reqID}, wire.CodeLeft)
}

// serveMeshes lists the meshes of this broker in which the caller's key is a member.
func (b *Broker) serveMeshes(w http.ResponseWriter, r *http.Request, who httpCaller) {
	if no := readSigned(w, r, who, &struct{}{}); no != nil {
		answer(w, no.status, wire.MeshRows{Error: no.code})
		return
	}
	answer(w, http.StatusOK, wire.MeshRows{Meshes: b.meshRows(func(m *meshState) *member { return m.active(who.member.Pubkey) })})
}

// meshRows lists the meshes in which mine, called under the lock, finds a member, as that member sees them.
func (b *Broker) meshRows(mine func(*meshState) *member) []wire.MeshRow {
	rows := []wire.MeshRow{}
	b.mu.RLock()
	for _, m := range b.meshes {
		me := mine(m)
		if me == nil {
			continue
		}
		d := m.describe()
		row := wire.MeshRow{
			ID: d.ID, Slug: d.Slug, Name: d.Name, Role: m.roleOf(me).String(), IsOwner: me.Pubkey == d.OwnerPubkey, MemberCount: d.Members, ActivePeers: d.Online,
			JoinedAt: wire.Timestamp(unixMilli(me.JoinedAt)), BrokerURL: b.cfg.PublicURL,
		}
		if owner := m.members[d.OwnerPubkey]; owner != nil {
			row.OwnerName = owner.Name
		}
		rows = append(rows, row)
	}
	b.mu.RUnlock()
	slices.SortFunc(rows, func(a, b wire.MeshRow) int { return strings.Compare(a.Slug, b.Slug) })
	return rows
}
