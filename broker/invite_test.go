package broker

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// share registers an invite with token and capability and returns what the broker says, and the token.
func (r *rig) share(owner *client, uses int, edit ...func(*wire.InviteCreate)) (wire.InviteCreated, string) {
	r.t.Helper()
	in, token := r.invite()
	f := wire.InviteCreate{Token: token, MaxUses: uses, InviteID: mustID(r.t), Role: in.Role, ExpiresAt: in.ExpiresAt}
	for _, e := range edit {
		e(&f)
	}
	f.SignatureV2 = r.owner.Sign(mesh.InviteV2String(r.mesh.ID, f.InviteID, f.ExpiresAt, f.Role, r.owner.PublicKey()))
	got := into[wire.InviteCreated](owner, owner.ask(wire.TypeInviteCreate, f))
	if got.Type != wire.TypeInviteCreated || len(got.Code) != mesh.CodeLength || len(got.ID) != 16 {
		r.t.Fatalf("%+v", got)
	}
	return got, f.Token
}

func withoutToken(f *wire.InviteCreate) { f.Token = "" }

// httpGet fetches a path and returns status and answer.
func (r *rig) httpGet(path string) (int, map[string]any) {
	return r.fetch(http.MethodGet, path, "", nil)
}

func TestCodes(t *testing.T) {
	clock, useClock := fakeClock(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))
	r := newRig(t, useClock)
	owner := r.member(r.owner)
	both, token := r.share(owner, 2)
	bare, _ := r.share(owner, 1, withoutToken)

	resolves := func(code, want string) {
		t.Helper()
		status, got := r.httpGet("/api/public/invite-code/" + code)
		switch {
		case want == "" && (status != 404 || got["found"] != false || got["token"] != nil):
			t.Errorf("%s: %d %v", code, status, got)
		case want != "" && (status != 200 || got["found"] != true || got["token"] != want):
			t.Errorf("%s: %d %v", code, status, got)
		}
	}
	t.Run("a code stands for the token, in any case", func(t *testing.T) {
		resolves(both.Code, token)
		resolves(strings.ToLower(both.Code), token)
		if both.URL != "http://127.0.0.1:1/i/"+both.Code {
			t.Errorf("url %s", both.URL)
		}
	})
	t.Run("a code without a token says that it is for a claim", func(t *testing.T) {
		if status, got := r.httpGet("/api/public/invite-code/" + bare.Code); status != 200 || got["found"] != true || got["token"] != nil || got["version"] != 2.0 {
			t.Errorf("%d %v", status, got)
		}
	})
	t.Run("the page names mesh and command and never the token", func(t *testing.T) {
		body := r.text("/i/" + both.Code)
		if !strings.Contains(body, "Test mesh") || !strings.Contains(body, "claudemesh join http://127.0.0.1:1/i/"+both.Code) || strings.Contains(body, token) {
			t.Error(body)
		}
		if body := r.text("/i/AAAAAAAA"); !strings.Contains(body, "not good") {
			t.Error(body)
		}
	})
	t.Run("the same invite again has the same code", func(t *testing.T) {
		again := into[wire.InviteCreated](owner, owner.ask(wire.TypeInviteCreate, wire.InviteCreate{Token: token, MaxUses: 9}))
		if again.Code != both.Code || again.MaxUses != 2 {
			t.Errorf("%+v", again)
		}
	})
	t.Run("codes survive a restart, invites of the first form too", func(t *testing.T) {
		_, old := r.invite(func(i *mesh.Invite) { i.Role = "admin" })
		rec := inviteRecord{MeshID: r.mesh.ID, Role: "admin", Expires: r.now().Add(time.Hour).Unix(), MaxUses: 1}
		if err := r.broker.store.put(t.Context(), "invite."+tokenHash(old), rec); err != nil {
			t.Fatal(err)
		}
		r.restart()
		owner = r.member(r.owner)
		resolves(both.Code, token)
		in, _, err := mesh.ParseInvite(old)
		if err != nil {
			t.Fatal(err)
		}
		if status, got := r.post("/join", "", joinBody(in, old, newIdentity(t).PublicKey(), "x")); status != 200 {
			t.Errorf("%d %v", status, got)
		}
	})
	t.Run("the list tells uses and never a token", func(t *testing.T) {
		in, _, err := mesh.ParseInvite(token)
		if err != nil {
			t.Fatal(err)
		}
		r.post("/join", "", joinBody(in, token, newIdentity(t).PublicKey(), "x"))
		data := owner.call(wire.TypeInviteList, map[string]any{})
		list := into[wire.Invites](owner, data)
		i := slices.IndexFunc(list.Invites, func(i wire.InviteInfo) bool { return i.ID == both.ID })
		if len(list.Invites) != 3 || i < 0 || list.Invites[i].Used != 1 || list.Invites[i].Code != both.Code || strings.Contains(string(data), token) {
			t.Errorf("%s", data)
		}
	})
	t.Run("a revoked one resolves to nothing and lets nobody in", func(t *testing.T) {
		got := into[wire.InviteRevoked](owner, owner.ask(wire.TypeInviteRevoke, wire.InviteRevoke{Invite: strings.ToLower(both.Code)}))
		if got.Type != wire.TypeInviteRevoked || !got.Was.Revoked {
			t.Errorf("%+v", got)
		}
		resolves(both.Code, "")
		in, _, err := mesh.ParseInvite(token)
		if err != nil {
			t.Fatal(err)
		}
		if _, got := r.post("/join", "", joinBody(in, token, newIdentity(t).PublicKey(), "x")); got["error"] != "invite_revoked" {
			t.Errorf("%v", got)
		}
		if e := into[wire.Error](owner, owner.ask(wire.TypeInviteRevoke, wire.InviteRevoke{Invite: "nope"})); e.Code != wire.CodeNotFound {
			t.Errorf("%+v", e)
		}
	})
	t.Run("an expired one is forgotten after a day", func(t *testing.T) {
		clock.Advance(25*time.Hour + keepDeadInvite)
		if list := into[wire.Invites](owner, owner.call(wire.TypeInviteList, map[string]any{})); len(list.Invites) != 0 || len(r.broker.codes) != 0 {
			t.Errorf("%+v", list)
		}
	})
	t.Run("one address cannot try many codes", func(t *testing.T) {
		clock.Advance(time.Hour)
		refusedAt := 0
		for i := range codeLookups + 1 {
			if status, _ := r.httpGet("/api/public/invite-code/ZZZZZZZZ"); status == http.StatusTooManyRequests {
				refusedAt = i
			}
		}
		if refusedAt != codeLookups {
			t.Errorf("refused at %d", refusedAt)
		}
		if status, _ := r.fetch(http.MethodPost, "/invites/ZZZZZZZZ/claim", "", map[string]any{}); status != http.StatusTooManyRequests {
			t.Errorf("a claim is not counted: %d", status)
		}
		clock.Advance(codeLookupEvery)
		if status, _ := r.httpGet("/api/public/invite-code/ZZZZZZZZ"); status != 404 {
			t.Errorf("still refused: %d", status)
		}
	})
}

func TestClaim(t *testing.T) {
	clock, useClock := fakeClock(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))
	r := newRig(t, useClock)
	owner := r.member(r.owner)
	inv, _ := r.share(owner, 2, withoutToken)
	claim := func(code string, body map[string]any) (int, map[string]any) {
		clock.Advance(time.Minute) // out of the limit's way
		return r.fetch(http.MethodPost, "/invites/"+code+"/claim", "", body)
	}
	used := func() int {
		return into[wire.Invites](owner, owner.call(wire.TypeInviteList, map[string]any{})).Invites[0].Used
	}
	bob := newIdentity(t)
	for _, tc := range []struct {
		name   string
		code   string
		body   map[string]any
		status int
		want   string
	}{
		{"without the member's key", inv.Code, map[string]any{"recipient_x25519_pubkey": base64.RawURLEncoding.EncodeToString(make([]byte, 32))}, 400, "malformed"},
		{"with a weak key to seal for", inv.Code, map[string]any{"peer_pubkey": bob.PublicKey(), "recipient_x25519_pubkey": base64.RawURLEncoding.EncodeToString(make([]byte, 32))}, 400, "malformed"},
		{"with a key that is no point", inv.Code, map[string]any{"peer_pubkey": strings.Repeat("0", 64)}, 400, "malformed"},
		{"with a name of control characters", inv.Code, map[string]any{"peer_pubkey": bob.PublicKey(), "display_name": "a\x07"}, 400, "malformed"},
		{"of an unknown code", "ZZZZZZZZ", map[string]any{"peer_pubkey": bob.PublicKey()}, 404, "not_found"},
	} {
		t.Run(tc.name+" is refused and uses nothing up", func(t *testing.T) {
			if status, got := claim(tc.code, tc.body); status != tc.status || got["error"] != tc.want {
				t.Errorf("%d %v", status, got)
			}
			if n := used(); n != 0 {
				t.Errorf("%d uses", n)
			}
		})
	}
	t.Run("makes a member that can say hello", func(t *testing.T) {
		status, got := claim(inv.Code, map[string]any{"peer_pubkey": bob.PublicKey(), "display_name": "bob"})
		if status != 200 || got["mesh_id"] != r.mesh.ID || got["peer_pubkey"] != bob.PublicKey() || got["member_id"] != r.memberID(bob) {
			t.Fatalf("%d %v", status, got)
		}
		root, err := mesh.OpenRootKey(bob, got["sealed_root_key"].(string))
		if err != nil || len(root) != 32 {
			t.Errorf("%x %v", root, err)
		}
		if !mesh.VerifySignature(r.owner.PublicKey(), []byte(got["canonical_v2"].(string)), got["signature"].(string)) {
			t.Errorf("not signed by the owner: %v", got)
		}
		r.member(bob)
	})
	t.Run("again by the same key uses nothing up", func(t *testing.T) {
		if status, got := claim(inv.Code, map[string]any{"peer_pubkey": bob.PublicKey()}); status != 200 || got["already_member"] != true || used() != 1 {
			t.Errorf("%d %v", status, got)
		}
	})
	t.Run("ends with the uses", func(t *testing.T) {
		claim(inv.Code, map[string]any{"peer_pubkey": newIdentity(t).PublicKey()})
		if status, got := claim(inv.Code, map[string]any{"peer_pubkey": newIdentity(t).PublicKey()}); status != 410 || got["error"] != "exhausted" {
			t.Errorf("%d %v", status, got)
		}
	})
	t.Run("a banned key stays out", func(t *testing.T) {
		if err := r.broker.RevokeMember(t.Context(), r.mesh.ID, bob.PublicKey()); err != nil {
			t.Fatal(err)
		}
		if status, got := claim(inv.Code, map[string]any{"peer_pubkey": bob.PublicKey()}); status != 403 || got["error"] != "member_revoked" {
			t.Errorf("%d %v", status, got)
		}
	})
	t.Run("only the owner's signature makes a capability", func(t *testing.T) {
		f := wire.InviteCreate{MaxUses: 1, InviteID: "x1", Role: "admin", ExpiresAt: r.now().Add(time.Hour).Unix()}
		f.SignatureV2 = bob.Sign(mesh.InviteV2String(r.mesh.ID, f.InviteID, f.ExpiresAt, f.Role, r.owner.PublicKey()))
		if e := into[wire.Error](owner, owner.ask(wire.TypeInviteCreate, f)); e.Code != wire.CodeBadSignature {
			t.Errorf("%+v", e)
		}
	})
}

func TestAddressesThatAreCounted(t *testing.T) {
	r := newRig(t, func(c *Config) { c.TrustedProxies = prefixes(t, "10.0.0.0/8", "127.0.0.1/32") })
	for _, tc := range []struct{ name, remote, forwarded, want string }{
		{"the socket's", "192.0.2.7:1", "", "192.0.2.7/32"},
		{"the socket's, whatever a stranger forwards", "192.0.2.7:1", "198.51.100.1", "192.0.2.7/32"},
		{"what a trusted proxy says", "127.0.0.1:1", "198.51.100.1", "198.51.100.1/32"},
		{"the last that no trusted proxy is", "127.0.0.1:1", "1.1.1.1, 198.51.100.1, 10.1.2.3", "198.51.100.1/32"},
		{"the proxy's, when it says nothing", "127.0.0.1:1", "", "127.0.0.1/32"},
		{"half of an IPv6 address", "[2001:db8::1]:1", "", "2001:db8::/64"},
		{"nobody's inside the process", "pipe", "", "invalid Prefix"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := &http.Request{RemoteAddr: tc.remote, Header: http.Header{}}
			if tc.forwarded != "" {
				req.Header.Set("X-Forwarded-For", tc.forwarded)
			}
			if got := r.broker.clientOf(req).String(); got != tc.want {
				t.Errorf("%s", got)
			}
		})
	}
}
