package testenv_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"claudemesh/bus"
	"claudemesh/daemon"
	"claudemesh/testenv"
	"claudemesh/testenv/faultproxy"
)

// The cold path against a real broker, beside a real daemon that comes and goes.

func openCold(t *testing.T, m *testenv.Machine) *daemon.Cold {
	t.Helper()
	c, err := daemon.OpenCold(daemon.Options{Dir: m.Dir(), ConfigDir: filepath.Dir(m.Dir()), Version: "0.0.0-test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestAMessageThatTheDaemonHadOnItsWayIsNotSentTwiceByTheColdPath(t *testing.T) {
	f := newFaulty(t)
	const id = "one-message"
	f.toA.mu.Lock()
	acks := 0
	f.toA.hold = func(p passed) bool { // the daemon never learns that the broker has it
		if p.dir == faultproxy.ToClient && p.kind == "ack" && p.cmid == id {
			acks++
		}
		return p.kind == "ack" && p.cmid == id && acks == 1
	}
	f.toA.mu.Unlock()
	req := bus.SendRequest{To: "bob", Body: "once", ClientMessageID: id}
	f.ann.Send(f.mesh, req)
	f.toA.waitCount(faultproxy.ToClient, "ack", id, 1)
	f.ann.Stop()

	cold := openCold(t, f.ann)
	var reply bus.SendReply
	if err := cold.Do(t.Context(), bus.SendSubject(f.mesh, bus.User, bus.SendDM), req, &reply); err != nil {
		t.Fatal(err)
	}
	if !reply.Duplicate || reply.State != bus.StateSent || reply.BrokerMessageID == "" {
		t.Errorf("%+v", reply)
	}
	other := req
	other.Body = "something else"
	refusal(t, cold.Do(t.Context(), bus.SendSubject(f.mesh, bus.User, bus.SendDM), other, nil), 409, "idempotency_key_reused")
	cold.Close()

	f.ann.Start()
	f.ann.WaitState(f.mesh, id, bus.StateDelivered)
	f.alice = testenv.Resume(f.ann, f.alice)
	if got := f.bodies(); !slices.Equal(got, []string{"once"}) {
		t.Errorf("bob has %q", got)
	}
}

func TestTheColdPathTakesNoMail(t *testing.T) {
	f := newFaulty(t)
	key := f.ann.MemberKey(f.mesh)
	f.ann.Stop()
	sent := f.bob.Send(key, "are you there")
	cold := openCold(t, f.ann)
	var peers bus.PeersReply
	if err := cold.Do(t.Context(), bus.CallSubject(f.mesh, bus.User, bus.CallListPeers), nil, &peers); err != nil || len(peers.Peers) == 0 {
		t.Fatalf("%+v, %v", peers, err)
	}
	f.toA.waitCount(faultproxy.ToClient, "push", sent.ClientMessageID, 1)
	// It goes on being of use, and stays silent about what it was pushed.
	var reply bus.SendReply
	if err := cold.Do(t.Context(), bus.SendSubject(f.mesh, bus.User, bus.SendAll), bus.SendRequest{To: "*", Body: "end"}, &reply); err != nil {
		t.Fatal(err)
	}
	f.bob.WaitMessage("end")
	cold.Close()
	if n := f.toA.count(faultproxy.ToBroker, "client_ack", sent.ClientMessageID); n != 0 {
		t.Errorf("acknowledged %d times", n)
	}
	f.ann.Start()
	f.ben.WaitState(f.mesh, sent.ClientMessageID, bus.StateDelivered)
}

func TestABrokerThatDoesNotAnswerLeavesTheOutcomeOpen(t *testing.T) {
	f := newFaulty(t)
	f.ann.Stop()
	f.toA.mu.Lock()
	f.toA.hold = func(p passed) bool { return p.kind == "ack" }
	f.toA.react = func(p passed) {
		if p.kind == "ack" {
			go f.toA.DropAll()
		}
	}
	f.toA.mu.Unlock()
	cold := openCold(t, f.ann)
	err := cold.Do(t.Context(), bus.SendSubject(f.mesh, bus.User, bus.SendDM), bus.SendRequest{To: "bob", Body: "x", ClientMessageID: "k"}, nil)
	if !errors.Is(err, bus.ErrInterrupted) {
		t.Errorf("%v", err)
	}
	f.bob.WaitMessage("x")
	f.toA.Cut()
	refusal(t, cold.Do(t.Context(), bus.CallSubject(f.mesh, bus.User, bus.CallListPeers), nil, nil), 503, "mesh_down")
}

func TestWhatNeedsADaemonIsRefusedWithoutOne(t *testing.T) {
	m := testenv.NewMachine(t)
	mesh := m.Create("team")
	m.WaitLink(mesh)
	cold := openCold(t, m)
	for name, c := range map[string]struct {
		subject string
		in      any
	}{
		"a post":               {bus.SendSubject(mesh, bus.User, bus.SendTopic), bus.SendRequest{To: "#general", Body: "x"}},
		"a reply":              {bus.SendSubject(mesh, bus.User, bus.SendAll), bus.SendRequest{To: "*", Body: "x", ReplyTo: "y"}},
		"a session's send":     {bus.SendSubject(mesh, "alice", bus.SendAll), bus.SendRequest{To: "*", Body: "x"}},
		"a status":             {bus.CallSubject(mesh, bus.User, bus.CallSetStatus), nil},
		"a topic's key":        {bus.CallSubject(mesh, bus.User, bus.CallTopicHistory), nil},
		"the inbox":            {bus.DaemonSubject(bus.User, bus.OpInboxList), nil},
		"a session":            {bus.DaemonSubject(bus.User, bus.OpSessionStart), nil},
		"an end of the daemon": {bus.DaemonSubject(bus.User, bus.OpShutdown), nil},
	} {
		t.Run(name, func(t *testing.T) {
			refusal(t, cold.Do(context.Background(), c.subject, c.in, nil), 409, daemon.ReasonNeedsDaemon)
		})
	}
	refusal(t, cold.Do(t.Context(), bus.CallSubject(mesh, bus.User, "hello"), nil, nil), 400, "bad_operation")
	refusal(t, cold.Do(t.Context(), bus.CallSubject("nowhere", bus.User, bus.CallListPeers), nil, nil), 404, "mesh_not_joined")
	refusal(t, cold.Do(t.Context(), bus.SendSubject(mesh, bus.User, bus.SendDM), bus.SendRequest{To: "nobody", Body: "x"}, nil), 404, "peer_not_found")
	refusal(t, cold.Do(t.Context(), bus.SendSubject(mesh, bus.User, bus.SendDM), bus.SendRequest{To: "user", Body: "x"}, nil), 400, "self")
}
