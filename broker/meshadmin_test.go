package broker

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// fetch sends a request and returns status and JSON answer; auth is the Authorization header.
func (r *rig) fetch(method, path, auth string, body any) (int, map[string]any) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.http.URL+path, bytes.NewReader(mustJSON(r.t, body)))
	if err != nil {
		r.t.Fatal(err)
	}
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	res, err := r.http.Client().Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	var out map[string]any
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, out
}

// as sends a request signed by a member.
func (r *rig) as(who mesh.Identity, method, path string, body any) (int, map[string]any) {
	r.t.Helper()
	sum := sha256.Sum256(mustJSON(r.t, body))
	return r.fetch(method, path, mesh.SignHTTP(who, method, path, r.mesh.ID, hex.EncodeToString(sum[:]), r.now()), body)
}

func (r *rig) text(path string) string {
	r.t.Helper()
	res, err := r.http.Client().Get(r.http.URL + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(body)
}

func prefixes(t testing.TB, all ...string) (out []netip.Prefix) {
	t.Helper()
	for _, s := range all {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

func TestRename(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	owner := r.member(r.owner)
	if _, err := r.broker.CreateMesh(t.Context(), "taken", newIdentity(t).PublicKey(), ""); err != nil {
		t.Fatal(err)
	}
	t.Run("by a frame", func(t *testing.T) {
		if got := into[wire.MeshRenamed](owner, owner.ask(wire.TypeMeshRename, wire.MeshRename{Slug: "new-slug", Name: "New"})); got.Slug != "new-slug" || got.Name != "New" {
			t.Errorf("%+v", got)
		}
	})
	for _, tc := range []struct {
		name string
		by   *client
		slug string
		code string
	}{
		{"to a slug that is taken", owner, "taken", wire.CodeConflict},
		{"to what is no slug", owner, "No Slug", wire.CodeInvalid},
		{"to nothing", owner, "", wire.CodeInvalid},
		{"by another member", r.member(bob), "mine", wire.CodeForbidden},
		{"by a session of the owner", r.session(r.owner, newIdentity(t)), "mine", wire.CodeForbidden},
	} {
		t.Run("not "+tc.name, func(t *testing.T) {
			if e := into[wire.Error](tc.by, tc.by.ask(wire.TypeMeshRename, wire.MeshRename{Slug: tc.slug})); e.Code != tc.code {
				t.Errorf("%+v", e)
			}
		})
	}
	t.Run("over HTTP, signed by the owner", func(t *testing.T) {
		if status, got := r.as(r.owner, http.MethodPatch, "/api/cli/meshes/new-slug", map[string]any{"slug": "third"}); status != 200 || got["slug"] != "third" {
			t.Errorf("%d %v", status, got)
		}
		for _, tc := range []struct {
			who    mesh.Identity
			path   string
			slug   string
			status int
		}{
			{r.owner, "third", "taken", 409},
			{r.owner, "third", "x", 400},
			{r.owner, "taken", "fourth", 404},
			{bob, "third", "fourth", 403},
			{newIdentity(t), "third", "fourth", 401},
		} {
			if status, got := r.as(tc.who, http.MethodPatch, "/api/cli/meshes/"+tc.path, map[string]any{"slug": tc.slug}); status != tc.status {
				t.Errorf("%+v: %d %v", tc, status, got)
			}
		}
	})
	t.Run("and stays so", func(t *testing.T) {
		r.restart()
		status, got := r.as(bob, http.MethodGet, "/cli/meshes", nil)
		rows, _ := got["meshes"].([]any)
		if status != 200 || len(rows) != 1 {
			t.Fatalf("%d %v", status, got)
		}
		row := rows[0].(map[string]any)
		if row["slug"] != "third" || row["name"] != "New" || row["role"] != "member" || row["is_owner"] != false || row["member_count"] != 2.0 || row["owner_name"] != "alice" {
			t.Errorf("%v", row)
		}
	})
}

// holds reports what the store still has of a mesh, gravestone aside.
func (r *rig) holds(meshID string) (found []string) {
	r.t.Helper()
	names := r.broker.store.js.StreamNames(r.t.Context())
	for name := range names.Name() {
		stream, err := r.broker.store.js.Stream(r.t.Context(), name)
		if err != nil {
			r.t.Fatal(err)
		}
		info, err := stream.Info(r.t.Context(), jetstream.WithSubjectFilter(">"))
		if err != nil {
			r.t.Fatal(err)
		}
		for subject := range info.State.Subjects {
			if strings.Contains(subject, meshID) && !strings.Contains(subject, gonePrefix) {
				found = append(found, name+" "+subject)
			}
		}
	}
	return found
}

func (r *rig) waitPurged(meshID string) {
	r.t.Helper()
	r.until("the gravestone says that all is gone", func() bool {
		r.broker.mu.RLock()
		defer r.broker.mu.RUnlock()
		return r.broker.gone[meshID].Purged
	})
}

func TestDelete(t *testing.T) {
	for _, crash := range []bool{false, true} {
		name := "at once"
		if crash {
			name = "by the next start, when the purge was interrupted"
		}
		t.Run("nothing of a deleted mesh stays, "+name, func(t *testing.T) {
			r := newRig(t)
			bob := r.addMember("bob")
			owner, peer := r.member(r.owner), r.session(bob, newIdentity(t))
			other, err := r.broker.CreateMesh(t.Context(), "other", r.owner.PublicKey(), "")
			if err != nil {
				t.Fatal(err)
			}
			r.share(owner, 1)
			owner.write(wire.Send{Type: wire.TypeSend, ID: "1", TargetSpec: bob.PublicKey(), Priority: "next", Nonce: "AA==", Ciphertext: "AA==", ClientMessageID: "1"})
			owner.wait(wire.TypeAck)
			r.mailIn(r.mailboxOf(bob), 1)
			// Stores of other families keep to the same shapes.
			s := r.broker.store
			if err := s.putRecord(t.Context(), recordKey("state", r.mesh.ID, "k"), 1); err != nil {
				t.Fatal(err)
			}
			if err := s.putRecord(t.Context(), recordKey("state", other.ID, "k"), 1); err != nil {
				t.Fatal(err)
			}
			if got := owner.call(wire.TypeSchedule, map[string]any{"to": "*", "message": "later", "deliverAt": r.now().Add(time.Hour).UnixMilli()}); !strings.Contains(string(got), "scheduledId") {
				t.Fatalf("%s", got)
			}
			owner.call(wire.TypeRemember, map[string]any{"content": "a secret worth remembering"})
			if hits, err := r.broker.memories.search(t.Context(), r.mesh.ID, familyMemory, "secret", 9); err != nil || len(hits) != 1 {
				t.Fatalf("%v %v", hits, err)
			}
			if _, err := s.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "X", Subjects: []string{"x.>"}}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.js.Publish(t.Context(), "x."+r.mesh.ID+".a.b", nil); err != nil {
				t.Fatal(err)
			}
			r.mustUpload(upload{who: bob, body: []byte("content")})
			if e := into[wire.Error](owner, owner.ask(wire.TypeMeshDelete, wire.MeshDelete{Slug: "wrong"})); e.Code != wire.CodeConflict {
				t.Errorf("%+v", e)
			}
			if crash {
				if err := s.put(t.Context(), goneKey(r.mesh.ID), goneRecord{Slug: r.mesh.Slug}); err != nil {
					t.Fatal(err)
				}
				r.restart()
			} else {
				if got := into[wire.MeshDeleted](owner, owner.ask(wire.TypeMeshDelete, wire.MeshDelete{Slug: r.mesh.Slug})); got.Deleted != r.mesh.Slug {
					t.Errorf("%+v", got)
				}
				for _, c := range []*client{owner, peer} {
					if code, reason := c.closed(); code != wire.CloseBanned || reason != wire.CodeMeshDeleted {
						t.Errorf("closed with %d %q", code, reason)
					}
				}
			}
			r.waitPurged(r.mesh.ID)
			if left := r.holds(r.mesh.ID); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			if n := r.stored(); n != 0 {
				t.Errorf("%d messages of files are left", n)
			}
			if hits, err := r.broker.view.Search(t.Context(), r.mesh.ID, familyMemory, "secret", 9); err != nil || len(hits) != 0 {
				t.Errorf("the search view has %v, %v", hits, err)
			}
			if r.broker.store.depth.get(r.mailboxOf(bob)) != 0 || len(r.broker.codes) != 0 {
				t.Error("counts or codes are left")
			}
			if n := len(r.broker.timers.all); n != 0 {
				t.Errorf("%d timers are left", n)
			}
			if _, err := getRecord[int](t.Context(), r.broker.store, recordKey("state", other.ID, "k")); err != nil {
				t.Errorf("the other mesh lost a record: %v", err)
			}
			t.Run("its members are told why they are turned away, also after a restart", func(t *testing.T) {
				r.restart()
				c := r.dial()
				c.write(r.helloFrame(bob))
				if e := into[wire.Error](c, c.wait(wire.TypeError)); e.Code != wire.CodeMeshDeleted {
					t.Errorf("%+v", e)
				}
				if code, reason := c.closed(); code != wire.CloseBanned || reason != wire.CodeMeshDeleted {
					t.Errorf("closed with %d %q", code, reason)
				}
				if status, got := r.as(bob, http.MethodGet, "/cli/meshes", nil); status != 410 || got["error"] != wire.CodeMeshDeleted {
					t.Errorf("%d %v", status, got)
				}
			})
			t.Run("its slug is free again", func(t *testing.T) {
				if m, err := r.broker.CreateMesh(t.Context(), "Test mesh", r.owner.PublicKey(), ""); err != nil || m.Slug != r.mesh.Slug {
					t.Errorf("%+v %v", m, err)
				}
			})
		})
	}
	t.Run("over HTTP, by the owner only", func(t *testing.T) {
		r := newRig(t)
		bob := r.addMember("bob")
		peer := r.member(bob)
		if status, _ := r.as(bob, http.MethodDelete, "/cli/mesh/"+r.mesh.Slug, nil); status != 403 {
			t.Errorf("status %d", status)
		}
		if status, _ := r.as(r.owner, http.MethodDelete, "/cli/mesh/else", nil); status != 404 {
			t.Errorf("status %d", status)
		}
		if status, got := r.as(r.owner, http.MethodDelete, "/cli/mesh/"+r.mesh.Slug, nil); status != 200 || got["deleted"] != r.mesh.Slug {
			t.Errorf("%d %v", status, got)
		}
		if code, _ := peer.closed(); code != wire.CloseBanned {
			t.Errorf("closed with %d", code)
		}
		r.waitPurged(r.mesh.ID)
	})
}

func TestLeave(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	owner, member, key := r.member(r.owner), r.member(bob), newIdentity(t)
	s := r.session(bob, key)
	t.Run("not by the owner, who alone could undo it", func(t *testing.T) {
		if e := into[wire.Error](owner, owner.call(wire.TypeMeshLeave, map[string]any{})); e.Code != wire.CodeConflict {
			t.Errorf("%+v", e)
		}
	})
	t.Run("not by a session", func(t *testing.T) {
		if e := into[wire.Error](s, s.call(wire.TypeMeshLeave, map[string]any{})); e.Code != wire.CodeForbidden {
			t.Errorf("%+v", e)
		}
	})
	t.Run("ends all connections of the member, and its key is not known any more", func(t *testing.T) {
		if got := into[wire.MeshLeft](member, member.call(wire.TypeMeshLeave, map[string]any{})); got.Type != wire.TypeMeshLeft {
			t.Errorf("%+v", got)
		}
		for _, c := range []*client{member, s} {
			if code, reason := c.closed(); code != wire.CloseBanned || reason != wire.CodeLeft {
				t.Errorf("closed with %d %q", code, reason)
			}
		}
		c := r.dial()
		c.write(r.helloFrame(bob))
		if e := into[wire.Error](c, c.wait(wire.TypeError)); e.Code != wire.CodeUnauthorized {
			t.Errorf("%+v", e)
		}
	})
	t.Run("leaves no record of it in the store", func(t *testing.T) {
		r.until("its records are gone", func() bool {
			for _, k := range []string{memberKey(r.mesh.ID, bob.PublicKey()), stateKey(r.mesh.ID, bob.PublicKey()), sessionKeyKey(r.mesh.ID, key.PublicKey())} {
				if _, err := r.broker.store.meta.Get(t.Context(), k); !errors.Is(err, jetstream.ErrKeyNotFound) {
					return false
				}
			}
			return true
		})
	})
	t.Run("the same key may join again", func(t *testing.T) {
		_, token := r.share(owner, 1)
		in, _, err := mesh.ParseInvite(token)
		if err != nil {
			t.Fatal(err)
		}
		if status, got := r.post("/join", "", joinBody(in, token, bob.PublicKey(), "bob")); status != 200 || got["alreadyMember"] != nil {
			t.Errorf("%d %v", status, got)
		}
		r.member(bob)
	})
}
