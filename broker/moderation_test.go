package broker

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// addAdmin makes an administrator.
func (r *rig) addAdmin(name string) mesh.Identity {
	r.t.Helper()
	who := newIdentity(r.t)
	r.addMemberAs(memberRecord{ID: mustID(r.t), Pubkey: who.PublicKey(), Name: name, Role: "admin"})
	return who
}

func (c *client) kicks(op string, fields map[string]any) wire.KickAck {
	c.t.Helper()
	return into[wire.KickAck](c, c.call(op, fields))
}

// refusedWith asks what must be refused, and checks that the request's id is in both places where clients look for it.
func (c *client) refusedWith(code, op string, fields map[string]any) wire.Error {
	c.t.Helper()
	e := into[wire.Error](c, c.call(op, fields))
	if e.Type != wire.TypeError || e.Code != code || code == wire.CodeTopicNotFound && e.ID != e.ReqID {
		c.t.Errorf("%s %v: %+v, want %s", op, fields, e, code)
	}
	return e
}

func TestKick(t *testing.T) {
	r := newRig(t)
	bob, carol := r.addMember("bob"), r.addMember("carol")
	key, other := newIdentity(t), newIdentity(t)
	named := func(name string) func(*wire.SessionHello) {
		return func(h *wire.SessionHello) { h.DisplayName = name }
	}
	a, b := r.member(r.owner), r.member(bob)

	t.Run("by name ends the session for good and spares the daemon's connection", func(t *testing.T) {
		s := r.session(bob, key)
		got := a.kicks(wire.TypeKick, map[string]any{"target": "bob"})
		if len(got.Kicked) != 1 || got.Kicked[0] != "bob" || len(got.SkippedControlPlane) != 1 {
			t.Errorf("%+v", got)
		}
		if code, why := s.closed(); code != wire.CloseKicked || why != "kicked" {
			t.Errorf("%d %q", code, why)
		}
		a.eventOf(wire.EventPeerLeft, key.PublicKey())
		b.settle()
		if n := len(into[wire.PeersList](a, a.call(wire.TypeListPeers, nil)).Peers); n != 2 {
			t.Errorf("%d peers", n)
		}
	})
	t.Run("by the key of one session, whole or its beginning, meets that session only", func(t *testing.T) {
		for _, target := range []string{key.PublicKey(), key.PublicKey()[:wire.MinKeyPrefix]} {
			s, o := r.session(bob, key, named("x")), r.session(bob, other, named("x"))
			if got := a.kicks(wire.TypeKick, map[string]any{"target": target}); len(got.Kicked) != 1 {
				t.Errorf("%+v", got)
			}
			s.closed()
			o.settle()
			o.close()
		}
	})
	t.Run("a shorter beginning is no key", func(t *testing.T) {
		s := r.session(bob, key)
		if got := a.kicks(wire.TypeKick, map[string]any{"target": key.PublicKey()[:wire.MinKeyPrefix-1]}); len(got.Kicked) != 0 {
			t.Errorf("%+v", got)
		}
		s.settle()
		s.close()
	})
	t.Run("a name that two members use is refused with both", func(t *testing.T) {
		s, o := r.session(bob, key, named("twin")), r.session(carol, newIdentity(t), named("twin"))
		e := a.refusedWith(wire.CodeAmbiguous, wire.TypeKick, map[string]any{"target": "twin"})
		for _, who := range []mesh.Identity{bob, carol} {
			if !strings.Contains(e.Message, who.PublicKey()[:16]) {
				t.Errorf("%q does not name %s", e.Message, who.PublicKey()[:16])
			}
		}
		s.settle()
		o.settle()
		t.Run("and a whole key is not fooled by a name", func(t *testing.T) {
			f := r.session(carol, newIdentity(t), named(bob.PublicKey()))
			if got := a.kicks(wire.TypeKick, map[string]any{"target": bob.PublicKey()}); len(got.Kicked) != 1 || got.Kicked[0] != "twin" {
				t.Errorf("%+v", got)
			}
			f.settle()
		})
	})
	t.Run("all spares the caller's own, and disconnect comes back", func(t *testing.T) {
		mine := r.session(r.owner, newIdentity(t))
		s := r.session(bob, key)
		if got := a.kicks(wire.TypeDisconnect, map[string]any{"all": true}); len(got.Kicked) < 2 || len(got.SkippedControlPlane) != 0 {
			t.Errorf("%+v", got)
		}
		for _, c := range []*client{b, s} {
			if code, why := c.closed(); code != 1000 || why != "disconnected" {
				t.Errorf("%d %q", code, why)
			}
		}
		mine.settle()
		r.session(bob, key)
	})
	t.Run("nobody fits", func(t *testing.T) {
		if got := a.kicks(wire.TypeKick, map[string]any{"target": "nobody"}); got.Type != wire.TypeKickAck || got.Kicked == nil || len(got.Kicked) != 0 {
			t.Errorf("%+v", got)
		}
	})
	t.Run("nothing is said", func(t *testing.T) {
		a.refusedWith(wire.CodeInvalid, wire.TypeKick, nil)
		a.refusedWith(wire.CodeInvalid, wire.TypeKick, map[string]any{"stale": -5})
	})
}

func TestKickStale(t *testing.T) {
	clock, useClock := fakeClock(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))
	r := newRig(t, useClock)
	bob, carol := r.addMember("bob"), r.addMember("carol")
	a := r.member(r.owner)
	old := r.session(bob, newIdentity(t))
	clock.Advance(10 * time.Second)
	fresh := r.session(carol, newIdentity(t))
	got := a.kicks(wire.TypeKick, map[string]any{"stale": 5000})
	if len(got.Kicked) != 1 || got.Kicked[0] != "bob" {
		t.Errorf("%+v", got)
	}
	if code, why := old.closed(); code != wire.CloseKicked || why != "kicked_stale" {
		t.Errorf("%d %q", code, why)
	}
	fresh.settle()
}

func TestModerationWorksDownwards(t *testing.T) {
	r := newRig(t)
	ann, abe, bob := r.addAdmin("ann"), r.addAdmin("abe"), r.addMember("bob")
	owner, admin, member := r.member(r.owner), r.member(ann), r.member(bob)
	second := r.member(abe)
	for _, tc := range []struct {
		name   string
		by     *client
		target string
	}{
		{"an admin and the owner", admin, "alice"},
		{"an admin and another admin", admin, "abe"},
		{"a member and an admin", member, "ann"},
		{"a member and a member", member, "bob"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, op := range []string{wire.TypeKick, wire.TypeDisconnect, wire.TypeBan} {
				tc.by.refusedWith(wire.CodeForbidden, op, map[string]any{"target": tc.target})
			}
		})
	}
	t.Run("all means those below", func(t *testing.T) {
		if got := admin.kicks(wire.TypeDisconnect, map[string]any{"all": true}); len(got.Kicked) != 1 || got.Kicked[0] != "bob" {
			t.Errorf("%+v", got)
		}
		owner.settle()
		second.settle()
	})
	t.Run("the owner bans an admin, and nobody the owner, itself included", func(t *testing.T) {
		owner.refusedWith(wire.CodeInvalid, wire.TypeBan, map[string]any{"target": "alice"})
		if got := into[wire.BanAck](owner, owner.call(wire.TypeBan, map[string]any{"target": "ann"})); got.Banned != "ann" {
			t.Errorf("%+v", got)
		}
		if code, why := admin.closed(); code != wire.CloseBanned || why != "banned" {
			t.Errorf("%d %q", code, why)
		}
	})
}

func TestBan(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	a := r.member(r.owner)
	b := r.member(bob)
	secret := into[wire.APIKeyCreated](b, b.call(wire.TypeAPIKeyCreate, map[string]any{"label": "x", "capabilities": []string{"read"}})).Secret
	in, token := r.invite()
	a.register(token, 5)
	if got := into[wire.BanAck](a, a.call(wire.TypeBan, map[string]any{"target": bob.PublicKey()[:8]})); got.Banned != "bob" {
		t.Fatalf("%+v", got)
	}
	b.closed()
	t.Run("stays, and shuts every door", func(t *testing.T) {
		r.restart()
		a := r.member(r.owner)
		c := r.dial()
		c.write(r.helloFrame(bob))
		if e := into[wire.Error](c, c.wait(wire.TypeError)); e.Code != wire.CodeRevoked {
			t.Errorf("%+v", e)
		}
		if code, why := c.closed(); code != wire.CloseBanned || why != "banned" {
			t.Errorf("%d %q", code, why)
		}
		if status, got := r.post("/join", "", joinBody(in, token, bob.PublicKey(), "bob")); status != http.StatusBadRequest || got["error"] != "member_revoked" {
			t.Errorf("%d %v", status, got)
		}
		if status, _ := r.do(bob, http.MethodGet, "/mesh/"+r.mesh.ID+"/members", nil); status != http.StatusUnauthorized {
			t.Errorf("%d", status)
		}
		if status, got := r.withKey(secret, http.MethodGet, "/api/v1/members"); status != http.StatusUnauthorized || got["code"] != codeKeyInvalid {
			t.Errorf("%d %v", status, got)
		}
		if got := a.send(sendFrame("x", bob.PublicKey(), "x")); got.Code != wire.AckNoPeer {
			t.Errorf("%+v", got)
		}
		a.refusedWith(wire.CodeNotFound, wire.TypeBan, map[string]any{"target": "bob"})
		bans := into[wire.ListBansResult](a, a.call(wire.TypeListBans, nil)).Bans
		if len(bans) != 1 || bans[0].Pubkey != bob.PublicKey() || bans[0].Name != "bob" || bans[0].RevokedAt == "" {
			t.Errorf("%+v", bans)
		}
	})
	t.Run("ends with unban, but for the API keys", func(t *testing.T) {
		a := r.member(r.owner)
		if got := into[wire.UnbanAck](a, a.call(wire.TypeUnban, map[string]any{"target": bob.PublicKey()[:8]})); got.Unbanned != "bob" {
			t.Errorf("%+v", got)
		}
		a.refusedWith(wire.CodeNotFound, wire.TypeUnban, map[string]any{"target": "bob"})
		r.member(bob)
		if status, _ := r.withKey(secret, http.MethodGet, "/api/v1/members"); status != http.StatusUnauthorized {
			t.Errorf("%d", status)
		}
		if bans := into[wire.ListBansResult](a, a.call(wire.TypeListBans, nil)).Bans; bans == nil || len(bans) != 0 {
			t.Errorf("%+v", bans)
		}
	})
}
