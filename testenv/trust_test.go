package testenv_test

import (
	"strings"
	"testing"

	"claudemesh/bus"
	"claudemesh/testenv"
)

func TestWhoTakesAnothersNameIsNoticed(t *testing.T) {
	host := testenv.NewMachine(t, testenv.WithName("host"))
	team := host.Create("team")
	invite := host.Share(team)
	join := func(name string) *testenv.Machine {
		m := testenv.NewMachine(t, testenv.WithName(name))
		m.Join(invite, name)
		m.WaitLink(team)
		return m
	}
	alice := host.Session(team, "alice")
	ben := join("ben")
	bob := ben.Session(team, "bob")
	ben.WaitPeer(team, "alice")
	host.WaitPeer(team, "bob")
	hear := func(s *testenv.Session, text, want string) {
		t.Helper()
		s.Send("alice", text)
		if got := alice.WaitMessage(text); got.Trust != want {
			t.Errorf("%q is from a peer that is %q, want %q", text, got.Trust, want)
		}
	}
	state := func(m *testenv.Machine, name string) bus.TrustState {
		t.Helper()
		var l bus.TrustList
		host.Do(bus.OpTrust, bus.TrustQuery{Mesh: team, Members: []bus.TrustRef{{MemberKey: m.MemberKey(team), Names: []string{name}}}}, &l)
		return l.Members[0]
	}
	if s := state(ben, "bob"); s.State != bus.TrustNew {
		t.Errorf("before any contact: %+v", s)
	}
	hear(bob, "hello", bus.TrustNew)
	hear(bob, "hello again", bus.TrustKnown)
	if got := alice.WaitMessage("hello"); got.Trust != bus.TrustNew {
		t.Errorf("the first message reads %q later", got.Trust)
	}
	if r := alice.Send("bob", "who are you?"); r.Warning != "" {
		t.Errorf("warning %q", r.Warning)
	}

	t.Run("a confirmed key is verified, and only the user confirms", func(t *testing.T) {
		confirm := bus.TrustConfirm{Mesh: team, TrustRef: bus.TrustRef{MemberKey: ben.MemberKey(team)}}
		if err := testenv.Try(alice.Client, bus.DaemonSubject(alice.Info.ID, bus.OpTrustConfirm), confirm, nil); testenv.Refusal(err) != "forbidden" {
			t.Errorf("by a session: %v", err)
		}
		host.Do(bus.OpTrustConfirm, confirm, nil)
		hear(bob, "now you know", bus.TrustVerified)
	})

	benKey := ben.MemberKey(team)
	ben.Stop()
	eve := join("eve")
	fake := eve.Session(team, " BOB ")
	eve.WaitPeer(team, "alice")
	hear(fake, "it is me, bob", bus.TrustChanged)
	hear(fake, "really", bus.TrustChanged)
	host.WaitPeer(team, " BOB ")
	eveKey := eve.MemberKey(team)
	r := alice.Send(fake.Info.Pubkey, "by its key")
	if r.Warning != "" {
		t.Errorf("who names a key is warned: %q", r.Warning)
	}

	t.Run("the warning outlives the daemon", func(t *testing.T) {
		host.Stop()
		host.Start()
		if s := state(eve, "bob"); s.State != bus.TrustChanged || len(s.Was) != 1 || s.Was[0] != benKey {
			t.Errorf("%+v", s)
		}
		if s := state(eve, "eve"); s.State != bus.TrustKnown {
			t.Errorf("under a name of its own: %+v", s)
		}
	})
	t.Run("until the user confirms", func(t *testing.T) {
		host.Do(bus.OpTrustConfirm, bus.TrustConfirm{Mesh: team, TrustRef: bus.TrustRef{MemberKey: eveKey, Names: []string{"bob"}}}, nil)
		if s := state(eve, "bob"); s.State != bus.TrustVerified {
			t.Errorf("%+v", s)
		}
	})
}

func TestASendToANameThatChangedHandsIsWarned(t *testing.T) {
	host := testenv.NewMachine(t, testenv.WithName("host"))
	team := host.Create("team")
	invite := host.Share(team)
	alice := host.Session(team, "alice")
	var keys []string
	for i, name := range []string{"ben", "eve"} {
		m := testenv.NewMachine(t, testenv.WithName(name))
		m.Join(invite, name)
		m.WaitLink(team)
		m.Session(team, "bob")
		host.WaitPeer(team, "bob")
		keys = append(keys, m.MemberKey(team))
		r := alice.Send("bob", "are you there?")
		if i == 0 && r.Warning != "" {
			t.Errorf("at first: %q", r.Warning)
		}
		if i == 1 {
			for _, part := range []string{keys[0][:16], keys[1][:16], "claudemesh verify bob"} {
				if !strings.Contains(r.Warning, part) {
					t.Errorf("the warning %q does not name %s", r.Warning, part)
				}
			}
		}
		m.Stop()
		testenv.Wait(t, "bob to be gone", nil, func() bool {
			var r bus.PeersReply
			if testenv.Try(host.User(), bus.CallSubject(team, bus.User, bus.CallListPeers), nil, &r) != nil {
				return false
			}
			for _, p := range r.Peers {
				if p.DisplayName == "bob" {
					return false
				}
			}
			return true
		})
	}
}
