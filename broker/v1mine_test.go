package broker

import (
	"bytes"
	"net/http"
	"testing"
)

// putWith makes a PUT with an API key.
func (r *rig) putWith(secret, path string, body any) (int, map[string]any) {
	r.t.Helper()
	req, err := http.NewRequest(http.MethodPut, r.http.URL+path, bytes.NewReader(mustJSON(r.t, body)))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+secret)
	return r.answerTo(req)
}

func TestStateAndMemoryWithAPIKeys(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	writer, reader := b.newKey("state_write").Secret, a.newKey("read").Secret

	if status, got := r.putWith(writer, "/api/v1/me/state", map[string]any{"key": "deploy.sha", "value": map[string]any{"sha": "abc"}}); status != 200 || got["ok"] != true {
		t.Fatalf("%d %v", status, got)
	}
	a.wait("state_change") // the others hear of it as if it had come over a WebSocket
	status, got := r.withKey(reader, http.MethodGet, "/api/v1/me/state?key=deploy.sha")
	rows, _ := got["entries"].([]any)
	if status != 200 || len(rows) != 1 {
		t.Fatalf("%d %v", status, got)
	}
	row := rows[0].(map[string]any)
	if row["key"] != "deploy.sha" || row["value"].(map[string]any)["sha"] != "abc" || row["updatedByName"] != "bob" || row["updatedAt"] == "" || row["meshId"] != r.mesh.ID || row["meshSlug"] != r.mesh.Slug {
		t.Errorf("%v", row)
	}
	if _, got := r.withKey(reader, http.MethodGet, "/api/v1/me/state?key=nothing"); len(got["entries"].([]any)) != 0 {
		t.Errorf("%v", got)
	}
	if _, got := r.withKey(reader, http.MethodGet, "/api/v1/me/state"); got["totals"].(map[string]any)["entries"] != 1.0 || got["more"] != false {
		t.Errorf("%v", got)
	}
	for name, body := range map[string]any{"no key": map[string]any{"value": 1}, "no value": map[string]any{"key": "k"}, "no object": []int{1}} {
		if status, got := r.putWith(writer, "/api/v1/me/state", body); status != 400 || got["code"] != "error.invalid" {
			t.Errorf("%s: %d %v", name, status, got)
		}
	}
	if status, got := r.putWith(reader, "/api/v1/me/state", map[string]any{"key": "k", "value": 1}); status != 403 || got["code"] != codeKeyCapability {
		t.Errorf("%d %v", status, got)
	}

	b.call("remember", map[string]any{"content": "the build takes nine minutes", "tags": []string{"ci"}})
	status, got = r.withKey(reader, http.MethodGet, "/api/v1/me/memory?q=build")
	memories, _ := got["memories"].([]any)
	if status != 200 || got["query"] != "build" || len(memories) != 1 || memories[0].(map[string]any)["rememberedByName"] != "bob" {
		t.Errorf("%d %v", status, got)
	}
	if status, got := r.withKey(reader, http.MethodGet, "/api/v1/me/memory"); status != 400 {
		t.Errorf("%d %v", status, got)
	}
}
