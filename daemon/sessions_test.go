package daemon

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
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
		"with a default name":     func(r *bus.SessionStart) { r.Name, r.DefaultName = "", "ada" },
		"that shows nothing":      func(r *bus.SessionStart) { r.MessageMode = wire.ModeOff },
		"of a conversation":       func(r *bus.SessionStart) { r.Conversation = "my talk" },
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
		"a bad default name":         func(r *bus.SessionStart) { r.Name, r.DefaultName = "", "@dev" },
		"a mode nobody knows":        func(r *bus.SessionStart) { r.MessageMode = "loud" },
		"a conversation's escape":    func(r *bus.SessionStart) { r.Conversation = "a\x1b[2J" },
		"an endless conversation":    func(r *bus.SessionStart) { r.Conversation = strings.Repeat("c", 129) },
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

func TestTheMessageModeOfASessionIsTheStricterOne(t *testing.T) {
	m := still(t)
	for _, tt := range []struct{ member, own, want string }{
		{"", "", ""},
		{"", wire.ModePush, ""}, // the member's may be stricter
		{"", wire.ModeInbox, wire.ModeInbox},
		{wire.ModePush, "", wire.ModePush},
		{wire.ModePush, wire.ModePush, wire.ModePush},
		{wire.ModePush, wire.ModeInbox, wire.ModeInbox},
		{wire.ModeInbox, wire.ModePush, wire.ModeInbox},
		{wire.ModeInbox, wire.ModeOff, wire.ModeOff},
		{wire.ModeOff, "", wire.ModeOff},
	} {
		m.setMessageMode(tt.member)
		if got := m.modeOf(tt.own); got != tt.want {
			t.Errorf("member %q, own %q: %q, want %q", tt.member, tt.own, got, tt.want)
		}
	}
}

func TestAConversationIsTakenUpOnceAtATime(t *testing.T) {
	d, _ := running(t)
	const talk = "0f94a6d8-1520-425f-aabb-c1fd7f8f5901"
	start := func(id, name string, pid int) (bus.SessionInfo, error) {
		return ask[bus.SessionInfo](t, d.startSession, bus.User, "", "", bus.SessionStart{ID: id, Mesh: "team", Name: name, PID: pid, Conversation: talk})
	}
	first, err := start("", "bob", os.Getpid())
	must(t, err)
	if first.ID != talk || first.Conversation != talk {
		t.Errorf("registered as %+v", first)
	}
	_, err = start("", "robert", os.Getpid())
	data := refusedWith(t, err, 409, "conversation_live")
	if data["session"] != talk || data["name"] != "bob" {
		t.Errorf("the holder is told as %v", data)
	}
	_, err = ask[bus.Count](t, d.stopSession, bus.User, "", "", bus.SessionID{ID: talk})
	must(t, err)
	second, err := start("", "robert", os.Getpid())
	must(t, err)
	if second.Pubkey != first.Pubkey {
		t.Error("the conversation has another key")
	}
}

// A session whose program was killed a moment ago does not stand in the way of the one that takes its conversation up.
func TestAConversationIsTakenFromASessionThatDied(t *testing.T) {
	d, _ := running(t)
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	req := bus.SessionStart{Mesh: "team", Name: "bob", PID: cmd.Process.Pid, Conversation: "talk"}
	first, err := ask[bus.SessionInfo](t, d.startSession, bus.User, "", "", req)
	must(t, err)
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	in.Close()
	req.PID = os.Getpid()
	second, err := ask[bus.SessionInfo](t, d.startSession, bus.User, "", "", req)
	must(t, err)
	if second.Pubkey != first.Pubkey || second.ID == first.ID {
		t.Errorf("taken up as %+v", second)
	}
}

func TestTokensWithoutASessionAreRemovedAtTheStart(t *testing.T) {
	d, _ := running(t)
	s, err := ask[bus.SessionInfo](t, d.startSession, bus.User, "", "", bus.SessionStart{Mesh: "team", Name: "bob", PID: os.Getpid()})
	must(t, err)
	stale, err := d.writeSessionToken("left-behind", strings.Repeat("ab", 32))
	must(t, err)
	must(t, d.resumeSessions(t.Context()))
	if _, err := os.Stat(stale); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the stale token: %v", err)
	}
	if _, err := os.Stat(s.TokenFile); err != nil {
		t.Errorf("the token of a session that runs: %v", err)
	}
}
