package testenv_test

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"claudemesh/bus"
	"claudemesh/testenv"
)

// waitOpen returns when the session's own link is open: the broker may list a session a moment earlier.
func waitOpen(t *testing.T, s *testenv.Session) {
	t.Helper()
	testenv.Wait(t, "the link of "+s.Info.Name, nil, func() bool {
		var me bus.SessionInfo
		s.Do(bus.OpSessionMe, nil, &me)
		return me.Link == "open"
	})
}

func TestASessionJoinsAGroupWhileItRuns(t *testing.T) {
	a, b := testenv.NewMachine(t), testenv.NewMachine(t)
	team := a.Create("team")
	b.Join(a.Share(team), "ben")
	b.WaitLink(team)
	alice, bob, carol := a.Session(team, "alice"), b.Session(team, "bob"), b.Session(team, "carol", "other")
	a.WaitPeer(team, "bob")
	a.WaitPeer(team, "carol")
	waitOpen(t, bob)
	call := func(op, group string) {
		t.Helper()
		if err := testenv.Try(bob.Client, bus.CallSubject(team, bob.Info.ID, op), map[string]string{"name": group}, nil); err != nil {
			t.Fatal(err)
		}
	}
	call(bus.CallJoinGroup, "dev/core")
	alice.Send("@dev", "to the group above")
	bob.WaitMessage("to the group above")
	call(bus.CallLeaveGroup, "dev/core")
	alice.Send("@dev", "to nobody")
	alice.Send("*", "to all")
	bob.WaitMessage("to all")
	carol.WaitMessage("to all")
	for _, s := range []*testenv.Session{bob, carol} {
		for _, item := range s.Inbox() {
			if item.Body == "to nobody" || s == carol && item.Body != "to all" {
				t.Errorf("%s got %q", s.Info.Name, item.Body)
			}
		}
	}
	if err := testenv.Try(bob.Client, bus.CallSubject(team, bob.Info.ID, bus.CallJoinGroup), map[string]string{"name": "a:b"}, nil); testenv.Refusal(err) != "bad_group" {
		t.Error(err)
	}
}

// What a broker refuses because it comes too fast is sent again when it said so: nothing is lost, nothing overtakes, and no attempt is counted.
func TestARateLimitOnlyDelays(t *testing.T) {
	m := testenv.NewMachine(t)
	team := m.Create("team")
	alice, bob := m.Session(team, "alice"), m.Session(team, "bob")
	m.WaitPeer(team, "bob")
	m.WaitPeer(team, "alice")
	if err := testenv.Try(m.User(), bus.CallSubject(team, bus.User, bus.CallMeshSettings), map[string]int{"sendRate": 600, "sendBurst": 5}, nil); err != nil {
		t.Fatal(err)
	}
	const messages = 18
	var last bus.SendReply
	for i := range messages {
		last = alice.Send("bob", fmt.Sprint(i))
	}
	bob.WaitInbox("all messages", func(items []bus.InboxItem) bool { return len(items) == messages })
	for i, item := range bob.Inbox() {
		if item.Body != fmt.Sprint(i) {
			t.Errorf("message %d is %q", i, item.Body)
		}
	}
	if item := m.WaitState(team, last.ClientMessageID, bus.StateDelivered); item.Attempts != 1 {
		t.Errorf("%d attempts", item.Attempts)
	}
}

// A busy session is told of urgent messages only; the others wait on its machine, where the sender knows them delivered, and come when it is idle.
func TestABusySessionIsToldOfUrgentMessagesOnly(t *testing.T) {
	m := testenv.NewMachine(t)
	team := m.Create("team")
	alice, bob := m.Session(team, "alice"), m.Session(team, "bob")
	m.WaitPeer(team, "bob")
	m.WaitPeer(team, "alice")
	waitOpen(t, bob)
	heard, err := bob.Client.Conn().SubscribeSync(bus.WakeSubject(team, bob.Info.ID, bus.RungChannel))
	if err != nil {
		t.Fatal(err)
	}
	bob.Do(bus.OpShim, bus.Shim{PID: os.Getpid()}, nil)
	next := func() string {
		t.Helper()
		msg, err := heard.NextMsg(testenv.Patience)
		if err != nil {
			t.Fatal(err)
		}
		var item bus.InboxItem
		if err := json.Unmarshal(msg.Data, &item); err != nil {
			t.Fatal(err)
		}
		return item.Body
	}
	status := func(s string) {
		t.Helper()
		if err := testenv.Try(bob.Client, bus.CallSubject(team, bob.Info.ID, bus.CallSetStatus), map[string]string{"status": s}, nil); err != nil {
			t.Fatal(err)
		}
	}
	pending := func() (bodies []string) {
		t.Helper()
		var list bus.InboxList
		bob.Do(bus.OpInboxPending, bus.InboxQuery{Via: bus.ViaChannel}, &list)
		for _, item := range list.Items {
			bodies = append(bodies, item.Body)
		}
		return bodies
	}
	status("dnd")
	held := alice.Send("bob", "when you have time")
	m.WaitState(team, held.ClientMessageID, bus.StateDelivered)
	var reply bus.SendReply
	if err := testenv.Try(alice.Client, bus.SendSubject(team, alice.Info.ID, "dm"), bus.SendRequest{To: "bob", Body: "fire", Priority: "now"}, &reply); err != nil {
		t.Fatal(err)
	}
	if got := next(); got != "fire" {
		t.Errorf("heard %q", got)
	}
	if got := pending(); len(got) != 1 || got[0] != "fire" {
		t.Errorf("pending %q", got)
	}
	if got := len(bob.Inbox()); got != 2 {
		t.Errorf("%d messages in the inbox, want both: whoever asks is told", got)
	}
	status("idle")
	if got := next(); got != "when you have time" {
		t.Errorf("heard %q", got)
	}
	if got := pending(); len(got) != 2 {
		t.Errorf("pending %q", got)
	}
}
