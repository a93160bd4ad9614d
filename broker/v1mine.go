package broker

import (
	"encoding/json"
	"net/http"

	"claudemesh/wire"
)

// The REST API's routes for shared state and memories. In the reference they go over all meshes of a user; a key here knows one mesh, and shows that.

const (
	routeV1State    = "GET /api/v1/me/state"
	routeV1SetState = "PUT /api/v1/me/state"
	routeV1Memory   = "GET /api/v1/me/memory"
)

type v1Entry struct {
	MeshID        string          `json:"meshId"`
	MeshSlug      string          `json:"meshSlug"`
	Key           string          `json:"key"`
	Value         json.RawMessage `json:"value"`
	UpdatedByName string          `json:"updatedByName"`
	UpdatedAt     string          `json:"updatedAt"`
}

func (b *Broker) slugOf(m *meshState) string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return m.rec.Slug
}

// v1State answers with one value (?key=), or with as many as one answer holds, those after a key (?after=). more, ours, says that there are others.
func (b *Broker) v1State(w http.ResponseWriter, r *http.Request, who keyCaller) {
	var found []wire.StateEntry
	more := false
	if q := r.URL.Query(); q.Has("key") {
		var one wire.StateResult
		if err := b.agentOf(who).ask(wire.TypeGetState, map[string]any{"key": q.Get("key")}, &one); err != nil {
			b.v1Fail(w, r, err)
			return
		}
		if one.UpdatedAt != "" { // else it is not set
			found = append(found, one.StateEntry)
		}
	} else {
		var list wire.StateList
		if err := b.agentOf(who).ask(wire.TypeListState, map[string]any{"paged": true, "after": q.Get("after")}, &list); err != nil {
			b.v1Fail(w, r, err)
			return
		}
		found, more = list.Entries, list.More
	}
	rows := make([]v1Entry, 0, len(found))
	meshes := 0
	for _, e := range found {
		meshes = 1
		rows = append(rows, v1Entry{MeshID: who.mesh.rec.ID, MeshSlug: b.slugOf(who.mesh), Key: e.Key, Value: e.Value, UpdatedByName: e.UpdatedBy, UpdatedAt: e.UpdatedAt})
	}
	answer(w, http.StatusOK, map[string]any{"entries": rows, "totals": map[string]int{"entries": len(rows), "meshes": meshes}, "more": more})
}

// v1SetState sets one value: {"key", "value"}. Ours.
func (b *Broker) v1SetState(w http.ResponseWriter, r *http.Request, who keyCaller) {
	var in struct {
		Key   string          `json:"key"`
		Value json.RawMessage `json:"value"`
	}
	if status, problem := readJSON(w, r, maxBody+wire.MaxStateValue, &in); problem != "" {
		b.refuseKey(w, r, &keyRefusal{status, "error.invalid", problem})
		return
	}
	if err := b.agentOf(who).ask(wire.TypeSetState, map[string]any{"key": in.Key, "value": in.Value}, nil); err != nil {
		b.v1Fail(w, r, err)
		return
	}
	answer(w, http.StatusOK, map[string]any{"ok": true, "key": in.Key})
}

// v1Memory answers with the memories that fit a search (?q=).
func (b *Broker) v1Memory(w http.ResponseWriter, r *http.Request, who keyCaller) {
	query := r.URL.Query().Get("q")
	if query == "" {
		b.v1Fail(w, r, refused(wire.CodeInvalid, "q, the words to look for, is required"))
		return
	}
	var found wire.MemoryResults
	if err := b.agentOf(who).ask(wire.TypeRecall, map[string]any{"query": query}, &found); err != nil {
		b.v1Fail(w, r, err)
		return
	}
	type row struct {
		ID               string   `json:"id"`
		MeshID           string   `json:"meshId"`
		MeshSlug         string   `json:"meshSlug"`
		Content          string   `json:"content"`
		Tags             []string `json:"tags"`
		RememberedByName string   `json:"rememberedByName"`
		RememberedAt     string   `json:"rememberedAt"`
	}
	rows := make([]row, 0, len(found.Memories))
	for _, m := range found.Memories {
		rows = append(rows, row{m.ID, who.mesh.rec.ID, b.slugOf(who.mesh), m.Content, m.Tags, m.RememberedBy, m.RememberedAt})
	}
	answer(w, http.StatusOK, map[string]any{"query": query, "memories": rows, "totals": map[string]int{"entries": len(rows)}})
}
