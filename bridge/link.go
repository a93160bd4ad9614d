package bridge

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jonboulle/clockwork"

	"claudemesh/wire"
)

// LinkConfig describes one link. URL and Hello are required.
type LinkConfig struct {
	// URL is the broker's WebSocket address, ws:// or wss://.
	URL string
	// Hello makes the first frame of a connection, a wire.Hello or wire.SessionHello; it is called for every connection, because its signature and
	// attestation are only good for a while.
	Hello func(now time.Time) (any, error)
	// OnPush stores the messages that have arrived, 1 to 64 of them in order, or hears one system push. nil means stored, all of them: the link
	// acknowledges each to the broker (a push that is not Kept is never acknowledged), with what the handler returns for it: acks[i] is what is to be said of
	// batch[i] beyond its ids, and may be missing. An error means that not all are stored: the link acknowledges nothing of this
	// connection any more and ends it after a pause, so that the broker delivers again, in order. An error for a system push is only logged, since no
	// broker repeats those.
	//
	// OnPush and OnReceipt are called from one goroutine, in the order of arrival; they may block, and must not wait for a Call or Send of the same link.
	// Pushes may come before the link is open, and what was received is handed over even when its connection is gone.
	OnPush func(context.Context, []wire.Push) (acks []wire.ClientAck, err error)
	// OnReceipt stores the receipts that have arrived, 1 to 64 of them in order, under the rules of OnPush.
	OnReceipt func(context.Context, []wire.Receipt) error
	// OnWelcome hears what the broker can do, before the link is open and anything is handed over or sent. An error ends the connection, as if it had been
	// lost.
	OnWelcome func(capabilities []string) error
	// OnState hears every change of state, in order, from the goroutine of Run. It may use the link, but not for long: until it returns, Run does not
	// notice the end of the connection.
	OnState func(State)
	// OnFrame hears a frame that answers no request and is no mail: a change of shared state, a call to a service. One goroutine per connection calls it, in
	// the order of arrival; frames that it does not keep up with are dropped and counted. nil: they are only counted.
	OnFrame func(ctx context.Context, kind string, data []byte)
	// Dial makes the TCP connection; nil is the system's dialer, with the proxy of the environment.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// TLS is asked before every connection to a wss:// address, so that a changed file of authorities counts at once; nil means what the system trusts.
	TLS func() (*tls.Config, error)
	// Backoff is the unit of all pauses; 0 means one second. See Run.
	Backoff time.Duration
	Clock   clockwork.Clock // nil: the real one
	Rand    io.Reader       // nil: crypto/rand
	Log     *slog.Logger    // nil: discarded

	limits limits // zero fields get defaults; tests shorten them
}

// limits are the times and bounds of one connection. The socket's deadlines are real time, not the clock's: they guard a real socket.
type limits struct {
	dial, write, read, ping time.Duration
	hello                   time.Duration // on the injected clock
	garbage                 int
	pushes                  int
	pushBytes               int64
}

func (t *limits) defaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&t.dial, 10*time.Second)
	def(&t.write, 10*time.Second)
	def(&t.read, 75*time.Second)
	def(&t.ping, 25*time.Second)
	def(&t.hello, 5*time.Second)
	if t.garbage == 0 {
		t.garbage = 20
	}
	if t.pushes == 0 {
		t.pushes = 512
	}
	if t.pushBytes == 0 {
		t.pushBytes = 16 * wire.MaxFrameBytes
	}
}

// Link is one WebSocket to a broker under one identity, which reconnects by itself. Its methods may be called from anywhere, before, while and after Run.
type Link struct {
	cfg     LinkConfig
	log     *slog.Logger
	clock   clockwork.Clock
	rand    *lockedReader
	status  status
	kick    chan struct{}
	started atomic.Bool
	current atomic.Pointer[conn] // the open connection
	open    unsettled
	mail    *mailroom
	names   names
	counts  counters
}

// counters are the link's odd events since it was made.
type counters struct{ unknown, malformed, unmatched, reconnects atomic.Int64 }

// Counts are odd events since the link was made, for diagnosis.
type Counts struct {
	Unknown    int64 // frames that nobody here waits for, and that OnFrame did not take
	Malformed  int64 // frames that could not be decoded or validated
	Unmatched  int64 // acks and errors that belong to no waiting request, for instance late ones
	Reconnects int64 // connections made after the first
}

// NewLink returns a link that is closed until Run is called. A bad URL shows in its state.
func NewLink(cfg LinkConfig) *Link {
	cfg.limits.defaults()
	if cfg.Backoff <= 0 {
		cfg.Backoff = time.Second
	}
	if cfg.Clock == nil {
		cfg.Clock = clockwork.NewRealClock()
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.OnPush == nil {
		cfg.OnPush = func(context.Context, []wire.Push) ([]wire.ClientAck, error) { return nil, nil }
	}
	if cfg.OnReceipt == nil {
		cfg.OnReceipt = func(context.Context, []wire.Receipt) error { return nil }
	}
	if cfg.OnWelcome == nil {
		cfg.OnWelcome = func([]string) error { return nil }
	}
	if cfg.OnState == nil {
		cfg.OnState = func(State) {}
	}
	l := &Link{cfg: cfg, log: cfg.Log, clock: cfg.Clock, rand: &lockedReader{r: cfg.Rand}, kick: make(chan struct{}, 1)}
	l.status = status{state: State{Phase: Closed, Since: cfg.Clock.Now()}, changed: make(chan struct{})}
	l.names = names{prefix: fmt.Sprintf("%016x", l.rand.uint64())}
	l.mail = newMailroom(l)
	return l
}

// State is where the link stands now.
func (l *Link) State() State { return l.status.get() }

// Counts returns the link's counters.
func (l *Link) Counts() Counts {
	return Counts{l.counts.unknown.Load(), l.counts.malformed.Load(), l.counts.unmatched.Load(), l.counts.reconnects.Load()}
}

// WaitOpen returns nil once the link is open; the error that ended Run, if it has ended; or ctx's error.
func (l *Link) WaitOpen(ctx context.Context) error { return l.status.waitOpen(ctx) }

// Kick ends a pause between attempts at once: the network or the broker is known to be back. While an attempt is under way it counts for the pause after
// it; while the link is open it does nothing.
func (l *Link) Kick() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// Send hands one message to the broker and waits for its ack, which it returns whether the broker took the message (Ack.Queued) or refused it (Ack.Error).
// s.ID must be set and not in flight; any number of Sends may run at once. Errors: ErrNotOpen and ErrInFlight (nothing was sent), ErrLost and ctx's error
// (outcome unknown), *BrokerError, and the validation errors of package wire.
func (l *Link) Send(ctx context.Context, s wire.Send) (wire.Ack, error) {
	p, err := l.begin(ctx, s, nil)
	if err != nil {
		return wire.Ack{}, err
	}
	return p.Wait(ctx)
}

// Call sends the request op with the given fields (empty, or one JSON object) and returns the broker's answer frame. An operation that the reference broker
// never answers succeeds with the answer {} once it has been written to the socket of a broker without capabilities. ctx should have a deadline: a
// reference broker answers some malformed requests with silence. Errors: ErrBadOp, ErrNotOpen (nothing was sent), ErrLost and ctx's error (outcome unknown),
// *BrokerError, and wire.ErrMalformed for bad fields.
func (l *Link) Call(ctx context.Context, op string, fields json.RawMessage) (json.RawMessage, error) {
	if !callable(op) {
		return nil, ErrBadOp
	}
	id := l.names.next()
	data, err := wire.WithRequest(op, id, fields)
	if err != nil {
		return nil, err
	}
	c := l.current.Load()
	if c == nil {
		return nil, ErrNotOpen
	}
	return c.ask(ctx, c.calls, id, data, unanswered(op) && len(c.capabilities) == 0)
}

// Post writes a frame that has no answer and returns once the socket took it. Errors: ErrNotOpen, ErrLost, ctx's.
func (l *Link) Post(ctx context.Context, frame any) error {
	data, err := wire.Encode(frame)
	if err != nil {
		return err
	}
	c := l.current.Load()
	if c == nil {
		return ErrNotOpen
	}
	written := make(chan struct{})
	if err := c.queue(ctx, data, written); err != nil {
		return err
	}
	select {
	case <-written:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.ctx.Done():
	}
	select {
	case <-written:
		return nil
	default:
		return ErrLost
	}
}

// names makes request ids that are unique in the process and not guessable from another connection.
type names struct {
	prefix string
	mu     sync.Mutex
	n      uint64
}

func (n *names) next() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.n++
	return fmt.Sprintf("%s-%d", n.prefix, n.n)
}
