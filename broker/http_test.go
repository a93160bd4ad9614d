package broker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/jonboulle/clockwork"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// post sends a JSON body and returns status and answer.
func (r *rig) post(path, token string, body any) (int, map[string]any) {
	r.t.Helper()
	data, ok := body.([]byte)
	if !ok {
		data = mustJSON(r.t, body)
	}
	req, err := http.NewRequest(http.MethodPost, r.http.URL+path, bytes.NewReader(data))
	if err != nil {
		r.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
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
	if res.Header.Get("Access-Control-Allow-Origin") != "" {
		r.t.Error("a CORS header")
	}
	return res.StatusCode, out
}

// invite makes an invite of the rig's mesh; it is not registered.
func (r *rig) invite(edit ...func(*mesh.Invite)) (mesh.Invite, string) {
	r.t.Helper()
	in := mesh.Invite{
		MeshID: r.mesh.ID, MeshSlug: r.mesh.Slug, BrokerURL: r.mesh.BrokerURL, ExpiresAt: r.now().Add(time.Hour).Unix(),
		MeshRootKey: base64.RawURLEncoding.EncodeToString(make([]byte, 32)), Role: "member",
	}
	owner := r.owner
	for _, e := range edit {
		e(&in)
	}
	in, token, err := mesh.NewInvite(owner, in)
	if err != nil {
		r.t.Fatal(err)
	}
	return in, token
}

func joinBody(in mesh.Invite, token string, key, name string) map[string]any {
	return map[string]any{"invite_token": token, "invite_payload": in, "peer_pubkey": key, "display_name": name}
}

func (c *client) register(token string, uses int) {
	c.t.Helper()
	if got := into[wire.InviteCreated](c, c.call(wire.TypeInviteCreate, map[string]any{"invite_token": token, "max_uses": uses})); got.Type != wire.TypeInviteCreated || got.MaxUses != uses {
		c.t.Fatalf("%+v", got)
	}
}

func TestJoin(t *testing.T) {
	clock, useClock := fakeClock(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))
	r := newRig(t, useClock)
	owner := r.member(r.owner)
	in, token := r.invite()
	owner.register(token, 2)
	bob, carol, dave := newIdentity(t), newIdentity(t), newIdentity(t)
	forged := in
	forged.Role = "admin"
	stranger := newIdentity(t)
	otherOwner, otherToken, err := mesh.NewInvite(stranger, in)
	if err != nil {
		t.Fatal(err)
	}
	unknownMesh, unknownToken := r.invite(func(i *mesh.Invite) { i.MeshID = "unknown" })
	unregistered, unregisteredToken := r.invite(func(i *mesh.Invite) { i.Role = "admin" })
	short, shortToken := r.invite(func(i *mesh.Invite) { i.ExpiresAt = r.now().Add(time.Minute).Unix() })
	owner.register(shortToken, 5)

	var bobID any
	t.Run("with a registered invite", func(t *testing.T) {
		status, got := r.post("/join", "", joinBody(in, token, bob.PublicKey(), "bob"))
		if bobID = got["memberId"]; status != 200 || got["ok"] != true || !validID(bobID.(string)) || got["alreadyMember"] != nil {
			t.Fatalf("%d %v", status, got)
		}
		r.member(bob)
	})
	t.Run("again, without using it up", func(t *testing.T) {
		for range 3 {
			if status, got := r.post("/join", "", joinBody(in, token, bob.PublicKey(), "bob")); status != 200 || got["memberId"] != bobID || got["alreadyMember"] != true {
				t.Fatalf("%d %v", status, got)
			}
		}
	})
	for _, tc := range []struct {
		name string
		body any
		want string
	}{
		{"without fields", map[string]any{"invite_token": "bogus"}, "invite_token, invite_payload, peer_pubkey, display_name required"},
		{"with a bad key", joinBody(in, token, "xx", "d"), "peer_pubkey must be 64 hex chars (32 bytes)"},
		{"with a name of control characters", joinBody(in, token, dave.PublicKey(), "a\x1b[2J"), string(joinBadName)},
		{"with a forged payload", joinBody(forged, token, dave.PublicKey(), "d"), "invite_bad_signature"},
		{"with a payload and a token of different invites", joinBody(in, unregisteredToken, dave.PublicKey(), "d"), "invite_bad_signature"},
		{"with a token that is none", joinBody(in, "bogus", dave.PublicKey(), "d"), "invite_bad_signature"},
		{"with a payload that is none", map[string]any{"invite_token": token, "invite_payload": 7, "peer_pubkey": dave.PublicKey(), "display_name": "d"}, "invite_bad_signature"},
		{"into an unknown mesh", joinBody(unknownMesh, unknownToken, dave.PublicKey(), "d"), "mesh_not_found"},
		{"with an invite by somebody else", joinBody(otherOwner, otherToken, dave.PublicKey(), "d"), "invite_owner_mismatch"},
		{"with an invite nobody registered", joinBody(unregistered, unregisteredToken, dave.PublicKey(), "d"), "invite_not_found"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if status, got := r.post("/join", "", tc.body); status != 400 || got["ok"] != false || got["error"] != tc.want {
				t.Errorf("%d %v", status, got)
			}
		})
	}
	t.Run("after its expiry", func(t *testing.T) {
		clock.Advance(2 * time.Minute)
		if _, got := r.post("/join", "", joinBody(short, shortToken, dave.PublicKey(), "d")); got["error"] != "invite_expired" {
			t.Errorf("%v", got)
		}
	})
	t.Run("the last use goes to one of many", func(t *testing.T) {
		var wg sync.WaitGroup
		won := make([]bool, 8)
		for i := range won {
			key := newIdentity(t)
			wg.Go(func() {
				status, got := r.post("/join", "", joinBody(in, token, key.PublicKey(), fmt.Sprint("p", i)))
				if won[i] = status == 200; !won[i] && got["error"] != "invite_exhausted" {
					t.Errorf("%d %v", status, got)
				}
			})
		}
		wg.Wait()
		n := 0
		for _, w := range won {
			if w {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d got in", n)
		}
	})
	t.Run("everything survives a restart", func(t *testing.T) {
		r.restart()
		r.member(bob)
		if _, got := r.post("/join", "", joinBody(in, token, carol.PublicKey(), "c")); got["error"] != "invite_exhausted" {
			t.Errorf("%v", got)
		}
	})
	t.Run("a removed member stays out", func(t *testing.T) {
		if err := r.broker.RevokeMember(t.Context(), r.mesh.ID, bob.PublicKey()); err != nil {
			t.Fatal(err)
		}
		if _, got := r.post("/join", "", joinBody(in, token, bob.PublicKey(), "bob")); got["error"] != "member_revoked" {
			t.Errorf("%v", got)
		}
	})
	t.Run("a body over the limit is refused", func(t *testing.T) {
		if status, _ := r.post("/join", "", bytes.Repeat([]byte(" "), maxBody+1)); status != 413 {
			t.Errorf("status %d", status)
		}
	})
}

func TestOnlyTheOwnerRegistersInvites(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	owner := r.member(r.owner)
	_, token := r.invite()
	_, other := r.invite(func(i *mesh.Invite) { i.MeshID = "other" })
	_, long := r.invite(func(i *mesh.Invite) { i.ExpiresAt = r.now().Add(91 * 24 * time.Hour).Unix() })
	_, old := r.invite(func(i *mesh.Invite) { i.ExpiresAt = r.now().Add(-time.Minute).Unix() })
	for _, tc := range []struct {
		name, token, code string
		by                *client
	}{
		{"not another member", token, wire.CodeForbidden, r.member(bob)},
		{"not a session of the owner", token, wire.CodeForbidden, r.session(r.owner, newIdentity(t))},
		{"not for another mesh", other, wire.CodeInvalid, owner},
		{"not for more than 90 days", long, wire.CodeTTLTooLong, owner},
		{"not for the past", old, wire.CodeExpired, owner},
		{"not a token with another signature", token[:len(token)-6] + "AAAAAA", wire.CodeInvalid, owner},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if e := into[wire.Error](tc.by, tc.by.call(wire.TypeInviteCreate, map[string]any{"invite_token": tc.token, "max_uses": 1})); e.Code != tc.code {
				t.Errorf("%+v", e)
			}
		})
	}
	t.Run("twice is once", func(t *testing.T) {
		owner.register(token, 1)
		owner.register(token, 1)
	})
}

func TestCreateMeshOverHTTP(t *testing.T) {
	r := newRig(t, func(c *Config) { c.AdminTokenHash = sha256.Sum256([]byte("secret")) })
	key := newIdentity(t).PublicKey()
	body := map[string]any{"name": "My Mesh", "pubkey": key, "display_name": "zoe"}
	for _, tc := range []struct {
		name, token string
		body        any
		status      int
		want        string
	}{
		{"without token", "", body, 401, "missing_bearer_token"},
		{"with a wrong one", "guess", body, 401, "invalid_or_revoked_token"},
		{"without name", "secret", map[string]any{"pubkey": key}, 400, "name required"},
		{"without key", "secret", map[string]any{"name": "x"}, 400, "pubkey required (64 hex chars)"},
		{"with a body that is not JSON", "secret", []byte("{"), 400, "body is not the expected JSON"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if status, got := r.post("/cli/mesh/create", tc.token, tc.body); status != tc.status || got["error"] != tc.want {
				t.Errorf("%d %v", status, got)
			}
		})
	}
	t.Run("makes a mesh with a slug of its own", func(t *testing.T) {
		for _, want := range []string{"my-mesh", "my-mesh-2", "my-mesh-3"} {
			status, got := r.post("/cli/mesh/create", "secret", body)
			if status != 200 || got["slug"] != want || got["name"] != "My Mesh" || !validID(got["id"].(string)) || !validID(got["member_id"].(string)) {
				t.Errorf("%d %v", status, got)
			}
		}
		all, err := r.broker.Meshes(t.Context())
		if err != nil || len(all) != 4 || all[0].Slug != "my-mesh" || all[0].Members != 1 {
			t.Errorf("%+v %v", all, err)
		}
	})
	t.Run("is closed without an admin token", func(t *testing.T) {
		closed := newRig(t)
		if status, got := closed.post("/cli/mesh/create", "secret", body); status != 403 || got["error"] != "mesh_create_disabled" {
			t.Errorf("%d %v", status, got)
		}
	})
}

func TestRoutes(t *testing.T) {
	r := newRig(t)
	get := func(method, path string) (int, string) {
		req, err := http.NewRequest(method, r.http.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := r.http.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		data, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(data)
	}
	if status, body := get("GET", "/health"); status != 200 || !strings.Contains(body, `"db":"up"`) || !strings.Contains(body, `"version":"test"`) {
		t.Errorf("%d %s", status, body)
	}
	if status, body := get("GET", "/health/ready"); status != 200 || !strings.Contains(body, `"status":"ready"`) {
		t.Errorf("%d %s", status, body)
	}
	for _, tc := range []string{"GET /nope", "POST /health", "GET /join", "GET /ws/", "GET /", "OPTIONS /join"} {
		method, path, _ := strings.Cut(tc, " ")
		if status, body := get(method, path); status != 404 || body != "not found" {
			t.Errorf("%s: %d %s", tc, status, body)
		}
	}
	t.Run("a page of another origin gets no socket", func(t *testing.T) {
		_, res, err := websocket.DefaultDialer.Dial(r.wsURL(), http.Header{"Origin": {"https://evil.example"}})
		if err == nil || res == nil || res.StatusCode != 403 {
			t.Errorf("%v %v", res, err)
		}
	})
}

func TestServeOverMemoryAndTCP(t *testing.T) {
	store, err := bus.StartStore(t.TempDir(), nil, 2<<30)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { store.Shutdown(context.Background()) }()
	nc, err := store.BrokerConn()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	b, err := Open(t.Context(), Config{NC: nc})
	if err != nil {
		t.Fatal(err)
	}
	owner := newIdentity(t)
	m, err := b.CreateMesh(t.Context(), "m", owner.PublicKey(), "")
	if err != nil {
		t.Fatal(err)
	}
	pipe := NewPipeListener()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, b, pipe, tcp) }()

	clients := []*client{}
	for i, d := range []websocket.Dialer{{NetDialContext: pipe.Dial}, {}} {
		ws, _, err := d.DialContext(t.Context(), "ws://"+tcp.Addr().String()+"/ws", nil)
		if err != nil {
			t.Fatal(err)
		}
		c := adopt(t, ws)
		c.write(wire.SignHello(wire.Hello{MeshID: m.ID, MemberID: m.MemberID, SessionID: fmt.Sprint(i), PID: 1}, owner, clockwork.NewRealClock().Now()))
		c.wait(wire.TypeHelloAck)
		clients = append(clients, c)
	}
	stop()
	for _, c := range clients {
		if code, reason := c.closed(); code != websocket.CloseGoingAway || reason != "shutting down" {
			t.Errorf("closed with %d %q", code, reason)
		}
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if _, err := pipe.Dial(t.Context(), "", ""); err == nil {
		t.Error("dialled a closed listener")
	}
	if _, err := b.CreateMesh(t.Context(), "m", owner.PublicKey(), ""); err == nil {
		t.Error("created a mesh on a closed broker")
	}
}
