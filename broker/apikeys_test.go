package broker

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"claudemesh/wire"
)

// withKey makes a request with an API key.
func (r *rig) withKey(secret, method, path string) (int, map[string]any) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.http.URL+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if secret != "" {
		req.Header.Set("Authorization", "Bearer "+secret)
	}
	return r.answerTo(req)
}

func (c *client) newKey(caps ...string) wire.APIKeyCreated {
	c.t.Helper()
	got := into[wire.APIKeyCreated](c, c.call(wire.TypeAPIKeyCreate, map[string]any{"label": "key", "capabilities": caps}))
	if got.Type != wire.TypeAPIKeyCreated {
		c.t.Fatalf("%+v", got)
	}
	return got
}

func (c *client) keys() []wire.APIKey {
	c.t.Helper()
	return into[wire.APIKeyListed](c, c.call(wire.TypeAPIKeyList, nil)).Keys
}

func TestAPIKeySecret(t *testing.T) {
	const secret, hash = "cm_BgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgY", "ee20be299e90a302df1dc77aaa54613459c5614d2eda95125b2b34fbe84bfeaf"
	rec, got, err := newAPIKey(strings.NewReader(strings.Repeat("\x06", 96)), wire.APIKeyCreate{}, "", time.Unix(1, 0), 0)
	if err != nil || got != secret || rec.Hash != hash || rec.Prefix != "cm_BgYGBgYG" {
		t.Errorf("%s %+v %v", got, rec, err)
	}
}

func TestAPIKeys(t *testing.T) {
	clock, useClock := fakeClock(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))
	r := newRig(t, useClock)
	bob, carol := r.addMember("bob"), r.addMember("carol")
	a, b, c := r.member(r.owner), r.member(bob), r.member(carol)

	for _, tc := range []struct {
		name   string
		fields map[string]any
	}{
		{"nothing", nil},
		{"no capability", map[string]any{"label": "x", "capabilities": []string{}}},
		{"an unknown capability", map[string]any{"label": "x", "capabilities": []string{"fly"}}},
		{"a time that is none", map[string]any{"label": "x", "capabilities": []string{"read"}, "expiresAt": "soon"}},
		{"a time that has passed", map[string]any{"label": "x", "capabilities": []string{"read"}, "expiresAt": "2026-11-22T11:59:59Z"}},
		{"an endless label", map[string]any{"label": strings.Repeat("x", 1000), "capabilities": []string{"read"}}},
	} {
		t.Run("is not made of "+tc.name, func(t *testing.T) {
			if e := b.refusedWith(wire.CodeInvalidArgs, wire.TypeAPIKeyCreate, tc.fields); e.ID != e.ReqID {
				t.Errorf("%+v", e)
			}
		})
	}
	k := b.newKey("read")
	t.Run("nothing of the secret is kept but its hash and beginning", func(t *testing.T) {
		rec, err := getRecord[map[string]any](t.Context(), r.broker.store, recordKey(apiKeyFamily, r.mesh.ID, k.ID))
		if err != nil || strings.Contains(string(mustJSON(t, rec.Value)), k.Secret) || rec.Value["hash"] != hashSecret(k.Secret) {
			t.Errorf("%v %v", rec.Value, err)
		}
	})
	t.Run("opens what it may", func(t *testing.T) {
		status, got := r.withKey(k.Secret, http.MethodGet, "/api/v1/members")
		members, _ := got["members"].([]any)
		if status != 200 || len(members) != 3 {
			t.Fatalf("%d %v", status, got)
		}
		if m := members[1].(map[string]any); m["displayName"] != "bob" || m["role"] != "member" || m["online"] != true || m["status"] != "idle" || m["isHuman"] != false || m["pubkey"] != bob.PublicKey() {
			t.Errorf("%v", m)
		}
		if m := members[0].(map[string]any); m["role"] != "admin" || m["memberId"] != r.memberID(r.owner) {
			t.Errorf("%v", m)
		}
	})
	t.Run("outlives the broker, with its last use to the minute", func(t *testing.T) {
		r.restart()
		a, b, c = r.member(r.owner), r.member(bob), r.member(carol)
		if keys := b.keys(); len(keys) != 1 || keys[0].LastUsedAt == nil || *keys[0].LastUsedAt != "2026-11-22T12:00:00.000Z" {
			t.Errorf("%+v", keys)
		}
	})
	for _, tc := range []struct {
		name, secret string
		status       int
		code         string
	}{
		{"no key", "", 401, codeKeyMissing},
		{"an unknown key", "cm_x", 401, codeKeyInvalid},
		{"an endless key", strings.Repeat("x", 4000), 401, codeKeyInvalid},
		{"a key for something else", b.newKey("send").Secret, 403, codeKeyCapability},
	} {
		t.Run("is refused for "+tc.name, func(t *testing.T) {
			status, got := r.withKey(tc.secret, http.MethodGet, "/api/v1/members")
			if status != tc.status || got["code"] != tc.code || got["status"] != float64(tc.status) || got["path"] != "/api/v1/members" || got["message"] == "" || got["timestamp"] == "" {
				t.Errorf("%d %v", status, got)
			}
		})
	}
	t.Run("peers has one row for each member who is there", func(t *testing.T) {
		r.session(bob, newIdentity(t), func(h *wire.SessionHello) { h.DisplayName = "bob's session" })
		c.close()
		a.eventOf(wire.EventPeerLeft, carol.PublicKey())
		status, got := r.withKey(k.Secret, http.MethodGet, "/api/v1/peers")
		peers, _ := got["peers"].([]any)
		if status != 200 || len(peers) != 2 {
			t.Fatalf("%d %v", status, got)
		}
		if p := peers[1].(map[string]any); p["displayName"] != "bob's session" || p["pubkey"] != bob.PublicKey() || p["via"] != "ws" {
			t.Errorf("%v", p)
		}
		c = r.member(carol)
	})
	t.Run("with admin is for administrators, and only as long as they are", func(t *testing.T) {
		b.refusedWith(wire.CodeForbidden, wire.TypeAPIKeyCreate, map[string]any{"label": "x", "capabilities": []string{"admin"}})
		k := a.newKey("admin")
		if status, got := r.withKey(k.Secret, http.MethodGet, "/api/v1/members"); status != 200 {
			t.Errorf("%d %v", status, got)
		}
		ann := r.addAdmin("ann")
		k = r.member(ann).newKey("admin")
		a.call(wire.TypeMemberEdit, map[string]any{"memberId": r.memberID(ann), "permission": "member"})
		if status, got := r.withKey(k.Secret, http.MethodGet, "/api/v1/members"); status != 403 || got["code"] != codeKeyCapability {
			t.Errorf("%d %v", status, got)
		}
	})
	t.Run("others' keys are not there for a member, and are for an administrator", func(t *testing.T) {
		if n := len(c.keys()); n != 0 {
			t.Errorf("%d keys", n)
		}
		if n := len(a.keys()); n != 4 {
			t.Errorf("%d keys", n)
		}
		if got := into[wire.APIKeyRevoked](c, c.call(wire.TypeAPIKeyRevoke, map[string]any{"id": k.ID})); got.Status != wire.RevokeNotFound {
			t.Errorf("%+v", got)
		}
	})
	t.Run("ends by the beginning of its id, if that is one key's", func(t *testing.T) {
		if e := b.refusedWith(wire.CodeInvalidArgs, wire.TypeAPIKeyRevoke, nil); e.ReqID == "" {
			t.Errorf("%+v", e)
		}
		for range 62 { // by then two of them begin alike
			a.newKey("read")
		}
		keys := map[string]int{}
		for _, k := range a.keys() {
			keys[k.ID[:1]]++
		}
		for first, n := range keys {
			if n > 1 {
				if got := into[wire.APIKeyRevoked](a, a.call(wire.TypeAPIKeyRevoke, map[string]any{"id": first})); got.Status != wire.RevokeNotUnique || got.Matches != 2 {
					t.Errorf("%+v", got)
				}
				break
			}
		}
		for range 2 { // the second time it is no error
			if got := into[wire.APIKeyRevoked](a, a.call(wire.TypeAPIKeyRevoke, map[string]any{"id": k.ID[:20]})); got.Status != wire.RevokeDone || got.ID != k.ID {
				t.Errorf("%+v", got)
			}
		}
		if status, got := r.withKey(k.Secret, http.MethodGet, "/api/v1/members"); status != 401 || got["code"] != codeKeyInvalid {
			t.Errorf("%d %v", status, got)
		}
	})
	t.Run("expires", func(t *testing.T) {
		got := into[wire.APIKeyCreated](b, b.call(wire.TypeAPIKeyCreate, map[string]any{"label": "x", "capabilities": []string{"read"}, "expiresAt": "2026-11-22T12:00:05.000Z"}))
		if status, _ := r.withKey(got.Secret, http.MethodGet, "/api/v1/members"); status != 200 {
			t.Errorf("%d", status)
		}
		clock.Advance(5 * time.Second)
		if status, _ := r.withKey(got.Secret, http.MethodGet, "/api/v1/members"); status != 401 {
			t.Errorf("%d", status)
		}
	})
	t.Run("may make so many requests at once and then has to wait", func(t *testing.T) {
		k := b.newKey("read")
		for range keyBurst {
			if status, got := r.withKey(k.Secret, http.MethodGet, "/api/v1/peers"); status != 200 {
				t.Fatalf("%d %v", status, got)
			}
		}
		if status, got := r.withKey(k.Secret, http.MethodGet, "/api/v1/peers"); status != 429 || got["code"] != codeKeyRate {
			t.Errorf("%d %v", status, got)
		}
		clock.Advance(time.Second)
		if status, _ := r.withKey(k.Secret, http.MethodGet, "/api/v1/peers"); status != 200 {
			t.Errorf("%d", status)
		}
	})
	t.Run("a member has no more than so many, and dead ones make room", func(t *testing.T) {
		dave := r.member(r.addMember("dave"))
		for i := range 3 * keysPerMember {
			clock.Advance(time.Millisecond)
			k := into[wire.APIKeyCreated](dave, dave.call(wire.TypeAPIKeyCreate, map[string]any{"label": fmt.Sprint(i), "capabilities": []string{"read"}}))
			if i >= keysPerMember {
				dave.call(wire.TypeAPIKeyRevoke, map[string]any{"id": k.ID})
			}
			if i == keysPerMember-1 {
				dave.refusedWith(wire.CodeLimit, wire.TypeAPIKeyCreate, map[string]any{"label": "x", "capabilities": []string{"read"}})
				dave.call(wire.TypeAPIKeyRevoke, map[string]any{"id": k.ID})
			}
		}
		keys := dave.keys()
		if len(keys) != 2*keysPerMember-1 || keys[0].Label != fmt.Sprint(3*keysPerMember-1) {
			t.Errorf("%d keys, the newest %s", len(keys), keys[0].Label)
		}
	})
}
