package broker

import (
	"errors"
	"net/http"

	"claudemesh/wire"
)

// The reference's routes for members. Where it trusts a header, here the request is signed.

const (
	routeMembers      = "GET /mesh/{meshId}/members"
	routeMemberEdit   = "PATCH /mesh/{meshId}/member/{memberId}"
	routeMeshSettings = "PATCH /mesh/{meshId}/settings"
	routeGrants       = "POST /cli/mesh/{slug}/grants"
)

// ofMesh refuses a request that was signed for another mesh than its path names.
func ofMesh(w http.ResponseWriter, r *http.Request, who httpCaller) bool {
	if r.PathValue("meshId") != who.mesh.rec.ID {
		answer(w, http.StatusBadRequest, map[string]any{"ok": false, "error": "mesh not found"})
		return false
	}
	return true
}

func (b *Broker) serveMembers(w http.ResponseWriter, r *http.Request, who httpCaller) {
	if ofMesh(w, r, who) {
		answer(w, http.StatusOK, map[string]any{"ok": true, "members": b.memberViews(who.mesh)})
	}
}

func (b *Broker) serveMemberEdit(w http.ResponseWriter, r *http.Request, who httpCaller) {
	if !ofMesh(w, r, who) {
		return
	}
	var p wire.Profile
	if no := readSigned(w, r, who, &p); no != nil {
		answer(w, no.status, map[string]any{"ok": false, "error": no.code})
		return
	}
	if err := p.Validate(); err != nil {
		answer(w, http.StatusBadRequest, map[string]any{"ok": false, "error": err.Error()})
		return
	}
	view, changes, err := b.editProfile(who.mesh, who.member, r.PathValue("memberId"), p)
	var no *refusal
	switch {
	case errors.As(err, &no):
		answer(w, http.StatusBadRequest, map[string]any{"ok": false, "error": no.message})
	case err != nil:
		b.log.Error("member not edited", "err", err)
		answer(w, http.StatusInternalServerError, map[string]any{"ok": false, "error": "internal"})
	default:
		answer(w, http.StatusOK, map[string]any{"ok": true, "member": view, "changes": changes})
	}
}

func (b *Broker) serveMeshSettings(w http.ResponseWriter, r *http.Request, who httpCaller) {
	if !ofMesh(w, r, who) {
		return
	}
	var f wire.MeshSettings
	if no := readSigned(w, r, who, &f); no != nil {
		answer(w, no.status, map[string]any{"ok": false, "error": no.code})
		return
	}
	err := f.Validate()
	if err == nil && !f.Changes() {
		err = errors.New("selfEditable required")
	}
	if err != nil {
		answer(w, http.StatusBadRequest, map[string]any{"ok": false, "error": err.Error()})
		return
	}
	if err := b.changeSettings(who.mesh, f); err != nil {
		b.log.Error("settings not stored", "err", err)
		answer(w, http.StatusInternalServerError, map[string]any{"ok": false, "error": "internal"})
		return
	}
	answer(w, http.StatusOK, map[string]any{"ok": true})
}
