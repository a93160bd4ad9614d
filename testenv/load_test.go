package testenv_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"claudemesh/testenv"
	"claudemesh/testenv/crowd"
)

// A broker process under load. All-to-all means: each of a hundred members sends its messages to the ninety-nine others in turn, starting behind itself, so
// that every pair talks; and, apart from that, broadcasts, each of which goes to all the others.
const loadClients = 100

func longRun() bool { return os.Getenv("CLAUDEMESH_TEST_LONG") == "1" }

func TestAHundredClientsReachEachOtherOnce(t *testing.T) {
	each, broadcasts := 100, 3
	if longRun() {
		each, broadcasts = 1000, 100
	}
	l := newLoad(t, loadClients)
	stop := l.start()
	defer stop()
	t.Run(fmt.Sprintf("%d direct messages each", each), func(t *testing.T) {
		l.direct("dm", each)
		l.finish(t)
		l.exactlyOnce(t, true)
	})
	t.Run(fmt.Sprintf("%d broadcasts each", broadcasts), func(t *testing.T) {
		l.broadcast("all", broadcasts)
		l.finish(t)
		l.exactlyOnce(t, true)
	})
}

// The promise: what the broker has acknowledged reaches its recipient whenever the broker is killed -9, and is one message however often it was sent.
func TestNothingAcceptedIsLostOrDoubledWhenABrokerUnderLoadIsKilled(t *testing.T) {
	rounds, clients, each, kills := 1, 40, 50, 3
	if longRun() {
		rounds, clients, each, kills = 10, loadClients, 100, 6
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("CLAUDEMESH_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("CLAUDEMESH_TEST_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	l := newLoad(t, clients)
	stop := l.start()
	defer stop()
	for round := range rounds {
		l.direct(fmt.Sprintf("dm%d", round), each)
		l.broadcast(fmt.Sprintf("all%d", round), 2)
		for range kills {
			acked, received := l.progress()
			if rng.IntN(2) == 0 { // at a point of acceptance, or of delivery
				acked += rng.IntN(clients * each / kills)
			} else {
				acked, received = 0, received+rng.IntN(clients*each/kills)
			}
			l.until(t, "a time to kill the broker", func() bool {
				a, r := l.progress()
				return a >= acked && r >= received || a >= l.sent && r >= l.total()
			})
			a, r := l.progress()
			t.Logf("round %d: kill -9 after %d acknowledgements of %d sends, %d receipts", round, a, l.sent, r)
			l.broker.Kill()
			l.broker.Start()
		}
		l.finish(t)
		l.exactlyOnce(t, false)
		if t.Failed() {
			return
		}
	}
}

// load is a crowd in a mesh of one broker process.
type load struct {
	t      *testing.T
	broker *testenv.BrokerProcess
	peers  []*crowd.Peer
	moved  chan struct{}
	sent   int
	want   []map[string]bool // what each peer is to receive, by client message id
}

func newLoad(t *testing.T, clients int) *load {
	t.Helper()
	l := &load{t: t, broker: testenv.NewBrokerProcess(t), moved: make(chan struct{}, 1)}
	m, err := crowdOf(t, l.broker).NewMesh(t.Context(), "load")
	if err != nil {
		t.Fatal(err)
	}
	members, err := m.Enrol(t.Context(), clients-1)
	if err != nil {
		t.Fatal(err)
	}
	for _, who := range append(members, m.Owner) {
		l.peers, l.want = append(l.peers, m.NewPeer(who, l.moved)), append(l.want, map[string]bool{})
	}
	return l
}

func crowdOf(t *testing.T, b *testenv.BrokerProcess) crowd.Broker {
	return crowd.Broker{URL: b.URL(), AdminToken: tokenIn(t, b.AdminTokenFile())}
}

// start lets every peer live until stop.
func (l *load) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var alive sync.WaitGroup
	for _, p := range l.peers {
		alive.Go(func() {
			if err := p.Run(ctx); err != nil {
				l.t.Errorf("a client gave up: %v", err)
			}
		})
	}
	return func() { cancel(); alive.Wait() }
}

func (l *load) direct(name string, each int) {
	for i, p := range l.peers {
		for n := range each {
			to := (i + 1 + n%(len(l.peers)-1)) % len(l.peers)
			id := fmt.Sprintf("%s-%d-%d", name, i, n)
			p.Queue(crowd.Send(id, l.peers[to].PublicKey(), "a message of some forty characters, sealed"))
			l.want[to][id] = true
			l.sent++
		}
	}
}

func (l *load) broadcast(name string, each int) {
	for i, p := range l.peers {
		for n := range each {
			id := fmt.Sprintf("%s-%d-%d", name, i, n)
			p.Queue(crowd.Send(id, "*", "to all of you"))
			l.sent++
			for to := range l.peers {
				if to != i {
					l.want[to][id] = true
				}
			}
		}
	}
}

func (l *load) progress() (acked, received int) {
	for _, p := range l.peers {
		t := p.Tally()
		acked, received = acked+t.Acked, received+t.Received
	}
	return acked, received
}

// total is how many receipts there are to be.
func (l *load) total() (n int) {
	for _, w := range l.want {
		n += len(w)
	}
	return n
}

// until waits for a state of the crowd. Patience is without progress, not in all: a slow machine is not a failure.
func (l *load) until(t *testing.T, what string, reached func() bool) {
	t.Helper()
	limit := time.NewTimer(testenv.Patience)
	defer limit.Stop()
	look := time.NewTicker(50 * time.Millisecond) // counting everything is dear: not at every sign
	defer look.Stop()
	last := 0
	for !reached() {
		select {
		case <-look.C:
		case <-limit.C:
			t.Fatalf("waited in vain for %s:\n%s", what, l.summary())
		}
		if a, r := l.progress(); a+r > last {
			last = a + r
			limit.Reset(testenv.Patience)
		}
		for _, p := range l.peers {
			for _, err := range p.Tally().Problems {
				t.Fatal(err)
			}
		}
	}
}

// finish waits until every send is acknowledged and everything wanted is there.
func (l *load) finish(t *testing.T) {
	t.Helper()
	begin, total := time.Now(), l.total()
	l.until(t, "everything to arrive", func() bool {
		acked, received := l.progress()
		return acked >= l.sent && received >= total
	})
	t.Logf("%s, %s", l.summary(), time.Since(begin).Round(time.Millisecond))
}

// exactlyOnce compares what every peer received with what was sent to it; strict, the broker may not even have repeated itself.
func (l *load) exactlyOnce(t *testing.T, strict bool) {
	t.Helper()
	for i, p := range l.peers {
		got := p.Got()
		for id := range maps.Keys(l.want[i]) {
			if got[id] == 0 {
				t.Errorf("client %d never received %s", i, id)
			}
		}
		for id, n := range got {
			switch {
			case !l.want[i][id]:
				t.Errorf("client %d received %s, which was not for it", i, id)
			case strict && n > 1:
				t.Errorf("client %d received %s %d times", i, id, n)
			}
		}
	}
}

func (l *load) summary() string {
	var sum crowd.Tally
	for _, p := range l.peers {
		t := p.Tally()
		sum.Unacked, sum.Acked, sum.Received, sum.Repeated, sum.Connects = sum.Unacked+t.Unacked, sum.Acked+t.Acked, sum.Received+t.Received, sum.Repeated+t.Repeated, sum.Connects+t.Connects
	}
	return strings.Join([]string{
		fmt.Sprintf("%d of %d sends acknowledged", sum.Acked, l.sent), fmt.Sprintf("%d received", sum.Received),
		fmt.Sprintf("%d repeated by the broker", sum.Repeated), fmt.Sprintf("%d connects", sum.Connects),
	}, ", ")
}
