package broker

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"claudemesh/mesh"
)

func TestSignedRequests(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	const route = "POST /test/{what}"
	pattern, handler := r.broker.signed(route, func(w http.ResponseWriter, req *http.Request, who httpCaller) {
		var in map[string]any
		if no := readSigned(w, req, who, &in); no != nil {
			answer(w, no.status, map[string]any{"error": no.code})
			return
		}
		answer(w, http.StatusOK, map[string]any{"who": who.member.Pubkey, "in": in})
	})
	rules[route] = rule{own: roleMember}
	t.Cleanup(func() { delete(rules, route) })
	mux := http.NewServeMux()
	mux.HandleFunc(pattern, handler)

	body := []byte(`{"a":1}`)
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	do := func(header string, body []byte) (int, map[string]any) {
		t.Helper()
		req := httptest.NewRequest(http.MethodPost, "/test/x?y=z", bytes.NewReader(body))
		req.Header.Set("Authorization", header)
		rec := httptest.NewRecorder()
		mux.ServeHTTP(rec, req)
		var out map[string]any
		if err := json.Unmarshal(rec.Body.Bytes(), &out); err != nil {
			t.Fatalf("%d %s", rec.Code, rec.Body.String())
		}
		return rec.Code, out
	}
	sign := func(who mesh.Identity, at time.Time) string {
		return mesh.SignHTTP(who, http.MethodPost, "/test/x?y=z", r.mesh.ID, hash, at)
	}

	good := sign(bob, time.Now())
	if status, out := do(good, body); status != 200 || out["who"] != bob.PublicKey() {
		t.Fatalf("%d %v", status, out)
	}
	tests := []struct {
		name, header string
		body         []byte
		want         string
	}{
		{"the same request a second time", good, body, "replayed"},
		{"another body than was signed", sign(bob, time.Now().Add(time.Millisecond)), []byte(`{"a":2}`), "bad_signature"},
		{"a signature of two minutes ago", sign(bob, time.Now().Add(-2*time.Minute)), body, "timestamp_skew"},
		{"somebody who is no member", sign(newIdentity(t), time.Now()), body, "unauthorized"},
		{"no signature", "", body, "missing_authorization"},
		{"a bearer token", "Bearer x", body, "malformed_authorization"},
	}
	for _, tt := range tests {
		t.Run(tt.name+" is refused", func(t *testing.T) {
			if status, out := do(tt.header, tt.body); status != http.StatusUnauthorized || out["error"] != tt.want {
				t.Errorf("%d %v", status, out)
			}
		})
	}
	t.Run("a member that was banned is refused", func(t *testing.T) {
		if err := r.broker.RevokeMember(t.Context(), r.mesh.ID, bob.PublicKey()); err != nil {
			t.Fatal(err)
		}
		if status, out := do(sign(bob, time.Now().Add(2*time.Millisecond)), body); status != http.StatusUnauthorized || out["error"] != "unauthorized" {
			t.Errorf("%d %v", status, out)
		}
	})
}
