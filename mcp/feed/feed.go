// Package feed is the reading end of the bus: it hands every inbound message of its owner over, in order, across restarts of the daemon.
//
// The invariants it keeps: a message that was stored is delivered, because after each connect, and from time to time, it asks for what it missed and does
// not rely on having heard everything; a message is delivered once per Run, however often it is heard (and once more as a repeat, with Repeats); and a message is reported as handed over only after
// Deliver returned without an error.
//
// Package mcp feeds a session's model with it, the CLI prints `inbox --follow` with it.
package feed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/jonboulle/clockwork"
	"github.com/nats-io/nats.go"

	"claudemesh/bus"
)

// Limits and intervals.
const (
	retryFirst = 50 * time.Millisecond // wait before the second attempt to connect; doubles
	retryMost  = time.Second           // up to this
	sweepEvery = 30 * time.Second      // ask for missed messages although nothing seemed lost
	queueLen   = 1024                  // live messages waiting; beyond it they are dropped here and asked for again
	batchLen   = 64                    // messages per report
	remember   = 16384                 // ids remembered as delivered
)

// Config says whose messages go where. Every field but Log is required.
type Config struct {
	// Connect opens a connection to the daemon. It is called again, for ever, after every failure and loss.
	Connect func(context.Context) (*bus.Client, error)
	// Subjects names what to listen to, asked after each connect.
	Subjects func(context.Context, *bus.Client) ([]string, error)
	// Missed lists messages not handed over yet, oldest first. It may list fewer than there are; it is asked until it lists nothing new.
	Missed func(context.Context, *bus.Client) ([]bus.InboxItem, error)
	// Deliver hands one message over. An error ends Run, with that error.
	Deliver func(context.Context, bus.InboxItem) error
	// Repeats lets an item that is marked as a repeat be delivered once more, although it was delivered unmarked: the daemon knows why.
	Repeats bool
	// Report tells the daemon that these messages were handed over.
	Report func(context.Context, *bus.Client, []string) error
	// Connected is called after each connect, when everything missed has been delivered. May be nil.
	Connected func()
	Clock     clockwork.Clock
	Log       *slog.Logger
}

// RetryIn makes an error of Connect one after which nothing is tried for so long: what is missing comes by somebody's doing, not by itself.
func RetryIn(d time.Duration, err error) error { return &laterError{err, d} }

type laterError struct {
	error
	wait time.Duration
}

func (e *laterError) Unwrap() error { return e.error }

// errLost ends one connection's service; Run connects again.
var errLost = errors.New("connection lost")

// deliverError marks an error of Deliver, which ends Run.
type deliverError struct{ err error }

func (e *deliverError) Error() string { return e.err.Error() }
func (e *deliverError) Unwrap() error { return e.err }

type feed struct {
	Config
	delivered  *simplelru.LRU[string, struct{}]
	unreported map[string]struct{}
	lastError  string // logged once, not at each of the many attempts
}

// Run feeds until ctx ends, then it returns nil, or until Deliver fails.
func Run(ctx context.Context, cfg Config) error {
	delivered, err := simplelru.NewLRU[string, struct{}](remember, nil)
	if err != nil {
		return fmt.Errorf("make memory of delivered messages: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	f := &feed{Config: cfg, delivered: delivered, unreported: map[string]struct{}{}}
	wait := retryFirst
	for ctx.Err() == nil {
		client, err := f.Connect(ctx)
		if err == nil {
			var served bool
			served, err = f.serve(ctx, client)
			client.Close()
			if served {
				wait = retryFirst
			}
		}
		var failed *deliverError
		if errors.As(err, &failed) {
			return failed.err
		}
		if ctx.Err() != nil {
			return nil
		}
		if s := err.Error(); s != f.lastError {
			f.lastError = s
			f.Log.Warn("waiting for the daemon", "reason", s)
		}
		pause := wait
		var later *laterError
		if errors.As(err, &later) {
			pause = later.wait
		}
		select {
		case <-ctx.Done():
		case <-f.Clock.After(pause):
		}
		wait = min(2*wait, retryMost)
	}
	return nil
}

// serve feeds from one connection until it is lost or something fails. It reports whether it got as far as being in step with the daemon.
func (f *feed) serve(ctx context.Context, client *bus.Client) (served bool, err error) {
	lost := client.Conn().StatusChanged(nats.DISCONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer client.Conn().RemoveStatusListener(lost)
	live := make(chan bus.InboxItem, queueLen)
	gap := make(chan struct{}, 1)
	subjects, err := f.Subjects(ctx, client)
	if err != nil {
		return false, err
	}
	for _, s := range subjects {
		// The subscription ends with the client, which the caller closes. Subscribe returns when it stands: only then may be asked what was missed, or
		// a message could fall between the two.
		_, err := client.Subscribe(s, func(m *nats.Msg) { queue(m, live, gap) })
		if errors.Is(err, bus.ErrDenied) {
			// What is not heard is found by the sweep, later.
			f.Log.Warn("not allowed to listen", "subject", s)
		} else if err != nil {
			return false, err
		}
	}
	if err := f.catchUp(ctx, client); err != nil {
		return false, err
	}
	if f.lastError != "" {
		f.lastError = ""
		f.Log.Info("the daemon is back")
	}
	if f.Connected != nil {
		f.Connected()
	}
	sweep := f.Clock.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return true, ctx.Err()
		case <-lost:
			return true, errLost
		case item := <-live:
			err = f.hand(ctx, client, batch(item, live))
		case <-gap:
			err = f.catchUp(ctx, client)
		case <-sweep.Chan():
			err = f.catchUp(ctx, client)
		}
		if err != nil {
			return true, err
		}
	}
}

// queue never blocks: it runs on the connection's own goroutine. What it cannot take is asked for again.
func queue(m *nats.Msg, live chan<- bus.InboxItem, gap chan<- struct{}) {
	var item bus.InboxItem
	if json.Unmarshal(m.Data, &item) == nil && item.ID != "" {
		select {
		case live <- item:
			return
		default:
		}
	}
	select {
	case gap <- struct{}{}:
	default:
	}
}

func batch(first bus.InboxItem, live <-chan bus.InboxItem) []bus.InboxItem {
	items := []bus.InboxItem{first}
	for len(items) < batchLen {
		select {
		case item := <-live:
			items = append(items, item)
		default:
			return items
		}
	}
	return items
}

// catchUp hands over what the daemon lists as missed until it lists nothing new.
func (f *feed) catchUp(ctx context.Context, client *bus.Client) error {
	for {
		items, err := f.Missed(ctx, client)
		if err != nil {
			return err
		}
		fresh := false
		for _, item := range items {
			fresh = fresh || !f.delivered.Contains(f.key(item))
		}
		if err := f.hand(ctx, client, items); err != nil {
			return err
		}
		if !fresh {
			return nil
		}
	}
}

// key is what a delivery is remembered by.
func (f *feed) key(item bus.InboxItem) string {
	if f.Repeats && item.Repeat {
		return "repeat " + item.ID
	}
	return item.ID
}

// hand delivers what was not delivered yet and reports all of it: an item that comes again was delivered, but its report was lost.
func (f *feed) hand(ctx context.Context, client *bus.Client, items []bus.InboxItem) error {
	for _, item := range items {
		if key := f.key(item); !f.delivered.Contains(key) {
			if err := f.Deliver(ctx, item); err != nil {
				return &deliverError{err}
			}
			f.delivered.Add(key, struct{}{})
		}
		f.unreported[item.ID] = struct{}{}
	}
	if len(f.unreported) == 0 {
		return nil
	}
	ids := make([]string, 0, len(f.unreported))
	for id := range f.unreported {
		ids = append(ids, id)
	}
	err := f.Report(ctx, client, ids)
	var refused *bus.APIError
	if errors.As(err, &refused) {
		// Asking again on another connection would not help; what is still open comes again with the next sweep.
		f.Log.Warn("the daemon refused a report", "reason", refused.Reason)
	} else if err != nil {
		return fmt.Errorf("report messages as handed over: %w", err)
	}
	clear(f.unreported)
	return nil
}
