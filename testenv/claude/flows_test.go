//go:build unix

package claude_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"claudemesh/bus"
	"claudemesh/testenv"
	"claudemesh/testenv/claude"
)

// The flows of the last metre: a client on a mesh, a peer that writes to it, and what its model is given. Each is asked of both clients, and of each way in which
// a client becomes a session.

// house is a user's machine with a daemon, a mesh, a peer named alice, and a client.
type house struct {
	*rig
	machine *testenv.Machine
	mesh    string
	alice   *testenv.Session
	way     string
}

// Ways in which a client becomes a session.
const (
	installed = "installed" // claudemesh install, then plain claude
	launched  = "launched"  // claudemesh launch, nothing installed
)

// flow runs a test for both clients and both ways.
func flow(t *testing.T, f func(t *testing.T, h *house)) {
	each(t, func(t *testing.T, real string) {
		for _, way := range []string{installed, launched} {
			t.Run(way, func(t *testing.T) { f(t, newHouse(t, real, way)) })
		}
	})
}

func newHouse(t *testing.T, real, way string) *house {
	t.Helper()
	h := &house{machine: testenv.NewMachine(t), way: way}
	h.rig = &rig{t: t, Home: claude.NewHome(t, h.machine.Home, real, mcpTest), hooks: map[string][]any{}}
	h.mesh = h.machine.Create("team")
	h.alice = h.machine.Session(h.mesh, "alice")
	h.machine.WaitPeer(h.mesh, "alice")
	if way == installed {
		h.command("install", "--no-service")
	}
	return h
}

// command runs claudemesh as the user does, and returns what it prints.
func (h *house) command(args ...string) string {
	h.t.Helper()
	cmd := exec.Command(h.Mesh(), args...)
	cmd.Dir, cmd.Env = h.Project, h.Environ()
	out, err := cmd.CombinedOutput()
	if err != nil {
		h.t.Fatalf("claudemesh %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// start starts the client, waits until it is a session with all it has, and returns what the daemon knows of it.
func (h *house) start(args ...string) (*claude.Client, bus.SessionInfo) {
	h.t.Helper()
	var c *claude.Client
	if h.way == installed {
		c = h.Start(args...)
	} else {
		argv := []string{h.Mesh(), "launch", h.mesh, "--name", "bob", "--quiet"}
		if i := slices.Index(args, "--resume"); i >= 0 {
			argv, args = append(argv, args[i:i+2]...), slices.Delete(slices.Clone(args), i, i+2)
		}
		c = h.Run(append(append(argv, "--"), h.ClientArgs(args...)...)...)
		c.WaitReady()
	}
	return c, h.ready()
}

// ready waits until the session's hook waits for messages and its shim is there.
func (h *house) ready() bus.SessionInfo {
	h.t.Helper()
	return h.waitSession("the session to be reachable", func(s bus.SessionInfo) bool {
		return s.Wake != nil && s.Wake.Hooks && s.Wake.Waiting && s.Wake.Channel != "" && s.Link == "open"
	})
}

// waitSession waits until the client's session is as it should be.
func (h *house) waitSession(what string, ok func(bus.SessionInfo) bool) bus.SessionInfo {
	h.t.Helper()
	var found bus.SessionInfo
	last := ""
	defer func() {
		if h.t.Failed() {
			h.t.Logf("the session was last seen as %s", last)
		}
	}()
	testenv.Wait(h.t, what, nil, func() bool {
		var l bus.SessionList
		h.machine.Do(bus.OpSessionList, nil, &l)
		for _, s := range l.Sessions {
			if s.ID != h.alice.Info.ID {
				found = s
				last = fmt.Sprintf("%+v wake %+v", s, s.Wake)
				return ok(s)
			}
		}
		return false
	})
	return found
}

// waitStatus waits until peers see the session in a status.
func (h *house) waitStatus(name, status string) {
	h.t.Helper()
	testenv.Wait(h.t, name+" to be "+status, nil, func() bool {
		var r bus.PeersReply
		if testenv.Try(h.machine.User(), bus.CallSubject(h.mesh, bus.User, bus.CallListPeers), nil, &r) != nil {
			return false
		}
		for _, p := range r.Peers {
			if p.DisplayName == name && p.Status == status {
				return true
			}
		}
		return false
	})
}

// surfaced waits until the sender has heard that a message was shown, and checks by which way.
func (h *house) surfaced(sent bus.SendReply, via string) {
	h.t.Helper()
	item := h.machine.WaitState(h.mesh, sent.ClientMessageID, bus.StateSurfaced)
	i := slices.IndexFunc(item.Receipts, func(r bus.Receipt) bool { return r.State == bus.StateSurfaced })
	if i < 0 || item.Receipts[i].Via != via {
		h.t.Errorf("receipts %+v, want surfaced via %s", item.Receipts, via)
	}
}

func TestAPeersMessageWakesAnIdleSessionOnce(t *testing.T) {
	flow(t, func(t *testing.T, h *house) {
		c, me := h.start()
		first := h.alice.Send(me.Name, "are you there, word-one?") // nobody has typed anything
		q := h.API.WaitText("word-one")
		h.surfaced(first, bus.ViaWake)
		h.WaitIdle(1)
		h.waitSession("a hook to wait again", func(s bus.SessionInfo) bool { return s.Wake.Waiting })
		second := h.alice.Send(me.Name, "and now, word-two?")
		h.API.WaitText("word-two")
		h.surfaced(second, bus.ViaWake)
		h.WaitIdle(2)
		h.API.Once("word-one")
		h.API.Once("word-two")
		if m, _ := q.Where("word-one"); !strings.Contains(m.Text, `from="alice"`) {
			t.Errorf("the model was told %q", m.Text)
		}
		if code := c.Exit(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		testenv.Wait(t, "the session to be gone", nil, func() bool {
			var l bus.SessionList
			h.machine.Do(bus.OpSessionList, nil, &l)
			return len(l.Sessions) == 1
		})
	})
}

func TestABusySessionGetsAMessageAfterItsTool(t *testing.T) {
	flow(t, func(t *testing.T, h *house) {
		tool, finish := h.fifo("tool")
		h.API.Script(claude.Run("read line <'"+tool+"'; echo \"$line\""), claude.Say("done"))
		c, me := h.start()
		h.waitStatus(me.Name, "idle")
		c.Prompt("work, please")
		h.API.WaitText("work, please")
		h.waitStatus(me.Name, "working")
		sent := h.alice.Send(me.Name, "while you work: word-three")
		h.machine.WaitState(h.mesh, sent.ClientMessageID, bus.StateDelivered)
		if n := len(h.API.Requests()); n != 1 {
			t.Errorf("%d requests before the tool had ended", n)
		}
		finish("tool-over\n")
		h.WaitIdle(2)
		second := h.API.Requests()[1]
		if second.Count("word-three") != 1 || second.Count("tool-over") != 1 {
			t.Errorf("the request after the tool holds %+v", second.Messages)
		}
		h.surfaced(sent, bus.ViaHook)
		h.API.Once("word-three")
		h.waitStatus(me.Name, "idle")
		if n := len(h.API.Requests()); n != 2 {
			t.Errorf("%d requests, want 2: the message needs no turn of its own", n)
		}
		c.Exit()
	})
}

func TestAfterClearTheSessionIsTheSamePeer(t *testing.T) {
	flow(t, func(t *testing.T, h *house) {
		c, me := h.start()
		c.Prompt("hello-before")
		h.WaitIdle(1)
		before := h.API.Requests()[0].Session
		c.Prompt("/clear")
		again := h.waitSession("the daemon to follow", func(s bus.SessionInfo) bool {
			return s.Conversation != "" && s.Conversation != before && s.Wake.Waiting
		})
		if again.ID != me.ID || again.Pubkey != me.Pubkey {
			t.Errorf("it was %s %s and is %s %s", me.ID, me.Pubkey, again.ID, again.Pubkey)
		}
		sent := h.alice.Send(me.Name, "after the clearing: word-four")
		q := h.API.WaitText("word-four")
		if q.Session != again.Conversation || q.Count("hello-before") != 0 {
			t.Errorf("it came in conversation %s, want %s", q.Session, again.Conversation)
		}
		h.surfaced(sent, bus.ViaWake)
		h.WaitIdle(2)
		h.API.Once("word-four")
		c.Exit()
	})
}

func TestAResumedConversationKeepsItsKey(t *testing.T) {
	flow(t, func(t *testing.T, h *house) {
		c, me := h.start()
		c.Prompt("remember-me")
		h.WaitIdle(1)
		id := h.API.Requests()[0].Session
		c.Exit()
		waiting := h.alice.Send(me.Pubkey, "for when you are back: word-five")
		c, again := h.start("--resume", id)
		if again.Pubkey != me.Pubkey {
			t.Errorf("its key was %s and is %s", me.Pubkey, again.Pubkey)
		}
		q := h.API.WaitText("word-five")
		if q.Session != id || q.Count("remember-me") != 1 {
			t.Errorf("it came in conversation %s, want %s", q.Session, id)
		}
		h.machine.WaitState(h.mesh, waiting.ClientMessageID, bus.StateSurfaced)
		h.WaitIdle(2)
		h.API.Once("word-five")
		c.Exit()
	})
}

func TestTheSkillsOfTheMeshArePromptsAndResources(t *testing.T) {
	flow(t, func(t *testing.T, h *house) {
		skill := filepath.Join(h.Dir, "SKILL.md")
		if err := os.WriteFile(skill, []byte("---\nname: review\ndescription: how we review\n---\nRead every line-of-skill twice.\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		h.command("skill", "publish", skill)
		c, _ := h.start()
		h.WaitMCP("claudemesh")
		c.Prompt("/mcp__claudemesh__review")
		h.API.WaitText("line-of-skill")
		h.WaitIdle(1)
		c.Prompt("anything else?")
		q := h.API.WaitText("anything else?")
		if q.Count("## claudemesh\n") != 1 {
			t.Errorf("the instructions of the MCP server are not in the request: %+v", q.Messages)
		}
		h.WaitIdle(2)
		c.Exit()
	})
}

func TestUninstallGivesTheClientsFilesBackAsTheyWere(t *testing.T) {
	each(t, func(t *testing.T, real string) {
		h := newHouse(t, real, launched) // nothing is installed yet
		h.Settings(map[string]any{"hooks": map[string]any{"Stop": []any{map[string]any{"hooks": []any{map[string]any{"type": "command", "command": "true"}}}}}, "env": map[string]string{"A": "1"}})
		c := h.Start() // it writes its own things first
		c.Prompt("hello")
		h.WaitIdle(1)
		c.Exit()
		files := []string{filepath.Join(h.Dir, ".claude.json"), filepath.Join(h.Dir, ".claude", "settings.json")}
		before := read(t, files)
		h.command("install", "--no-service", "--status-line")
		if during := read(t, files); during[0] == before[0] || during[1] == before[1] {
			t.Error("install has changed nothing")
		}
		h.command("uninstall")
		for i, after := range read(t, files) {
			if after != before[i] {
				t.Errorf("%s was\n%s\nand is\n%s", files[i], before[i], after)
			}
		}
	})
}

func read(t *testing.T, files []string) (texts []string) {
	t.Helper()
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(b))
	}
	return texts
}
