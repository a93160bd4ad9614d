package daemon

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"claudemesh/bus"
	"claudemesh/mesh"
)

// register registers a session of this test's process, as the bus does for actor.
func register(t *testing.T, d *Daemon, actor string, req bus.SessionStart) (bus.SessionInfo, error) {
	t.Helper()
	if req.Mesh == "" {
		req.Mesh = "team"
	}
	req.PID = os.Getpid()
	return ask[bus.SessionInfo](t, d.startSession, actor, "", "", req)
}

func TestSessionsThatSessionsMake(t *testing.T) {
	d, m := running(t)
	_, err := ask[bus.MeshJoined](t, d.createMesh, bus.User, "", "", bus.MeshCreate{Name: "other"})
	must(t, err)
	parents := map[string]bus.SessionStart{
		"free":    {Name: "free"},
		"bound":   {Name: "bound", OnlyMesh: true},
		"limited": {Name: "limited", Caps: []string{mesh.CapDM, mesh.CapStateRead}, Groups: []mesh.Group{{Name: "dev"}}},
		"profile": {Name: "profile", Caps: []string{mesh.CapProfileWrite}},
		"nothing": {Name: "nothing", Caps: []string{}},
	}
	for id, req := range parents {
		req.ID = "p-" + id
		_, err := register(t, d, bus.User, req)
		must(t, err)
	}
	for _, c := range []struct {
		name, parent string
		child        bus.SessionStart
		reason       string
		tooMuch      []any
	}{
		{"one without limits makes one without", "free", bus.SessionStart{}, "", nil},
		{"one without limits makes a limited one", "free", bus.SessionStart{Caps: []string{mesh.CapKick}}, "", nil},
		{"one without limits makes one elsewhere", "free", bus.SessionStart{Mesh: "other"}, "", nil},
		{"a bound one makes one on its mesh", "bound", bus.SessionStart{}, "", nil},
		{"a bound one makes none elsewhere", "bound", bus.SessionStart{Mesh: "other"}, bus.ReasonOnlyMesh, nil},
		{"a limited one makes one with less", "limited", bus.SessionStart{Caps: []string{mesh.CapDM}}, "", nil},
		{"a limited one makes one with as much", "limited", bus.SessionStart{Caps: []string{mesh.CapStateRead, mesh.CapDM}}, "", nil},
		{"a limited one makes one with nothing", "limited", bus.SessionStart{Caps: []string{}}, "", nil},
		{"a limited one makes none without limits", "limited", bus.SessionStart{}, "caps_exceeded", []any{}},
		{"a limited one makes none with more", "limited", bus.SessionStart{Caps: []string{mesh.CapDM, mesh.CapBan, mesh.CapKick, mesh.CapBan}}, "caps_exceeded", []any{"ban", "kick"}},
		{"a limited one makes none elsewhere", "limited", bus.SessionStart{Caps: []string{}, Mesh: "other"}, bus.ReasonOnlyMesh, nil},
		{"a limited one makes one in its group", "limited", bus.SessionStart{Caps: []string{}, Groups: []mesh.Group{{Name: "dev", Role: "lead"}}}, "", nil},
		{"a limited one makes none in another group", "limited", bus.SessionStart{Caps: []string{}, Groups: []mesh.Group{{Name: "boss"}}}, bus.ReasonCapability, nil},
		{"one that chooses its groups chooses its child's", "profile", bus.SessionStart{Caps: []string{}, Groups: []mesh.Group{{Name: "boss"}}}, "", nil},
		{"one that may nothing makes one that may nothing", "nothing", bus.SessionStart{Caps: []string{}}, "", nil},
		{"one that may nothing makes none that may", "nothing", bus.SessionStart{Caps: []string{mesh.CapRead}}, "caps_exceeded", []any{"read"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.child.Name = "child"
			info, err := register(t, d, "p-"+c.parent, c.child)
			if c.reason != "" {
				data := refusedWith(t, err, 403, c.reason)
				if c.tooMuch != nil && fmt.Sprint(data["too_much"]) != fmt.Sprint(c.tooMuch) {
					t.Errorf("too much is %v", data["too_much"])
				}
				return
			}
			must(t, err)
			if info.Parent != "p-"+c.parent || info.OnlyMesh != (c.parent == "bound") || (info.Caps == nil) != (c.child.Caps == nil) {
				t.Errorf("%+v", info)
			}
			_, err = ask[bus.Count](t, d.stopSession, "p-"+c.parent, "", "", bus.SessionID{ID: info.ID})
			must(t, err)
		})
	}
	t.Run("a limited one does not take a name's key and mail", func(t *testing.T) {
		bob, err := register(t, d, bus.User, bus.SessionStart{Name: "bob", ID: "bob"})
		must(t, err)
		_, err = ask[bus.Count](t, d.stopSession, bus.User, "", "", bus.SessionID{ID: "bob"})
		must(t, err)
		thief, err := register(t, d, "p-limited", bus.SessionStart{Name: "bob", Caps: []string{}})
		must(t, err)
		again, err := register(t, d, "p-free", bus.SessionStart{Name: "bob"})
		must(t, err)
		if thief.Pubkey == bob.Pubkey || again.Pubkey != bob.Pubkey {
			t.Errorf("bob is %s, the limited one's child %s, the free one's %s", bob.Pubkey, thief.Pubkey, again.Pubkey)
		}
	})
	t.Run("nobody takes the place of a session that it did not make", func(t *testing.T) {
		_, err := register(t, d, "p-free", bus.SessionStart{Name: "x", ID: "p-bound"})
		refusedWith(t, err, 409, "session_exists")
		_, err = register(t, d, "p-free", bus.SessionStart{Name: "x", ID: "p-free"})
		refusedWith(t, err, 409, "session_exists")
	})
	t.Run("nobody ends a session that it did not make", func(t *testing.T) {
		for _, id := range []string{"p-bound", "p-free", "no-such"} {
			_, err := ask[bus.Count](t, d.stopSession, "p-free", "", "", bus.SessionID{ID: id})
			refusedWith(t, err, 403, "forbidden")
		}
	})
	t.Run("a session that has ended makes none", func(t *testing.T) {
		_, err := register(t, d, "no-such", bus.SessionStart{Name: "x"})
		refusedWith(t, err, 401, "no_session")
	})
	t.Run("what it made ends with it, and what that made", func(t *testing.T) {
		_, err := register(t, d, bus.User, bus.SessionStart{Name: "a", ID: "gen-1"})
		must(t, err)
		_, err = register(t, d, "gen-1", bus.SessionStart{Name: "b", ID: "gen-2"})
		must(t, err)
		_, err = register(t, d, "gen-2", bus.SessionStart{Name: "c", ID: "gen-3"})
		must(t, err)
		list, err := ask[bus.SessionList](t, d.listSessions, "gen-1", "", "", nil)
		must(t, err)
		if len(list.Sessions) != 2 { // itself and its child
			t.Errorf("it sees %+v", list.Sessions)
		}
		must(t, d.endSession(t.Context(), "gen-1"))
		live, err := d.session.Live(t.Context())
		must(t, err)
		for _, s := range live {
			if slices.Contains([]string{"gen-1", "gen-2", "gen-3"}, s.ID) {
				t.Errorf("%s goes on", s.ID)
			}
		}
		if _, there := m.links.Session("gen-3"); there {
			t.Error("the link of a grandchild stands")
		}
	})
	t.Run("what a crash left of a session that has ended is ended", func(t *testing.T) {
		_, err := register(t, d, bus.User, bus.SessionStart{Name: "a", ID: "lost-1"})
		must(t, err)
		for i, parent := range []string{"lost-1", "lost-2"} {
			_, err = register(t, d, parent, bus.SessionStart{Name: "b", ID: fmt.Sprintf("lost-%d", i+2)})
			must(t, err)
		}
		_, err = d.session.End(t.Context(), "lost-1") // and no more: the process was killed here
		must(t, err)
		must(t, d.endOrphans(t.Context()))
		for _, id := range []string{"lost-2", "lost-3"} {
			if s, err := d.session.Get(t.Context(), id); err != nil || s.EndedAt.IsZero() {
				t.Errorf("%s goes on: %v", id, err)
			}
		}
	})
	t.Run("what is registered while its maker ends, ends", func(t *testing.T) {
		_, err := register(t, d, bus.User, bus.SessionStart{Name: "racer", ID: "racer"})
		must(t, err)
		before, err := d.session.Get(t.Context(), "racer")
		must(t, err)
		must(t, d.stillThere(t.Context(), before))
		_, err = register(t, d, bus.User, bus.SessionStart{Name: "racer", ID: "racer"})
		must(t, err)
		refusedWith(t, d.stillThere(t.Context(), before), 401, "no_session")
		must(t, d.endSession(t.Context(), "racer"))
		refusedWith(t, d.stillThere(t.Context(), before), 401, "no_session")
	})
	t.Run("a limited one takes up no conversation", func(t *testing.T) {
		was, err := register(t, d, bus.User, bus.SessionStart{Name: "talker", Role: "boss", Groups: []mesh.Group{{Name: "boss"}}, Conversation: "talk"})
		must(t, err)
		must(t, d.endSession(t.Context(), was.ID))
		child, err := register(t, d, "p-limited", bus.SessionStart{Name: "x", Caps: []string{}, Conversation: "talk"})
		must(t, err)
		if child.Pubkey == was.Pubkey || child.Role != "" || len(child.Groups) != 0 {
			t.Errorf("%+v", child)
		}
		must(t, d.session.SetConversation(t.Context(), child.ID, "talk")) // as a hook of its client says
		must(t, d.endSession(t.Context(), child.ID))
		again, err := register(t, d, bus.User, bus.SessionStart{Name: "talker", Conversation: "talk"})
		must(t, err)
		if again.Pubkey != was.Pubkey || len(again.Groups) != 1 {
			t.Errorf("the conversation became %+v", again)
		}
	})
	t.Run("a client that acts as the user is not taken for a session that a session made", func(t *testing.T) {
		child, err := register(t, d, "p-limited", bus.SessionStart{Name: "x", Caps: []string{}})
		must(t, err)
		for _, id := range []string{"p-free", "p-bound", "p-profile", "p-nothing"} { // the same process as the child's
			must(t, d.endSession(t.Context(), id))
		}
		s, err := d.session.Get(t.Context(), child.ID)
		must(t, err)
		got, _, err := d.attached(t.Context(), bus.HookEvent{PID: s.PID})
		must(t, err)
		if got.ID == child.ID {
			t.Error("it is")
		}
	})
	t.Run("there is an end to it", func(t *testing.T) {
		_, err := register(t, d, bus.User, bus.SessionStart{Name: "many", ID: "many"})
		must(t, err)
		for range maxChildren {
			_, err := register(t, d, "many", bus.SessionStart{Name: "x"})
			must(t, err)
		}
		_, err = register(t, d, "many", bus.SessionStart{Name: "x"})
		refusedWith(t, err, 409, "limit")
		must(t, d.endSession(t.Context(), "many"))
	})
}

func TestWhichLinkARequestTakes(t *testing.T) {
	d, m := running(t)
	_, err := ask[bus.MeshJoined](t, d.createMesh, bus.User, "", "", bus.MeshCreate{Name: "other"})
	must(t, err)
	other, err := d.mesh("other")
	must(t, err)
	for id, caps := range map[string][]string{"free": nil, "limited": {mesh.CapStateRead}} {
		_, err := register(t, d, bus.User, bus.SessionStart{Name: id, ID: id, Caps: caps})
		must(t, err)
	}
	eventually(t, "the other link to open", other.online)
	limited, _ := m.links.Session("limited")
	ctx := t.Context()
	for name, fine := range map[string]bool{
		"the user's takes the member's":                       d.linkOf(ctx, bus.User, m) == m.links.Member(),
		"that of a session without limits takes the member's": d.linkOf(ctx, "free", m) == m.links.Member(),
		"that of a limited one takes its own":                 d.linkOf(ctx, "limited", m) == limited,
		"on another mesh it takes the member's":               d.linkOf(ctx, "limited", other) == other.links.Member(),
	} {
		if !fine {
			t.Error(name)
		}
	}
	eventually(t, "the limited session's link", func() bool { return limited.State().Phase == "open" })
	_, err = m.call(ctx, limited, "set_state", []byte(`{"key":"k","value":1}`)) // past the bus
	refusedWith(t, err, 502, "broker_refused")
	s, err := d.session.Get(ctx, "limited")
	must(t, err)
	if info := d.sessionInfo(s); info.CapsHeld != bus.CapsHeldBoth || info.Caps == nil || !slices.Equal(*info.Caps, []string{mesh.CapStateRead}) {
		t.Errorf("%+v", info)
	}
}
