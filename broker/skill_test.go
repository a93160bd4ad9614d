package broker

import (
	"fmt"
	"strings"
	"testing"

	"claudemesh/wire"
)

func skillFields(name, description string) map[string]any {
	return map[string]any{"name": name, "description": description, "instructions": "do it", "tags": []string{"git"}}
}

func (c *client) skills(query string) (names []string) {
	c.t.Helper()
	for _, s := range into[wire.SkillList](c, c.call(wire.TypeListSkills, map[string]any{"query": query})).Skills {
		names = append(names, s.Name)
	}
	return names
}

func TestSkills(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Limits.SkillsPerMesh = 3 })
	bob, carol := r.addMember("bob"), r.addMember("carol")
	a, c := r.member(r.owner), r.member(carol)
	b := r.member(bob, func(h *wire.Hello) { h.Capabilities = append(h.Capabilities, wire.CapChanges) })
	share := func(c *client, f map[string]any) wire.SkillAck {
		return into[wire.SkillAck](c, c.call(wire.TypeShareSkill, f))
	}
	refused := func(c *client, op string, f map[string]any) wire.Error {
		return into[wire.Error](c, c.call(op, f))
	}
	if got := share(c, skillFields("review", "Review a PR")); got.Action != wire.ActionShared || got.Name != "review" {
		t.Fatalf("%+v", got)
	}

	t.Run("only those who want it hear of a change", func(t *testing.T) {
		if got := string(b.wait(wire.TypeSkillChange)); got != `{"type":"skill_change","name":"review","action":"shared","by":"carol"}` {
			t.Error(got)
		}
		a.settle()
		for _, f := range a.held {
			if h, _ := wire.Peek(f); h.Type == wire.TypeSkillChange {
				t.Errorf("%s", f)
			}
		}
	})
	t.Run("a name belongs to who shared it first (defect 43)", func(t *testing.T) {
		if e := refused(b, wire.TypeShareSkill, skillFields("review", "mine now")); e.Code != wire.CodeForbidden {
			t.Errorf("%+v", e)
		}
		if e := refused(b, wire.TypeRemoveSkill, map[string]any{"name": "review"}); e.Code != wire.CodeForbidden {
			t.Errorf("%+v", e)
		}
		if got := share(c, skillFields("review", "Review a PR well")); got.Action != wire.ActionShared {
			t.Errorf("%+v", got)
		}
		if got := share(a, skillFields("review", "Review a PR, says the owner")); got.Action != wire.ActionShared {
			t.Errorf("%+v", got)
		}
		got := into[wire.SkillData](b, b.call(wire.TypeGetSkill, map[string]any{"name": "review"})).Skill
		if got == nil || got.Description != "Review a PR, says the owner" || got.Author != "carol" || string(got.Manifest) != "null" || got.Instructions != "do it" {
			t.Errorf("%+v", got)
		}
		if got := share(c, skillFields("review", "mine again")); got.Action != wire.ActionShared {
			t.Errorf("%+v", got)
		}
	})
	t.Run("a list is by name, and a query is a text, not a pattern", func(t *testing.T) {
		share(b, skillFields("Zeta", "100% sure"))
		share(b, skillFields("alpha", "about_nothing"))
		for query, want := range map[string]string{"": "[Zeta alpha review]", "GIT": "[Zeta alpha review]", "100%": "[Zeta]", "%": "[Zeta]", "t_n": "[alpha]", "a_p": "[]", "REV": "[review]"} {
			if got := fmt.Sprint(a.skills(query)); got != want {
				t.Errorf("%q: %s, want %s", query, got, want)
			}
		}
	})
	t.Run("number and sizes are bounded", func(t *testing.T) {
		if e := refused(a, wire.TypeShareSkill, skillFields("fourth", "d")); e.Code != wire.CodeLimit {
			t.Errorf("%+v", e)
		}
		for _, f := range []map[string]any{
			skillFields("", "d"), skillFields("x", ""), skillFields(strings.Repeat("n", wire.MaxSkillName+1), "d"), skillFields("x", strings.Repeat("d", wire.MaxSkillDescription+1)),
			{"name": "x", "description": "d", "instructions": strings.Repeat("i", wire.MaxSkillInstructions+1)},
			{"name": "x", "description": "d", "instructions": strings.Repeat("\"", wire.MaxSkillInstructions)},
			{"name": "x", "description": "d", "instructions": "i", "manifest": strings.Repeat("m", wire.MaxSkillManifest)},
		} {
			if e := refused(a, wire.TypeShareSkill, f); e.Code != wire.CodeInvalid {
				t.Errorf("%+v", e)
			}
		}
	})
	t.Run("remove", func(t *testing.T) {
		for _, want := range []string{wire.ActionRemoved, wire.ActionNotFound} {
			if got := into[wire.SkillAck](a, a.call(wire.TypeRemoveSkill, map[string]any{"name": "Zeta"})); got.Action != want {
				t.Errorf("%+v", got)
			}
		}
		if got := into[wire.SkillData](b, b.call(wire.TypeGetSkill, map[string]any{"name": "Zeta"})); got.Skill != nil {
			t.Errorf("%+v", got)
		}
	})
}

func TestMeshInfo(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	b.call(wire.TypeJoinGroup, map[string]any{"name": "qa"})
	b.call(wire.TypeSetState, map[string]any{"key": "release", "value": 1})
	b.call(wire.TypeSetState, map[string]any{"key": "color", "value": 1})
	b.remember("one")
	b.call(wire.TypeShareSkill, skillFields("review", "d"))
	got := into[wire.MeshInfo](a, a.call(wire.TypeMeshInfo, nil))
	want := wire.MeshInfo{
		Type: wire.TypeMeshInfoResult, Mesh: r.mesh.ID, Peers: 2, Groups: []string{"@qa"}, StateKeys: []string{"color", "release"}, StateCount: 2, MemoryCount: 1, SkillCount: 1,
		Streams: []string{}, Tables: []string{}, Collections: []string{}, YourName: "alice", ReqID: got.ReqID,
	}
	want.YourGroups = got.YourGroups
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) || len(got.YourGroups) != 0 || got.YourGroups == nil {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if g := into[wire.MeshInfo](b, b.call(wire.TypeMeshInfo, nil)).YourGroups; len(g) != 1 || g[0].Name != "qa" {
		t.Errorf("%+v", g)
	}
}
