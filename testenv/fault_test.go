package testenv_test

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/nats-io/nats.go"

	"claudemesh/bus"
	"claudemesh/testenv"
	"claudemesh/testenv/faultproxy"
)

// faulty is a mesh whose broker is on a machine of its own; Ann and Ben reach it through a wiretap each.
type faulty struct {
	t          *testing.T
	mesh       string
	ann, ben   *testenv.Machine
	toA, toB   *wiretap
	alice, bob *testenv.Session
}

func newFaulty(t *testing.T, options ...testenv.Option) *faulty {
	t.Helper()
	host := testenv.NewMachine(t, append(options, testenv.WithName("host"))...)
	f := &faulty{t: t, mesh: host.Create("team")}
	host.WaitLink(f.mesh)
	var s bus.Status
	host.Do(bus.OpStatus, nil, &s)
	join := func(name string) (*testenv.Machine, *wiretap) {
		tap := newWiretap(t, s.Broker.URL)
		m := testenv.NewMachine(t, append(options, testenv.WithName(name))...)
		var invite bus.MeshInvite
		host.Do(bus.OpMeshShare, bus.MeshShare{Mesh: f.mesh, BrokerURL: tap.URL()}, &invite)
		m.Join(invite.Invite, name)
		m.WaitLink(f.mesh)
		return m, tap
	}
	f.ann, f.toA = join("ann")
	f.ben, f.toB = join("ben")
	f.alice, f.bob = f.ann.Session(f.mesh, "alice"), f.ben.Session(f.mesh, "bob")
	f.ann.WaitPeer(f.mesh, "bob")
	f.ann.WaitPeer(f.mesh, "alice") // its link is open
	f.ben.WaitPeer(f.mesh, "bob")
	return f
}

// bodies waits until Bob has the last message, and lists all he has; what would have come twice has come twice by then.
func (f *faulty) bodies() []string {
	f.t.Helper()
	f.alice.Send("bob", "end")
	f.bob.WaitMessage("end")
	var got []string
	for _, m := range f.bob.Inbox() {
		if m.Body != "end" {
			got = append(got, m.Body)
		}
	}
	return got
}

func TestAnAckThatIsLostWithItsConnectionMakesNoSecondMessage(t *testing.T) {
	f := newFaulty(t)
	f.toA.holdBack(faultproxy.ToClient, "ack")
	sent := f.alice.Send("bob", "once")
	f.toA.waitHeld(1)
	f.bob.WaitMessage("once")
	f.toB.waitCount(faultproxy.ToBroker, "client_ack", sent.ClientMessageID, 1)
	f.toA.DropAll()

	item := f.ann.WaitState(f.mesh, sent.ClientMessageID, bus.StateDelivered)
	if got := f.bodies(); !slices.Equal(got, []string{"once"}) {
		t.Errorf("Bob has %q", got)
	}
	if n := f.toA.count(faultproxy.ToBroker, "send", sent.ClientMessageID); n != 2 {
		t.Errorf("it was sent %d times, want twice", n)
	}
	if n := f.toB.count(faultproxy.ToClient, "push", sent.ClientMessageID); n != 1 {
		t.Errorf("the broker pushed it %d times, want once", n)
	}
	if got := f.bob.WaitMessage("once").BrokerMessageID; item.BrokerMessageID != got {
		t.Errorf("the broker's id is %q for the sender and %q for the recipient", item.BrokerMessageID, got)
	}
}

func TestAMessageWhoseAcknowledgementIsLostIsPushedAgainAndStoredOnce(t *testing.T) {
	f := newFaulty(t)
	f.toB.holdBack(faultproxy.ToBroker, "client_ack")
	sent := f.alice.Send("bob", "once")
	f.toB.waitHeld(1)
	f.toB.DropAll()

	f.toB.waitCount(faultproxy.ToClient, "push", sent.ClientMessageID, 2)
	f.ann.WaitState(f.mesh, sent.ClientMessageID, bus.StateDelivered)
	if got := f.bodies(); !slices.Equal(got, []string{"once"}) {
		t.Errorf("Bob has %q", got)
	}
}

func TestAPushThatComesTwiceIsOneMessage(t *testing.T) {
	f := newFaulty(t)
	f.toB.SetHook(faultproxy.Chain(f.toB.hook, faultproxy.Duplicate(faultproxy.ToClient, "push")))
	var heard atomic.Int64
	sub, err := f.ben.User().Subscribe(bus.SessionMsgSubject(f.mesh, f.bob.Info.ID), func(*nats.Msg) { heard.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"one", "two", "three"}
	for _, body := range want {
		f.alice.Send("bob", body)
	}
	if got := f.bodies(); !slices.Equal(got, want) {
		t.Errorf("Bob has %q, want %q", got, want)
	}
	// What is in the inbox is published a moment later.
	testenv.Wait(t, "all of them to be published", nil, func() bool { return heard.Load() > int64(len(want)) })
	if err := sub.Drain(); err != nil {
		t.Fatal(err)
	}
	testenv.Wait(t, "the subscription to end", nil, func() bool { return !sub.IsValid() })
	if n := heard.Load(); n != int64(len(want)+1) {
		t.Errorf("%d messages were published to the session, want %d", n, len(want)+1)
	}
}

func TestASlowNetworkRepeatsNothingAndKeepsTheOrder(t *testing.T) {
	f := newFaulty(t)
	f.toA.Delay(20 * time.Millisecond)
	f.toB.Delay(20 * time.Millisecond)
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint("message ", i))
		sent := f.alice.Send("bob", want[i])
		defer func() {
			if n := f.toA.count(faultproxy.ToBroker, "send", sent.ClientMessageID); n != 1 {
				t.Errorf("%s was sent %d times", want[i], n)
			}
		}()
	}
	if got := f.bodies(); !slices.Equal(got, want) {
		t.Errorf("Bob has %q, want %q", got, want)
	}
}

func TestAcksInAnotherOrderSettleTheirOwnMessages(t *testing.T) {
	f := newFaulty(t)
	f.toA.holdBack(faultproxy.ToClient, "ack")
	const n = 5
	var sent []bus.SendReply
	for i := range n {
		sent = append(sent, f.alice.Send("bob", fmt.Sprint("message ", i)))
	}
	acks := f.toA.waitHeld(n)
	slices.Reverse(acks)
	for _, a := range acks {
		f.toA.Inject(faultproxy.ToClient, a.frame)
	}
	for i, s := range sent {
		item := f.ann.WaitState(f.mesh, s.ClientMessageID, bus.StateDelivered)
		if got := f.bob.WaitMessage(fmt.Sprint("message ", i)).BrokerMessageID; got != item.BrokerMessageID {
			t.Errorf("message %d has the broker's id %q for the sender and %q for the recipient", i, item.BrokerMessageID, got)
		}
	}
}

func TestFramesOfALostConnectionThatArriveAfterTheReconnectChangeNothing(t *testing.T) {
	f := newFaulty(t)
	f.toA.holdBack(faultproxy.ToBroker, "send")
	sent := f.alice.Send("bob", "late to the broker")
	late := f.toA.waitHeld(1)
	f.toA.DropAll()
	item := f.ann.WaitState(f.mesh, sent.ClientMessageID, bus.StateDelivered)
	if n := f.toA.Inject(faultproxy.ToBroker, late[0].frame); n != 2 { // on the link of Ann and on that of Alice
		t.Fatalf("%d connections took the late frame, want 2", n)
	}
	f.toA.waitCount(faultproxy.ToClient, "ack", sent.ClientMessageID, 3)

	f.toB.holdBack(faultproxy.ToClient, "push")
	again := f.alice.Send("bob", "late to Bob")
	late = f.toB.waitHeld(1)
	f.toB.DropAll()
	f.ann.WaitState(f.mesh, again.ClientMessageID, bus.StateDelivered)
	f.toB.Inject(faultproxy.ToClient, late[0].frame)

	if got, want := f.bodies(), []string{"late to the broker", "late to Bob"}; !slices.Equal(got, want) {
		t.Errorf("Bob has %q, want %q", got, want)
	}
	if n := f.toB.count(faultproxy.ToClient, "push", sent.ClientMessageID); n != 1 {
		t.Errorf("the broker pushed the first one %d times, want once", n)
	}
	var after bus.OutboxItem
	f.ann.Do(bus.OpOutboxGet, bus.OutboxGet{ID: sent.ClientMessageID, Mesh: f.mesh}, &after)
	if after.Status != "done" || after.BrokerMessageID != item.BrokerMessageID {
		t.Errorf("the late frame changed the row: %+v", after)
	}
}

func TestCutsInTheMiddleOfTwoHundredSendsLoseAndSwapNothing(t *testing.T) {
	f := newFaulty(t)
	f.toA.Cut()
	f.ann.WaitDown(f.mesh)
	const n = 200
	var want, ids []string
	for i := range n {
		want = append(want, fmt.Sprint("message ", i))
		r := f.alice.Send("bob", want[i])
		if r.Code != 202 || r.State != bus.StateAccepted {
			t.Fatalf("a send while the mesh is down: %+v", r)
		}
		ids = append(ids, r.ClientMessageID)
	}
	frames := 0
	f.toA.onFrame(func(p passed) {
		if p.dir == faultproxy.ToBroker && p.kind == "send" {
			if frames++; frames == 40 || frames == 150 {
				f.toA.DropAll()
			}
		}
	})
	f.toA.Restore()

	for _, id := range ids {
		f.ann.WaitState(f.mesh, id, bus.StateDelivered)
	}
	if got := f.toA.first(faultproxy.ToBroker, "send"); !slices.Equal(got, ids) {
		t.Errorf("first attempts were not in the order of acceptance:\n%q, want\n%q", got, ids)
	}
	got := f.bodies()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("Bob has %d messages, want each of %d once: %q", len(got), n, got)
	}
}

func TestALinkThatOpensWhileABatchIsTurnedDownLetsNobodyOvertake(t *testing.T) {
	clock := clockwork.NewFakeClockAt(time.Now()) // stands still: the rows become due together
	f := newFaulty(t, testenv.WithClock(clock))
	const n = 64                        // what the drain takes at once
	gate := make(chan chan struct{}, 1) // of the next session's hello
	f.toA.SetHook(func(d faultproxy.Dir, frame []byte) [][]byte {
		if d == faultproxy.ToBroker && bytes.Contains(frame, []byte(`"session_hello"`)) {
			select {
			case opened := <-gate:
				<-opened
			default:
			}
		}
		return f.toA.hook(d, frame)
	})
	for i := range 10 { // the link opens at different moments of the batch
		opened := make(chan struct{})
		open := sync.OnceFunc(func() { close(opened) })
		t.Cleanup(open)
		gate <- opened
		carol := f.ann.Session(f.mesh, fmt.Sprint("carol-", i))
		var want []string
		for i := range n {
			want = append(want, carol.Send("bob", fmt.Sprint("message ", i)).ClientMessageID)
		}
		testenv.Wait(t, "every row to wait for its second try", nil, func() bool {
			var item bus.OutboxItem
			f.ann.Do(bus.OpOutboxGet, bus.OutboxGet{ID: want[0], Mesh: f.mesh}, &item)
			return item.Status == "pending" && item.Attempts > 0
		})
		open()
		<-time.After(time.Duration(i) * time.Millisecond / 2)
		clock.Advance(time.Second)
		for _, id := range want {
			testenv.Wait(t, "message "+id+" to be delivered", nil, func() bool {
				var item bus.OutboxItem
				f.ann.Do(bus.OpOutboxGet, bus.OutboxGet{ID: id, Mesh: f.mesh}, &item)
				if item.State != bus.StateDelivered {
					clock.Advance(50 * time.Millisecond) // rows that were turned down wait for their time
				}
				return item.State == bus.StateDelivered
			})
		}
		sent := slices.DeleteFunc(f.toA.first(faultproxy.ToBroker, "send"), func(id string) bool { return !slices.Contains(want, id) })
		if !slices.Equal(sent, want) {
			t.Errorf("first attempts were not in the order of acceptance:\n%q, want\n%q", sent, want)
		}
		carol.Client.Close()
		f.ann.Do(bus.OpSessionEnd, bus.SessionID{ID: carol.Info.ID}, nil)
	}
}
