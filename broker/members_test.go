package broker

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"

	"claudemesh/mesh"
	"claudemesh/wire"
)

func (c *client) members() []wire.Member {
	c.t.Helper()
	return into[wire.MemberListResult](c, c.call(wire.TypeMemberList, nil)).Members
}

func (c *client) edit(id string, fields map[string]any) wire.MemberEdited {
	c.t.Helper()
	all := map[string]any{"memberId": id}
	for k, v := range fields {
		all[k] = v
	}
	got := into[wire.MemberEdited](c, c.call(wire.TypeMemberEdit, all))
	if got.Type != wire.TypeMemberEdited {
		c.t.Fatalf("%+v", got)
	}
	return got
}

func TestMembers(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	id := r.memberID(bob)

	t.Run("are listed with who is there", func(t *testing.T) {
		r.addMember("zoe")
		s := r.session(bob, newIdentity(t))
		all := a.members()
		if len(all) != 3 || all[0].DisplayName != "alice" || all[1].DisplayName != "bob" || all[2].DisplayName != "zoe" {
			t.Fatalf("%+v", all)
		}
		if m := all[0]; m.Permission != "admin" || !m.IsOwner || m.Pubkey != r.owner.PublicKey() || !m.Online || m.SessionCount != 1 {
			t.Errorf("%+v", m)
		}
		if m := all[1]; m.ID != id || m.Permission != "member" || m.IsOwner || m.SessionCount != 2 || m.MessageMode != "push" || m.Groups == nil || m.RoleTag != nil || m.JoinedAt == "" {
			t.Errorf("%+v", m)
		}
		if m := all[2]; m.Online || m.SessionCount != 0 || m.LastSeenAt != nil {
			t.Errorf("%+v", m)
		}
		s.close()
		a.event(wire.EventPeerLeft)
	})
	t.Run("edit themselves, hear of it, and their next hello says so", func(t *testing.T) {
		got := b.edit(id, map[string]any{"roleTag": "backend", "groups": []mesh.Group{{Name: "dev", Role: "lead"}}, "messageMode": "push"})
		if *got.Member.RoleTag != "backend" || got.Changes.MessageMode != nil || got.Changes.Groups == nil {
			t.Errorf("%+v", got)
		}
		var told map[string]any
		if p := b.event(wire.EventProfileUpdated); json.Unmarshal(p.EventData, &told) != nil || told["roleTag"] != "backend" || len(told) != 2 {
			t.Errorf("%s", p.EventData)
		}
		c := r.dial()
		c.write(r.sessionFrame(bob, newIdentity(t)))
		ack := into[wire.HelloAck](c, c.wait(wire.TypeHelloAck))
		if p := ack.MemberProfile; p.RoleTag == nil || *p.RoleTag != "backend" || len(p.Groups) != 1 || p.MessageMode != "push" {
			t.Errorf("%+v", p)
		}
		// Its groups are those of a connection that names none.
		a.mustSend(sendFrame("g", "@dev", "x"))
		if p := b.message(); p.ClientMessageID != "g" {
			t.Errorf("%+v", p)
		}
	})
	t.Run("remove a role tag", func(t *testing.T) {
		for _, none := range []any{nil, ""} {
			b.edit(id, map[string]any{"roleTag": "x"})
			if got := b.edit(id, map[string]any{"roleTag": none}); got.Member.RoleTag != nil {
				t.Errorf("%+v", got)
			}
		}
	})
	t.Run("do not edit others, nor make themselves administrators", func(t *testing.T) {
		b.refusedWith(wire.CodeForbidden, wire.TypeMemberEdit, map[string]any{"memberId": r.memberID(r.owner), "displayName": "x"})
		e := b.refusedWith(wire.CodeForbidden, wire.TypeMemberEdit, map[string]any{"memberId": id, "permission": "admin", "roleTag": "x"})
		if e.Message != "admin-managed fields: permission" {
			t.Errorf("%+v", e)
		}
	})
	t.Run("are refused what is no change", func(t *testing.T) {
		b.refusedWith(wire.CodeInvalid, wire.TypeMemberEdit, map[string]any{"memberId": id})
		b.refusedWith(wire.CodeInvalid, wire.TypeMemberEdit, map[string]any{"memberId": id, "messageMode": "loud"})
		b.refusedWith(wire.CodeInvalid, wire.TypeMemberEdit, map[string]any{"memberId": id, "displayName": "a\nb"})
		b.refusedWith(wire.CodeInvalid, wire.TypeMemberEdit, map[string]any{"memberId": id, "roleTag": 7})
		a.refusedWith(wire.CodeNotFound, wire.TypeMemberEdit, map[string]any{"memberId": "nobody", "roleTag": "x"})
	})
	t.Run("edit only what the mesh lets them", func(t *testing.T) {
		b.refusedWith(wire.CodeForbidden, wire.TypeMeshSettings, map[string]any{"selfEditable": map[string]bool{"roleTag": false}})
		a.refusedWith(wire.CodeInvalid, wire.TypeMeshSettings, map[string]any{"selfEditable": map[string]bool{"permission": true}})
		a.call(wire.TypeMeshSettings, map[string]any{"selfEditable": map[string]bool{"roleTag": false}})
		e := b.refusedWith(wire.CodeForbidden, wire.TypeMemberEdit, map[string]any{"memberId": id, "roleTag": "x", "displayName": "y"})
		if e.Message != "admin-managed fields: roleTag" {
			t.Errorf("%+v", e)
		}
		a.edit(id, map[string]any{"roleTag": "ops"})
		r.restart()
		a, b = r.member(r.owner), r.member(bob)
		c := r.dial()
		c.write(r.helloFrame(bob, func(h *wire.Hello) { h.SessionID = "third" }))
		if p := into[wire.HelloAck](c, c.wait(wire.TypeHelloAck)); p.MeshPolicy.SelfEditable["roleTag"] || !p.MeshPolicy.SelfEditable["groups"] || *p.MemberProfile.RoleTag != "ops" {
			t.Errorf("%+v", p)
		}
	})
	t.Run("become administrators by one, and stop being it by the owner or themselves", func(t *testing.T) {
		ann := r.addAdmin("ann")
		n := r.member(ann)
		if got := n.edit(id, map[string]any{"permission": "admin"}); got.Member.Permission != "admin" {
			t.Errorf("%+v", got)
		}
		b.edit(id, map[string]any{"roleTag": "no policy for administrators"})
		n.refusedWith(wire.CodeForbidden, wire.TypeMemberEdit, map[string]any{"memberId": id, "permission": "member"})
		for _, by := range []*client{n, a} {
			by.refusedWith(wire.CodeForbidden, wire.TypeMemberEdit, map[string]any{"memberId": r.memberID(r.owner), "permission": "member"})
		}
		n.edit(r.memberID(ann), map[string]any{"permission": "member"})
		a.edit(id, map[string]any{"permission": "member"})
		b.refusedWith(wire.CodeForbidden, wire.TypeListBans, nil)
	})
}

func TestMembersOverHTTP(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	base := "/mesh/" + r.mesh.ID
	status, got := r.do(bob, http.MethodGet, base+"/members", nil)
	members, _ := got["members"].([]any)
	if status != 200 || got["ok"] != true || len(members) != 2 {
		t.Fatalf("%d %v", status, got)
	}
	for _, field := range []string{"id", "displayName", "roleTag", "groups", "messageMode", "permission", "dashboardUserId", "joinedAt", "lastSeenAt", "online", "sessionCount"} {
		if _, ok := members[0].(map[string]any)[field]; !ok {
			t.Errorf("%s is missing", field)
		}
	}
	self := base + "/member/" + r.memberID(bob)
	status, got = r.do(bob, http.MethodPatch, self, map[string]any{"displayName": "Bob B.", "messageMode": "inbox"})
	if m, _ := got["member"].(map[string]any); status != 200 || got["ok"] != true || m["displayName"] != "Bob B." || m["messageMode"] != "inbox" || got["changes"] == nil {
		t.Errorf("%d %v", status, got)
	}
	for _, tc := range []struct {
		name, path string
		who        mesh.Identity
		body       any
		status     int
		want       string
	}{
		{"a member edits another", base + "/member/" + r.memberID(r.owner), bob, map[string]any{"displayName": "x"}, 400, "not authorized — only admins or self can edit"},
		{"nothing to change", self, bob, map[string]any{}, 400, "no fields to update"},
		{"an unknown mesh", "/mesh/x/member/y", bob, map[string]any{"displayName": "x"}, 400, "mesh not found"},
		{"a permission of one's own", self, bob, map[string]any{"permission": "admin"}, 400, "admin-managed fields: permission"},
		{"settings by a member", base + "/settings", bob, map[string]any{"selfEditable": map[string]bool{"groups": false}}, 403, "forbidden"},
		{"settings of nothing", base + "/settings", r.owner, map[string]any{}, 400, ""},
		{"settings of another mesh", "/mesh/x/settings", r.owner, map[string]any{"selfEditable": map[string]bool{"groups": false}}, 400, "mesh not found"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, got := r.do(tc.who, http.MethodPatch, tc.path, tc.body)
			if status != tc.status || got["ok"] != false || tc.want != "" && got["error"] != tc.want {
				t.Errorf("%d %v", status, got)
			}
		})
	}
	if status, got := r.do(r.owner, http.MethodPatch, base+"/settings", map[string]any{"selfEditable": map[string]bool{"displayName": false}}); status != 200 || got["ok"] != true {
		t.Errorf("%d %v", status, got)
	}
	if status, got := r.do(bob, http.MethodPatch, self, map[string]any{"displayName": "x"}); status != 400 || got["error"] != "admin-managed fields: displayName" {
		t.Errorf("%d %v", status, got)
	}
	if slices.ContainsFunc(r.member(r.owner).members(), func(m wire.Member) bool { return m.DisplayName == "x" }) {
		t.Error("it was changed")
	}
}
