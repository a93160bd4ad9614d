package testenv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"claudemesh/bus"
	"claudemesh/testenv"
)

const (
	crashClients  = 8
	crashSends    = 125 // of each client in a round
	killsPerRound = 8
)

// The promise: whatever is killed -9 and whenever, a send that was answered with 202 or 200 is in the receiver's inbox exactly once, and the caller of every
// other one was told that it failed.
func TestNothingAcceptedIsLostOrDoubledByKills(t *testing.T) {
	first, second, third := 1, 1, 0
	if os.Getenv("CLAUDEMESH_TEST_LONG") == "1" {
		first, second, third = 20, 20, 20
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("CLAUDEMESH_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("CLAUDEMESH_TEST_SEED=%d", seed)
	sends, receives, carries := []axis{answers, sendings}, []axis{arrivals}, []axis{sendings, arrivals}
	t.Run("with a broker of its own, and sender, receiver or broker killed", func(t *testing.T) {
		broker := testenv.NewBrokerProcess(t)
		c := &crash{sender: testenv.NewProcess(t, testenv.WithName("ann")), receiver: testenv.NewProcess(t, testenv.WithName("ben"))}
		var made bus.MeshJoined
		c.sender.Do(bus.OpMeshCreate, bus.MeshCreate{Name: "team", BrokerURL: broker.URL(), AdminTokenFile: broker.AdminTokenFile()}, &made)
		c.mesh = c.receiver.Join(c.sender.Share(made.Mesh), "ben")
		c.victims = []victim{{"sender", sends, c.sender}, {"receiver", receives, c.receiver}, {"broker", carries, broker}}
		c.run(t, first, seed)
	})
	t.Run("with the broker inside the sender's daemon", func(t *testing.T) {
		c := &crash{sender: testenv.NewProcess(t, testenv.WithName("ann")), receiver: testenv.NewProcess(t, testenv.WithName("ben"))}
		c.mesh = c.receiver.Join(c.sender.Share(c.sender.Create("team")), "ben")
		c.victims = []victim{{"sender and broker", append(sends, arrivals), c.sender}, {"receiver", receives, c.receiver}}
		c.run(t, second, seed+1)
	})
	t.Run("with the broker inside the receiver's daemon", func(t *testing.T) {
		if third == 0 {
			t.Skip("only with CLAUDEMESH_TEST_LONG=1")
		}
		c := &crash{sender: testenv.NewProcess(t, testenv.WithName("ann")), receiver: testenv.NewProcess(t, testenv.WithName("ben"))}
		c.mesh = c.sender.Join(c.receiver.Share(c.receiver.Create("team")), "ann")
		c.victims = []victim{{"sender", sends, c.sender}, {"receiver and broker", carries, c.receiver}}
		c.run(t, third, seed+2)
	})
}

// crash is a mesh of processes that get killed.
type crash struct {
	t                *testing.T
	mesh             string
	sender, receiver *testenv.Process
	victims          []victim // first the sender, then the receiver
	rng              *rand.Rand
}

type victim struct {
	name    string
	work    []axis // when to kill it: while it is busy
	process interface {
		Kill()
		Start()
	}
}

func (c *crash) run(t *testing.T, rounds int, seed uint64) {
	c.t, c.rng = t, rand.New(rand.NewPCG(seed, 0))
	c.sender.WaitLink(c.mesh)
	c.receiver.WaitLink(c.mesh)
	alice := c.sender.Session(c.mesh, "alice")
	rows := 0
	for round := range rounds {
		rows += c.round(round, alice)
		if t.Failed() {
			return
		}
	}
	var s bus.Status
	c.sender.Do(bus.OpStatus, nil, &s)
	if o := s.Meshes[0].Outbox; o["done"] != rows || len(o) != 1 {
		t.Errorf("the outbox holds %v, want %d rows, all done", o, rows)
	}
}

// round sends a thousand messages to a new session while processes are killed, checks what arrived, and returns how many rows it left in the outbox.
func (c *crash) round(round int, alice *testenv.Session) int {
	t := c.t
	name := fmt.Sprintf("bob-%d", round)
	bob := c.receiver.Session(c.mesh, name)
	c.sender.WaitPeer(c.mesh, name)
	flow := c.watch(bob)
	defer flow.end()

	ctx, cancel := context.WithTimeout(context.Background(), 2*testenv.Patience)
	defer cancel()
	clients := make([]*crashClient, crashClients)
	var work sync.WaitGroup
	for i := range clients {
		k := &crashClient{
			ctx: ctx, dir: c.sender.Dir(), actor: alice.Info.ID, token: alice.Info.TokenFile, mesh: c.mesh, to: name, id: fmt.Sprintf("%d-%d", round, i),
			rng: rand.New(rand.NewPCG(c.rng.Uint64(), uint64(i))), answered: func() { flow.count(&flow.answered) }, outcome: map[string]outcome{},
		}
		if i%4 == 3 { // some send as the user: over the member's link
			k.actor, k.token = bus.User, localToken(c.sender)
		}
		clients[i] = k
		work.Go(k.run)
	}
	finished := make(chan struct{})
	go func() { defer close(finished); work.Wait() }()
	c.kill(flow)
	<-finished

	outcomes := map[string]outcome{}
	for _, k := range clients {
		for body, o := range k.outcome {
			outcomes[body] = o
		}
		for _, err := range k.unexpected {
			t.Errorf("a send got an answer that no kill explains: %v", err)
		}
	}
	return c.check(round, testenv.Resume(c.receiver.Machine, bob), outcomes) + 1
}

// kill kills and restarts, each time at a random point of the work that the victim has to do. Each victim has its turn, then whoever still has work.
func (c *crash) kill(f *flow) {
	order := c.rng.Perm(len(c.victims))
	if at := slices.Index(order, 0); c.rng.IntN(3) > 0 { // callers are fast: the sender comes first in most rounds, or they will have their answers
		order[0], order[at] = order[at], order[0]
	}
	for i := range killsPerRound {
		v := c.victims[order[i%len(order)]]
		work := v.work[0]
		if i > 0 {
			work = v.work[c.rng.IntN(len(v.work))]
		}
		for !f.wait(work, 1+c.rng.IntN(80)) && i >= len(order) {
			if work == arrivals {
				return // the end of the line
			}
			v, work = c.victims[1], arrivals
		}
		c.t.Logf("kill -9 of the %s after about %d answers, %d sent, %d arrived", v.name, f.answered.Load(), f.sent.Load(), f.arrived.Load())
		v.process.Kill()
		if v.process != c.sender { // life goes on without it for a while
			f.wait(answers, c.rng.IntN(100))
		}
		v.process.Start()
	}
}

// flow counts what happens in a round.
type flow struct {
	answered, sent, arrived atomic.Int64
	moved                   chan struct{}
	clients                 []*bus.Client
}

// What a kill can wait for.
type axis int

const (
	answers  axis = iota // to the callers
	sendings             // acknowledged by the broker
	arrivals             // stored by the receiver
)

// watch counts with connections that outlive the daemons.
func (c *crash) watch(bob *testenv.Session) *flow {
	f := &flow{moved: make(chan struct{}, 1)}
	f.listen(c.t, c.sender, localToken(c.sender), bus.User, bus.ReceiptSubject(c.mesh, "*", "*"), func(m *nats.Msg) {
		if bytes.Contains(m.Data, []byte(`"state":"sent"`)) {
			f.count(&f.sent)
		}
	})
	f.listen(c.t, c.receiver, bob.Info.TokenFile, bob.Info.ID, bus.SessionMsgSubject(c.mesh, bob.Info.ID), func(*nats.Msg) { f.count(&f.arrived) })
	return f
}

func (f *flow) listen(t *testing.T, p *testenv.Process, tokenFile, actor, subject string, fn func(*nats.Msg)) {
	t.Helper()
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
	defer cancel()
	client, err := bus.Connect(ctx, bus.ClientConfig{Dir: p.Dir(), Token: strings.TrimSpace(string(token)), Actor: actor, Name: "watch " + actor, Reconnect: true})
	if err != nil {
		t.Fatal(err)
	}
	f.clients = append(f.clients, client)
	if _, err := client.Subscribe(subject, fn); err != nil {
		t.Fatal(err)
	}
}

func (f *flow) end() {
	for _, c := range f.clients {
		c.Close()
	}
}

func (f *flow) count(n *atomic.Int64) {
	n.Add(1)
	select {
	case f.moved <- struct{}{}:
	default:
	}
}

// wait returns when n more things have happened; false when nothing has for a while: all is done, or nobody is left to do it.
func (f *flow) wait(what axis, n int) bool {
	longestPause := 400 * time.Millisecond
	if what == arrivals {
		longestPause = 1200 * time.Millisecond // a link may be on its way back
	}
	counter := []*atomic.Int64{&f.answered, &f.sent, &f.arrived}[what]
	still := time.NewTimer(longestPause)
	defer still.Stop()
	for before, now := counter.Load(), int64(0); now < int64(n); {
		select {
		case <-f.moved:
		case <-still.C:
			return false
		}
		if moved := counter.Load() - before; moved > now {
			now = moved
			still.Reset(longestPause)
		}
	}
	return true
}

func localToken(p *testenv.Process) string { return filepath.Join(p.Dir(), "local-token") }

// check compares what the callers were told with what the receiver has, and returns the number of messages.
func (c *crash) check(round int, bob *testenv.Session, outcomes map[string]outcome) int {
	t := c.t
	testenv.Wait(t, "the outbox to be drained", nil, func() bool {
		var s bus.Status
		c.sender.Do(bus.OpStatus, nil, &s)
		o := s.Meshes[0].Outbox
		return o["pending"] == 0 && o["inflight"] == 0
	})
	// A mailbox is read in order: when this one is here, so is everything before it, also what comes twice.
	end := c.last(round, bob)
	bob.Do(bus.OpInboxSeen, bus.MessageIDs{IDs: []string{end.ID}}, nil)
	var inbox bus.InboxList
	bob.Do(bus.OpInboxList, bus.InboxQuery{Unread: true, Limit: 1000}, &inbox)
	if inbox.Unread != len(inbox.Items) {
		t.Errorf("the inbox counts %d messages and lists %d", inbox.Unread, len(inbox.Items))
	}
	times := map[string]int{}
	for _, m := range inbox.Items {
		times[m.Body]++
		if _, ours := outcomes[m.Body]; !ours {
			t.Errorf("nobody sent %q (state %s %s)", m.Body, m.State, m.Reason)
		}
	}
	told := map[outcome]int{}
	for body, o := range outcomes {
		told[o]++
		switch n := times[body]; {
		case n > 1:
			t.Errorf("%s: %s, and is there %d times", body, o, n)
		case (o == accepted || o == repeated) && n == 0:
			t.Errorf("%s: %s, and is lost", body, o)
		case o == neverSent && n != 0:
			t.Errorf("%s: %s, and is there", body, o)
		}
	}
	t.Logf("round %d: %v, %d arrived", round, told, len(inbox.Items))
	if len(outcomes) != crashClients*crashSends {
		t.Errorf("%d sends have an outcome, want %d", len(outcomes), crashClients*crashSends)
	}
	for i, m := range inbox.Items {
		if i%100 == 0 && outcomes[m.Body] != unknown {
			c.sender.WaitState(c.mesh, m.ClientMessageID, bus.StateDelivered)
		}
	}
	return len(inbox.Items)
}

// last sends the round's last message and returns it as it has arrived. The inbox itself is asked rarely: under the race detector that is dear.
func (c *crash) last(round int, bob *testenv.Session) bus.InboxItem {
	body := fmt.Sprintf("end of round %d", round)
	heard := make(chan struct{}, 1)
	sub, err := bob.Client.Subscribe(bus.SessionMsgSubject(c.mesh, bob.Info.ID), func(m *nats.Msg) {
		if bytes.Contains(m.Data, []byte(body)) {
			heard <- struct{}{}
		}
	})
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	c.sender.Send(c.mesh, bus.SendRequest{To: bob.Info.Name, Body: body})
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for end := time.Now().Add(testenv.Patience); time.Now().Before(end); {
		var l bus.InboxList
		bob.Do(bus.OpInboxList, bus.InboxQuery{Limit: 1}, &l)
		if len(l.Items) == 1 && l.Items[0].Body == body {
			return l.Items[0]
		}
		select {
		case <-heard:
		case <-look.C:
		}
	}
	c.t.Fatal("the last message did not arrive")
	return bus.InboxItem{}
}

// outcome is what the caller of one send knows in the end.
type outcome string

const (
	accepted  outcome = "accepted"
	repeated  outcome = "accepted, after its fate was unknown" // the answer to a repeat under the same id
	unknown   outcome = "reported as an error, fate unknown"   // the connection broke; at most one may arrive
	neverSent outcome = "reported as an error, not sent"
)

// crashClient is one caller: it sends one message after the other, each under its own idempotency key.
type crashClient struct {
	ctx                             context.Context
	dir, actor, token, mesh, to, id string
	rng                             *rand.Rand
	answered                        func()
	conn                            *bus.Client

	outcome    map[string]outcome // by body
	unexpected []error
}

func (k *crashClient) run() {
	for i := range crashSends {
		body := fmt.Sprintf("message %s-%d", k.id, i)
		k.outcome[body] = k.send(body, k.rng.IntN(4) != 0)
		k.answered()
	}
	if k.conn != nil {
		k.conn.Close()
	}
}

// send sends until it is answered; a caller without patience takes the first failure for an answer.
func (k *crashClient) send(body string, patient bool) outcome {
	failed := neverSent
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := k.try(body)
		switch refused := new(bus.APIError); {
		case err == nil && failed == neverSent:
			return accepted
		case err == nil:
			return repeated
		case errors.As(err, &refused):
			k.unexpected = append(k.unexpected, fmt.Errorf("%s: %w", body, err))
			return failed
		case !errors.Is(err, bus.ErrNoDaemon):
			failed = unknown
		}
		if k.conn != nil {
			k.conn.Close()
			k.conn = nil
		}
		if !patient {
			return failed
		}
		select {
		case <-again.C:
		case <-k.ctx.Done():
			k.unexpected = append(k.unexpected, fmt.Errorf("%s: %w", body, err))
			return failed
		}
	}
}

func (k *crashClient) try(body string) error {
	if k.conn == nil {
		conn, err := testenv.Connect(k.dir, k.token, k.actor)
		if err != nil {
			return fmt.Errorf("%w: %w", bus.ErrNoDaemon, err) // nothing was sent, whatever the reason
		}
		k.conn = conn
	}
	var r bus.SendReply
	err := k.conn.Do(k.ctx, bus.SendSubject(k.mesh, k.actor, "dm"), bus.SendRequest{To: k.to, Body: body, ClientMessageID: body}, &r)
	if err == nil && r.Code != 202 && r.Code != 200 {
		return &bus.APIError{Code: r.Code, Reason: "answer is neither 202 nor 200"}
	}
	return err
}
