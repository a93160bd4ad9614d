package testenv_test

import (
	"fmt"
	"testing"

	"claudemesh/bus"
	"claudemesh/testenv"
)

func TestASessionJoinsAGroupWhileItRuns(t *testing.T) {
	a, b := testenv.NewMachine(t), testenv.NewMachine(t)
	team := a.Create("team")
	b.Join(a.Share(team), "ben")
	b.WaitLink(team)
	alice, bob, carol := a.Session(team, "alice"), b.Session(team, "bob"), b.Session(team, "carol", "other")
	a.WaitPeer(team, "bob")
	a.WaitPeer(team, "carol")
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
