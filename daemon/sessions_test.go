package daemon

import (
	"strings"
	"testing"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

func TestCheckingARegistration(t *testing.T) {
	good := bus.SessionStart{Mesh: "team", Name: "bob", PID: 1}
	groups := func(names ...string) (out []mesh.Group) {
		for _, n := range names {
			out = append(out, mesh.Group{Name: n})
		}
		return out
	}
	for name, edit := range map[string]func(*bus.SessionStart){
		"plain":                   func(*bus.SessionStart) {},
		"with an id":              func(r *bus.SessionStart) { r.ID = "0f94a6d8-1520-425f-aabb-c1fd7f8f5901" },
		"a name of several words": func(r *bus.SessionStart) { r.Name = "Bob the Builder" },
		"a name with accents":     func(r *bus.SessionStart) { r.Name = "Zoë" },
		"the longest name":        func(r *bus.SessionStart) { r.Name = strings.Repeat("n", wire.MaxNameBytes) },
		"with groups":             func(r *bus.SessionStart) { r.Groups = groups("dev", "ops team") },
		"with capabilities":       func(r *bus.SessionStart) { r.Caps = []string{mesh.CapDM, mesh.CapBroadcast} },
		"with none":               func(r *bus.SessionStart) { r.Caps = []string{} },
	} {
		t.Run(name+" is fine", func(t *testing.T) {
			r := good
			edit(&r)
			if err := checkSession(&r); err != nil {
				t.Error(err)
			}
		})
	}
	for name, edit := range map[string]func(*bus.SessionStart){
		"the user's id":              func(r *bus.SessionStart) { r.ID = bus.User },
		"the tap's id":               func(r *bus.SessionStart) { r.ID = tapActor },
		"an id that is a subject":    func(r *bus.SessionStart) { r.ID = "msg" },
		"an id that is a verb":       func(r *bus.SessionStart) { r.ID = "send" },
		"an id of two tokens":        func(r *bus.SessionStart) { r.ID = "a.b" },
		"a wildcard":                 func(r *bus.SessionStart) { r.ID = "*" },
		"another wildcard":           func(r *bus.SessionStart) { r.ID = ">" },
		"an id that is a path":       func(r *bus.SessionStart) { r.ID = "../local-token" },
		"an id that is a key":        func(r *bus.SessionStart) { r.ID = strings.Repeat("ab", 32) },
		"no name":                    func(r *bus.SessionStart) { r.Name = "" },
		"a blank name":               func(r *bus.SessionStart) { r.Name = " \t" },
		"a name with an escape":      func(r *bus.SessionStart) { r.Name = "bob\x1b[2J" },
		"a name too long":            func(r *bus.SessionStart) { r.Name = strings.Repeat("n", wire.MaxNameBytes+1) },
		"a name that is all":         func(r *bus.SessionStart) { r.Name = "*" },
		"a name that is a group":     func(r *bus.SessionStart) { r.Name = "@dev" },
		"a name that is a topic":     func(r *bus.SessionStart) { r.Name = "#general" },
		"a name that is a key":       func(r *bus.SessionStart) { r.Name = strings.Repeat("ab", 32) },
		"a name that is a prefix":    func(r *bus.SessionStart) { r.Name = strings.Repeat("ab", 8) },
		"no process":                 func(r *bus.SessionStart) { r.PID = 0 },
		"a process group":            func(r *bus.SessionStart) { r.PID = -1 },
		"a directory too long":       func(r *bus.SessionStart) { r.Cwd = strings.Repeat("d", wire.MaxTextBytes+1) },
		"a role too long":            func(r *bus.SessionStart) { r.Role = strings.Repeat("r", wire.MaxNameBytes+1) },
		"a group without a name":     func(r *bus.SessionStart) { r.Groups = groups("") },
		"a group with a colon":       func(r *bus.SessionStart) { r.Groups = groups("a:b") },
		"a group with a line end":    func(r *bus.SessionStart) { r.Groups = groups("a\nb") },
		"too many groups":            func(r *bus.SessionStart) { r.Groups = make([]mesh.Group, wire.MaxGroups+1) },
		"a capability nobody knows":  func(r *bus.SessionStart) { r.Caps = []string{mesh.CapDM, "everything"} },
		"a capability with an edge":  func(r *bus.SessionStart) { r.Caps = []string{"*"} },
		"a mesh that is no subject":  func(r *bus.SessionStart) { r.Mesh = "*" },
		"a mesh that is two":         func(r *bus.SessionStart) { r.Mesh = "a.b" },
		"a mesh without a name":      func(r *bus.SessionStart) { r.Mesh = "" },
		"a group name far too long":  func(r *bus.SessionStart) { r.Groups = groups(strings.Repeat("g", wire.MaxNameBytes+1)) },
		"a group that reads as @all": func(r *bus.SessionStart) { r.Groups = groups("all") },
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			r := good
			edit(&r)
			refusedWith(t, checkSession(&r), 400, "bad_session")
		})
	}
}

func TestASessionThatMovesToAnotherMesh(t *testing.T) {
	d, team := running(t)
	_, err := ask[bus.MeshJoined](t, d.createMesh, bus.User, "", "", bus.MeshCreate{Name: "other"})
	must(t, err)
	other, err := d.mesh("other")
	must(t, err)
	for _, slug := range []string{"team", "other"} {
		_, err := ask[bus.SessionInfo](t, d.startSession, bus.User, "", "", bus.SessionStart{ID: "mover", Mesh: slug, Name: "mover", PID: 1})
		must(t, err)
	}
	if _, there := team.links.Session("mover"); there {
		t.Error("its old link still stands")
	}
	if _, there := other.links.Session("mover"); !there {
		t.Error("it has no link on the new mesh")
	}
}
