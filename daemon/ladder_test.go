package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/daemon/inbox"
	"claudemesh/daemon/session"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// laddered is a daemon with one session, and what is published for its rungs.
type laddered struct {
	t          *testing.T
	d          *Daemon
	m          *meshRun
	me         bus.SessionInfo
	sender     mesh.Identity
	transcript string
	rungs      map[string]*nats.Subscription
}

func newLaddered(t *testing.T) *laddered {
	t.Helper()
	d, m := running(t)
	l := &laddered{t: t, d: d, m: m, sender: newIdentity(t), transcript: filepath.Join(t.TempDir(), "t.jsonl"), rungs: map[string]*nats.Subscription{}}
	var err error
	l.me, err = ask[bus.SessionInfo](t, d.startSession, bus.User, "", "", bus.SessionStart{Mesh: "team", Name: "bob", PID: os.Getpid()})
	must(t, err)
	nc, err := d.server.BusConn()
	must(t, err)
	t.Cleanup(nc.Close)
	for _, rung := range []string{bus.RungChannel, bus.RungWake, bus.RungNudge} {
		l.rungs[rung], err = nc.SubscribeSync(bus.WakeSubject("team", l.me.ID, rung))
		must(t, err)
	}
	must(t, nc.Flush())
	return l
}

// receive lets a message arrive and returns how it is stored.
func (l *laddered) receive(text, priority string) inbox.Message {
	l.t.Helper()
	p := sealed(l.t, l.sender, l.me.Pubkey, text)
	p.MessageID, p.ClientMessageID, p.Priority = "broker-"+text, "client-"+text, priority
	_, err := l.m.Push(l.t.Context(), bridge.Source{Session: l.me.ID, Key: l.me.Pubkey}, []wire.Push{p})
	must(l.t, err)
	rows, err := l.d.inbox.Waiting(l.t.Context(), l.me.ID, 0)
	must(l.t, err)
	return rows[len(rows)-1].Message
}

func (l *laddered) hook(ev bus.HookEvent) bus.HookReply {
	l.t.Helper()
	ev.Transcript, ev.Conversation = l.transcript, "conversation"
	reply, err := ask[bus.HookReply](l.t, l.d.hook, l.me.ID, "", "", ev)
	must(l.t, err)
	return reply
}

func (l *laddered) delivery(m inbox.Message) inbox.Delivery {
	l.t.Helper()
	all, err := l.d.inbox.Deliveries(l.t.Context(), m.ID)
	must(l.t, err)
	if len(all) != 1 {
		l.t.Fatalf("%d deliveries", len(all))
	}
	return all[0]
}

func (l *laddered) surfaced(m inbox.Message, via, evidence string) {
	l.t.Helper()
	eventually(l.t, m.ClientMessageID+" to surface", func() bool { return l.delivery(m).State == inbox.DeliverySurfaced })
	if got := l.delivery(m); got.Via != via || got.Evidence != evidence {
		l.t.Errorf("%s surfaced via %s by %s, want %s by %s", m.ClientMessageID, got.Via, got.Evidence, via, evidence)
	}
}

func texts(items []bus.InboxItem) (out string) {
	for _, it := range items {
		out += it.Body + " "
	}
	return out
}

func TestWhatTheTranscriptHoldsHasSurfaced(t *testing.T) {
	l := newLaddered(t)
	l.hook(bus.HookEvent{Event: "SessionStart", PID: os.Getpid()})
	state, err := ask[bus.ShimState](t, l.d.shim, l.me.ID, "", "", bus.Shim{PID: os.Getpid()})
	must(t, err)
	if state.Quiet || state.Wake == nil || state.Wake.Rung != bus.RungChannel || state.Wake.Channel != bus.ChannelUnproven {
		t.Fatalf("the shim is told %+v", state.Wake)
	}
	msg := l.receive("one", wire.PriorityNext)
	if _, err := l.rungs[bus.RungChannel].NextMsg(patience); err != nil {
		t.Fatal("nothing is published for the shim:", err)
	}
	_, err = ask[bus.Count](t, l.d.markPushed, l.me.ID, "", "", bus.MessageIDs{IDs: []string{msg.ID}, Via: bus.ViaChannel})
	must(t, err)
	if got := l.delivery(msg); got.State != inbox.DeliveryPushed || got.PushedVia != bus.ViaChannel {
		t.Fatalf("written to the client, it is %+v", got)
	}
	appendTo(t, l.transcript, `{"type":"user","content":"<channel source=\"mesh\" message_id=\"broker-one\">"}`+"\n")
	l.surfaced(msg, bus.ViaChannel, inbox.EvidenceTranscript)
	eventually(t, "the channel to be proven", func() bool { return l.d.ladder.of(l.me.ID).info().Channel == bus.ChannelProven })

	t.Run("a client inside of the client is told to be quiet, and its hooks mean nothing", func(t *testing.T) {
		state, err := ask[bus.ShimState](t, l.d.shim, l.me.ID, "", "", bus.Shim{PID: os.Getppid()})
		must(t, err)
		if !state.Quiet {
			t.Error("it is not")
		}
		if reply, err := ask[bus.HookReply](t, l.d.hook, l.me.ID, "", "", bus.HookEvent{Event: "UserPromptSubmit", PID: os.Getppid(), Drain: true}); err != nil || reply.Session != "" {
			t.Errorf("%+v %v", reply, err)
		}
	})
	t.Run("what is known of the channel outlives the daemon's process", func(t *testing.T) {
		var s session.Session
		eventually(t, "it to be kept", func() (kept bool) {
			var err error
			s, err = l.d.session.Get(t.Context(), l.me.ID)
			must(t, err)
			return strings.Contains(string(s.Wake), bus.ChannelProven)
		})
		again := newClimber(l.d.ladder, l.m, s, func() {})
		if again.Channel != bus.ChannelProven || !again.Hooks || again.transcript.path != l.transcript || again.clientPID != os.Getpid() {
			t.Errorf("%+v", again.kept)
		}
	})
}

// status is what the session has said of itself, by hand or by hook.
func (l *laddered) status() string {
	said := l.m.saidBy(l.me.ID)
	said.Lock()
	defer said.Unlock()
	return said.Status
}

func TestHooksHandOverAtTheBoundariesOfATurn(t *testing.T) {
	l := newLaddered(t)
	l.hook(bus.HookEvent{Event: "SessionStart"})
	l.hook(bus.HookEvent{Event: "UserPromptSubmit", Drain: true})
	eventually(t, "the client to be working", func() bool { return l.status() == wire.StatusWorking })
	next, low := l.receive("next", wire.PriorityNext), l.receive("low", wire.PriorityLow)
	if reply := l.hook(bus.HookEvent{Event: "Notification", Notification: "other", Drain: true}); len(reply.Items) != 0 {
		t.Errorf("a notification is no boundary: %q", texts(reply.Items))
	}
	reply := l.hook(bus.HookEvent{Event: "PostToolUse", Drain: true})
	if texts(reply.Items) != "next " || reply.Items[0].Repeat || reply.Items[0].Kind != "dm" {
		t.Fatalf("after a tool: %+v", reply.Items)
	}
	if got := l.delivery(next).State; got != inbox.DeliveryPushed {
		t.Errorf("handed over to a hook, it is %s", got)
	}
	// The turn went on: the hook was heard. At its end what can wait is told, too, and the turn goes on once more.
	if reply = l.hook(bus.HookEvent{Event: "Stop", Drain: true}); texts(reply.Items) != "low " {
		t.Errorf("at the end of the turn: %q", texts(reply.Items))
	}
	l.surfaced(next, bus.ViaHook, inbox.EvidenceTurn)
	if reply = l.hook(bus.HookEvent{Event: "Stop", StopActive: true, Drain: true}); len(reply.Items) != 0 {
		t.Errorf("told twice: %q", texts(reply.Items))
	}
	l.surfaced(low, bus.ViaHook, inbox.EvidenceTurn)
	eventually(t, "the client to be idle", func() bool { return l.status() == wire.StatusIdle })
}

func TestAHookThatWaitsWakesItsClient(t *testing.T) {
	l := newLaddered(t)
	wait := func(req bus.HookWait) bus.HookReply {
		t.Helper()
		reply, err := ask[bus.HookReply](t, l.d.hookWait, l.me.ID, "", "", req)
		must(t, err)
		return reply
	}
	l.hook(bus.HookEvent{Event: "SessionStart"})
	if reply := wait(bus.HookWait{Waiter: "w1", First: true}); reply.Over || len(reply.Items) != 0 {
		t.Fatalf("%+v", reply)
	}
	if reply := wait(bus.HookWait{Waiter: "w2", First: true}); reply.Over {
		t.Fatal("the newest one is sent away")
	}
	if !wait(bus.HookWait{Waiter: "w1"}).Over {
		t.Error("an older one stays")
	}
	msg := l.receive("hello", wire.PriorityNext)
	eventually(t, "a poke", func() bool {
		m, err := l.rungs[bus.RungWake].NextMsg(patience)
		return err == nil && m != nil && l.d.ladder.of(l.me.ID).info().Waiting
	})
	if reply := wait(bus.HookWait{Waiter: "w2"}); texts(reply.Items) != "hello " {
		t.Fatalf("the hook is given %q", texts(reply.Items))
	}
	// The client starts a turn with it, and shows the hook of the prompt what it shows its model.
	reply := l.hook(bus.HookEvent{Event: "UserPromptSubmit", Drain: true, Seen: []string{"broker-hello"}})
	if len(reply.Items) != 0 {
		t.Errorf("told twice: %q", texts(reply.Items))
	}
	l.surfaced(msg, bus.ViaWake, inbox.EvidenceTurn)
	// Where hooks wait, the end of a turn is theirs.
	l.receive("later", wire.PriorityNext)
	if reply := l.hook(bus.HookEvent{Event: "Stop", Drain: true}); len(reply.Items) != 0 {
		t.Errorf("the end of the turn told %q", texts(reply.Items))
	}
	if reply := wait(bus.HookWait{Waiter: "w3", First: true}); texts(reply.Items) != "later " {
		t.Errorf("the hook that waits next is given %q", texts(reply.Items))
	}
}

func TestAFloodIsCounted(t *testing.T) {
	l := newLaddered(t)
	l.hook(bus.HookEvent{Event: "SessionStart"})
	for _, n := range []string{"1", "2", "3", "4", "5", "6", "7"} {
		l.receive(n, wire.PriorityNext)
	}
	reply := l.hook(bus.HookEvent{Event: "UserPromptSubmit", Drain: true})
	if texts(reply.Items) != "1 2 3 4 5 " || len(reply.More) != 1 || reply.More[0].Count != 2 {
		t.Errorf("shown %q, counted %+v", texts(reply.Items), reply.More)
	}
	if reply = l.hook(bus.HookEvent{Event: "PostToolUse", Drain: true}); len(reply.Items)+len(reply.More) != 0 {
		t.Errorf("and again %+v", reply)
	}
	list, err := ask[bus.InboxList](t, l.d.listInbox, l.me.ID, "", "", bus.InboxQuery{Unread: true})
	must(t, err)
	if len(list.Items) != 7 {
		t.Errorf("%d are unread: what was counted, and what was shown but not listed, stays so", len(list.Items))
	}
}

func TestAStatusByHandIsNotLiftedByHooks(t *testing.T) {
	l := newLaddered(t)
	eventually(t, "the session's link to open", func() bool {
		link, ok := l.m.links.Session(l.me.ID)
		return ok && link.State().Phase == bridge.Open
	})
	_, err := ask[any](t, l.d.call, l.me.ID, "team", wire.TypeSetStatus, wire.SetStatus{Status: wire.StatusDND})
	must(t, err)
	l.receive("next", wire.PriorityNext)
	l.receive("now", wire.PriorityNow)
	if reply := l.hook(bus.HookEvent{Event: "UserPromptSubmit", Drain: true}); texts(reply.Items) != "now " {
		t.Errorf("who wants no disturbance is told %q", texts(reply.Items))
	}
	if got := l.status(); got != wire.StatusDND {
		t.Errorf("the status is %s", got)
	}
}

// A client starts the hooks of an event all at once: the one that waits may be the first to be heard.
func TestAWaitingHookThatIsHeardFirstMakesTheClientASession(t *testing.T) {
	d, _ := running(t)
	req := bus.HookWait{Waiter: "w1", First: true, PID: os.Getpid(), Conversation: "c1", Event: "SessionStart", Cwd: "/src/app"}
	reply, err := ask[bus.HookReply](t, d.hookWait, bus.User, "", "", req)
	must(t, err)
	if reply.Over || reply.Name != "app" {
		t.Fatalf("it is told %+v", reply)
	}
	hook, err := ask[bus.HookReply](t, d.hook, bus.User, "", "", bus.HookEvent{Event: "SessionStart", PID: os.Getpid(), Conversation: "c1"})
	must(t, err)
	if hook.Session != reply.Session {
		t.Errorf("the other hook is of session %q, want %q", hook.Session, reply.Session)
	}
	if !d.ladder.of(reply.Session).info().Waiting {
		t.Error("nobody waits")
	}
}

func TestAClientThatNobodyLaunchedBecomesASession(t *testing.T) {
	d, _ := running(t)
	req := bus.SessionAttach{PID: os.Getpid(), Cwd: "/src/My App!", Conversation: "c1"}
	first, err := ask[bus.SessionInfo](t, d.attachSession, bus.User, "", "", req)
	must(t, err)
	if first.Name != "My-App" || first.Mesh != "team" || first.Conversation != "c1" {
		t.Errorf("%+v", first)
	}
	again, err := ask[bus.SessionInfo](t, d.attachSession, bus.User, "", "", req)
	must(t, err)
	if again.ID != first.ID || again.TokenFile != first.TokenFile {
		t.Error("asked twice, it is two sessions")
	}
	reply, err := ask[bus.HookReply](t, d.hook, bus.User, "", "", bus.HookEvent{Event: "SessionStart", PID: os.Getpid(), Conversation: "c2"})
	must(t, err)
	if reply.Session != first.ID || reply.TokenFile != first.TokenFile {
		t.Errorf("its hook is told %+v", reply)
	}
	if s, err := d.session.Get(t.Context(), first.ID); err != nil || s.Conversation != "c2" {
		t.Errorf("a new conversation is not followed: %q, %v", s.Conversation, err)
	}
	other, err := ask[bus.SessionInfo](t, d.attachSession, bus.User, "", "", bus.SessionAttach{PID: os.Getppid(), Cwd: "/x/My App!"})
	must(t, err)
	if other.Name != "My-App-2" {
		t.Errorf("a second client of the same directory is called %q", other.Name)
	}
	if reply, err := ask[bus.HookReply](t, d.hook, bus.User, "", "", bus.HookEvent{Event: "Stop", PID: 1}); err != nil || reply.Session != "" {
		t.Errorf("a stranger's hook is told %+v, %v", reply, err)
	}
}
