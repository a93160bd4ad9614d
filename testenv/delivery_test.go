package testenv_test

import (
	"testing"

	"claudemesh/bus"
	"claudemesh/testenv"
)

func TestTwoSessionsOfOneMachineTalk(t *testing.T) {
	m := testenv.NewMachine(t)
	team := m.Create("team")
	alice, bob := m.Session(team, "alice"), m.Session(team, "bob")
	m.WaitPeer(team, "bob")
	m.WaitPeer(team, "alice")

	sent := alice.Send("bob", "ship it")
	if sent.State != bus.StateAccepted || sent.Duplicate || sent.RecipientName != "bob" {
		t.Errorf("reply to send: %+v", sent)
	}
	got := bob.WaitMessage("ship it")
	if got.FromName != "alice" || got.FromKey != alice.Info.Pubkey || got.To != "bob" || got.Priority != "next" || got.Seen {
		t.Errorf("received: %+v", got)
	}
	m.WaitState(team, sent.ClientMessageID, bus.StateDelivered)

	bob.Do(bus.OpInboxSurfaced, bus.MessageIDs{IDs: []string{got.ID}, Via: bus.ViaChannel}, nil)
	item := m.WaitState(team, sent.ClientMessageID, bus.StateSurfaced)
	if n := len(item.Receipts); n != 2 {
		t.Errorf("%d receipts, want delivered and surfaced: %+v", n, item.Receipts)
	}

	var reply bus.SendReply
	if err := testenv.Try(bob.Client, bus.SendSubject(team, bob.Info.ID, "dm"), bus.SendRequest{To: "alice", Body: "done", ReplyTo: got.ID}, &reply); err != nil {
		t.Fatal(err)
	}
	answer := alice.WaitMessage("done")
	if answer.ReplyTo != sent.ClientMessageID {
		t.Errorf("the answer refers to %q, want the client message id %q", answer.ReplyTo, sent.ClientMessageID)
	}
	m.WaitState(team, sent.ClientMessageID, bus.StateAnswered)

	if items := alice.Inbox(); len(items) != 1 {
		t.Errorf("alice has %d messages, want only the answer: %+v", len(items), items)
	}
}

func TestTwoMachinesTalkThroughAnInvite(t *testing.T) {
	a, b := testenv.NewMachine(t, testenv.WithName("ann")), testenv.NewMachine(t, testenv.WithName("ben"))
	team := a.Create("team")
	if slug := b.Join(a.Share(team), "ben"); slug != team {
		t.Fatalf("joined as %q, want %q", slug, team)
	}
	b.WaitLink(team)
	alice, bob := a.Session(team, "alice"), b.Session(team, "bob")
	a.WaitPeer(team, "bob")

	sent := alice.Send("bob", "over the wire")
	got := bob.WaitMessage("over the wire")
	if got.FromName != "alice" {
		t.Errorf("from %q, want alice", got.FromName)
	}
	a.WaitState(team, sent.ClientMessageID, bus.StateDelivered)

	// To the member: every session of it, and whoever comes when none is there.
	a.Send(team, bus.SendRequest{To: b.MemberKey(team), Body: "for all of ben"})
	bob.WaitMessage("for all of ben")
}

func TestMulticastReachesEverySessionButTheSender(t *testing.T) {
	a, b := testenv.NewMachine(t), testenv.NewMachine(t)
	team := a.Create("team")
	b.Join(a.Share(team), "ben")
	b.WaitLink(team)
	alice, sibling := a.Session(team, "alice", "dev"), a.Session(team, "sibling")
	bob := b.Session(team, "bob", "dev")
	a.WaitPeer(team, "sibling")
	a.WaitPeer(team, "bob")

	alice.Send("*", "to all")
	bob.WaitMessage("to all")
	sibling.WaitMessage("to all")
	alice.Send("@dev", "to dev")
	got := bob.WaitMessage("to dev")
	if got.To != "@dev" {
		t.Errorf("to %q, want @dev", got.To)
	}
	alice.Send("sibling", "end") // same links as the multicasts before: when it is here, they would be
	sibling.WaitMessage("end")
	for _, it := range sibling.Inbox() {
		if it.Body == "to dev" {
			t.Error("a session outside the group got the group's message")
		}
	}
	if items := alice.Inbox(); len(items) != 0 {
		t.Errorf("the sender got its own multicast: %+v", items)
	}
}

func TestMailWaitsForAnOfflineMachine(t *testing.T) {
	a, b := testenv.NewMachine(t), testenv.NewMachine(t)
	team := a.Create("team")
	b.Join(a.Share(team), "ben")
	b.WaitLink(team)
	bob := b.Session(team, "bob")
	a.WaitPeer(team, "bob")
	bob.Client.Close()
	b.Stop()

	sent := a.Send(team, bus.SendRequest{To: "bob", Body: "while you slept"})
	a.Send(team, bus.SendRequest{To: "*", Body: "to all, asleep or not"})
	a.WaitState(team, sent.ClientMessageID, bus.StateSent)

	b.Start()
	back := testenv.Resume(b, bob)
	back.WaitMessage("while you slept")
	back.WaitMessage("to all, asleep or not")
	a.WaitState(team, sent.ClientMessageID, bus.StateDelivered)
}

func TestTheNextSessionOfANameGetsItsMail(t *testing.T) {
	m := testenv.NewMachine(t)
	team := m.Create("team")
	bob := m.Session(team, "bob")
	m.WaitPeer(team, "bob")
	m.Do(bus.OpSessionEnd, bus.SessionID{ID: bob.Info.ID}, nil)
	sent := m.Send(team, bus.SendRequest{To: "bob", Body: "see you tomorrow"})
	m.WaitState(team, sent.ClientMessageID, bus.StateSent)

	next := m.Session(team, "bob")
	if next.Info.Pubkey != bob.Info.Pubkey {
		t.Errorf("the next bob has key %s, want the last one's %s", next.Info.Pubkey, bob.Info.Pubkey)
	}
	next.WaitMessage("see you tomorrow")
}

func TestADownMeshAcceptsAndDelaysNoOther(t *testing.T) {
	a, b := testenv.NewMachine(t), testenv.NewMachine(t)
	far := a.Create("far")
	b.Join(a.Share(far), "ben")
	b.WaitLink(far)
	near := b.Create("near")
	b.WaitLink(near)
	bob := b.Session(near, "bob")
	carol := a.Session(far, "carol")
	b.WaitPeer(far, "carol")
	b.WaitPeer(near, "bob")
	carol.Client.Close()
	a.Stop()
	b.WaitDown(far)

	known := b.Send(far, bus.SendRequest{To: "carol", Body: "known name"})
	unknown := b.Send(far, bus.SendRequest{To: "dora", Body: "name of the future"})
	for _, r := range []bus.SendReply{known, unknown} {
		if r.Code != 202 || r.State != bus.StateAccepted || r.Note == "" {
			t.Errorf("send to a down mesh: %+v", r)
		}
	}
	b.Send(near, bus.SendRequest{To: "bob", Body: "not delayed"})
	bob.WaitMessage("not delayed")

	a.Start()
	carol = testenv.Resume(a, carol)
	carol.WaitMessage("known name")
	dora := a.Session(far, "dora")
	dora.WaitMessage("name of the future")
}
