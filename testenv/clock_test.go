package testenv_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"

	"claudemesh/bus"
	"claudemesh/testenv"
	"claudemesh/testenv/faultproxy"
)

// days is injected time that all machines of a test share. It flows by itself, five times as fast as real time, so that pauses and retries go on, and skip
// lets hours pass in a moment.
type days struct {
	*clockwork.FakeClock
}

func newDays(t *testing.T) days {
	d := days{clockwork.NewFakeClockAt(time.Now())}
	stop := make(chan struct{})
	var flow sync.WaitGroup
	flow.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				d.Advance(50 * time.Millisecond)
			case <-stop:
				return
			}
		}
	})
	t.Cleanup(func() {
		close(stop)
		flow.Wait()
	})
	return d
}

// skip lets time pass in steps of twenty seconds: short enough that every timer of the house goes off many times on the way.
func (d days) skip(total time.Duration) {
	const step = 20 * time.Second
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ; total > 0; total -= step {
		<-tick.C
		d.Advance(step)
	}
}

// retry ends the pauses of all links that wait for their next attempt: none is longer.
func (d days) retry() { d.Advance(30 * time.Second) }

// sleepy is a mesh on injected time: the broker on one machine, Ann and Ben on two others, whose networks can be cut.
type sleepy struct {
	t              *testing.T
	days           days
	mesh           string
	host, ann, ben *testenv.Machine
	netA, netB     *faultproxy.Proxy
	alice, bob     *testenv.Session
}

func newSleepy(t *testing.T) *sleepy {
	t.Helper()
	d := newDays(t)
	s := &sleepy{t: t, days: d, host: testenv.NewMachine(t, testenv.WithClock(d), testenv.WithName("host"))}
	s.mesh = s.host.Create("team")
	s.host.WaitLink(s.mesh)
	var status bus.Status
	s.host.Do(bus.OpStatus, nil, &status)
	join := func(name string) (*testenv.Machine, *faultproxy.Proxy) {
		p, err := faultproxy.New(status.Broker.URL)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		m := testenv.NewMachine(t, testenv.WithClock(d), testenv.WithName(name))
		var invite bus.MeshInvite
		s.host.Do(bus.OpMeshShare, bus.MeshShare{Mesh: s.mesh, BrokerURL: p.URL()}, &invite)
		m.Join(invite.Invite, name)
		m.WaitLink(s.mesh)
		return m, p
	}
	s.ann, s.netA = join("ann")
	s.ben, s.netB = join("ben")
	s.alice, s.bob = s.ann.Session(s.mesh, "alice"), s.ben.Session(s.mesh, "bob")
	s.ann.WaitPeer(s.mesh, "bob")
	t.Cleanup(s.nothingDied)
	return s
}

// nothingDied is what all of these tests are about.
func (s *sleepy) nothingDied() {
	if s.t.Failed() {
		return
	}
	for _, m := range []*testenv.Machine{s.host, s.ann, s.ben} {
		var dead bus.OutboxList
		m.Do(bus.OpOutboxList, bus.OutboxQuery{Status: "dead"}, &dead)
		for _, row := range dead.Items {
			s.t.Errorf("the message to %s died after %d attempts: %s", row.Target, row.Attempts, row.LastError)
		}
	}
}

func (s *sleepy) waitSession(m *testenv.Machine, id string) {
	s.t.Helper()
	testenv.Wait(s.t, "the session's link to open", nil, func() bool {
		var l bus.SessionList
		m.Do(bus.OpSessionList, nil, &l)
		for _, i := range l.Sessions {
			if i.ID == id {
				return i.Link == "open"
			}
		}
		return false
	})
}

func TestMailWaitsForARecipientThatSleepsAnHour(t *testing.T) {
	s := newSleepy(t)
	s.bob.Client.Close()
	s.ben.Stop()
	toBob := s.alice.Send("bob", "to Bob")
	toBen := s.ann.Send(s.mesh, bus.SendRequest{To: "*", Body: "to all"})
	s.days.skip(time.Hour)
	last := s.alice.Send("bob", "an hour later")

	s.ben.Start()
	s.bob = testenv.Resume(s.ben, s.bob)
	for _, body := range []string{"to Bob", "to all", "an hour later"} {
		s.bob.WaitMessage(body)
	}
	for _, r := range []bus.SendReply{toBob, toBen, last} {
		s.ann.WaitState(s.mesh, r.ClientMessageID, bus.StateDelivered)
	}
	if n := len(s.bob.Inbox()); n != 3 {
		t.Errorf("Bob has %d messages, want 3", n)
	}
}

func TestANameThatNobodyHasIsTriedForAnHour(t *testing.T) {
	s := newSleepy(t)
	s.netA.Cut()
	s.ann.WaitDown(s.mesh)
	sent := s.alice.Send("dora", "whenever you come") // cannot be looked up now
	s.netA.Restore()
	s.days.retry()
	s.ann.WaitLink(s.mesh)
	s.days.skip(time.Hour)

	var item bus.OutboxItem
	s.ann.Do(bus.OpOutboxGet, bus.OutboxGet{ID: sent.ClientMessageID, Mesh: s.mesh}, &item)
	if item.State != bus.StateAccepted || item.Attempts < 10 || item.LastError == "" {
		t.Errorf("after an hour without Dora: %+v", item)
	}
	s.ben.Session(s.mesh, "dora").WaitMessage("whenever you come")
	s.ann.WaitState(s.mesh, sent.ClientMessageID, bus.StateDelivered)
}

func TestASessionThatWasCutOffForThirteenHoursComesBack(t *testing.T) {
	s := newSleepy(t)
	s.netB.Cut()
	s.ben.WaitDown(s.mesh)
	sent := s.alice.Send("bob", "good night")
	s.days.skip(13 * time.Hour) // what the member said about the session's key was good for twelve
	s.netB.Restore()
	s.days.retry()
	s.waitSession(s.ben, s.bob.Info.ID)
	s.bob.WaitMessage("good night")
	s.ann.WaitState(s.mesh, sent.ClientMessageID, bus.StateDelivered)
	back := s.bob.Send("alice", "good morning")
	s.alice.WaitMessage("good morning")
	s.ben.WaitState(s.mesh, back.ClientMessageID, bus.StateDelivered)
}

func TestALinkThatStandsForThirteenHoursStillCarries(t *testing.T) {
	s := newSleepy(t)
	for i := range 3 {
		s.days.skip(5 * time.Hour)
		body := fmt.Sprint("message ", i)
		sent := s.alice.Send("bob", body)
		s.bob.WaitMessage(body)
		s.ann.WaitState(s.mesh, sent.ClientMessageID, bus.StateDelivered)
	}
}

func TestABrokerThatIsDownForADayLosesNothing(t *testing.T) {
	s := newSleepy(t)
	s.host.Stop()
	s.ann.WaitDown(s.mesh)
	var sent []bus.SendReply
	for i := range 4 {
		r := s.alice.Send("bob", fmt.Sprint("message ", i))
		if r.Code != 202 || r.State != bus.StateAccepted {
			t.Errorf("a send while the broker is down: %+v", r)
		}
		sent = append(sent, r)
		s.days.skip(6 * time.Hour)
	}
	s.host.Start()
	s.days.retry()
	for i := range sent {
		s.bob.WaitMessage(fmt.Sprint("message ", i))
		s.ann.WaitState(s.mesh, sent[i].ClientMessageID, bus.StateDelivered)
	}
	for i, m := range s.bob.Inbox() {
		if want := fmt.Sprint("message ", i); m.Body != want {
			t.Errorf("message %d is %q, want %q", i, m.Body, want)
		}
	}
}
