package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/nats-io/nats.go"

	"claudemesh/bus"
)

// Waiting for a message's state. Receipts tell at once; the outbox is asked first, because the state may have been reached before, and from time to time,
// because a receipt may be lost.

const askEvery = time.Second

// errWaitOver ends a wait whose time is over.
var errWaitOver = errors.New("not reached in time")

// progress is what is known about a message of ours.
type progress struct {
	State           string
	BrokerMessageID string
	Via             string // how it was surfaced
	Reason          string // why it failed
}

var stateOrder = []string{bus.StateAccepted, bus.StateSent, bus.StateDelivered, bus.StateSurfaced, bus.StateAnswered}

// learn takes news in. What is known never goes back; a failure is final.
func (p *progress) learn(n progress) {
	if p.BrokerMessageID == "" {
		p.BrokerMessageID = n.BrokerMessageID
	}
	if p.State == bus.StateFailed {
		return
	}
	if n.State == bus.StateFailed || slices.Index(stateOrder, n.State) > slices.Index(stateOrder, p.State) {
		p.State, p.Reason = n.State, n.Reason
		if n.Via != "" {
			p.Via = n.Via
		}
	}
}

func (p *progress) reached(want string) bool {
	return p.State == bus.StateFailed || slices.Index(stateOrder, p.State) >= slices.Index(stateOrder, want)
}

// waiter listens for the receipts of one message. It lives as long as its connection.
type waiter struct {
	n        *conn
	slug, id string
	news     chan progress
	lost     chan nats.Status
}

func newWaiter(n *conn, slug, id string) (*waiter, error) {
	w := &waiter{n: n, slug: slug, id: id, news: make(chan progress, 64), lost: n.Conn().StatusChanged(nats.CLOSED, nats.DISCONNECTED, nats.RECONNECTING)}
	_, err := n.Subscribe(bus.ReceiptSubject(slug, n.actor, id), func(m *nats.Msg) {
		var r bus.Receipt
		if json.Unmarshal(m.Data, &r) != nil {
			return
		}
		select {
		case w.news <- progress{State: r.State, BrokerMessageID: r.BrokerMessageID, Via: r.Via, Reason: r.Reason}:
		default: // the next question to the outbox makes up for it
		}
	})
	return w, err
}

// wait returns when the state is at least want or has become failed, or with errWaitOver, or with bus.ErrInterrupted when the connection is lost. What it
// learns is in known in every case.
func (w *waiter) wait(ctx context.Context, clock clockwork.Clock, want string, deadline time.Time, known *progress) error {
	over := clock.NewTimer(deadline.Sub(clock.Now()))
	defer over.Stop()
	tick := clock.NewTicker(askEvery)
	defer tick.Stop()
	if err := w.ask(ctx, known); err != nil {
		return err
	}
	for !known.reached(want) {
		select {
		case <-ctx.Done():
			return errCancelled
		case <-over.Chan():
			return errWaitOver
		case <-w.lost:
			return fmt.Errorf("wait: %w", bus.ErrInterrupted)
		case n := <-w.news:
			known.learn(n)
		case <-tick.Chan():
			if err := w.ask(ctx, known); err != nil {
				return err
			}
		}
	}
	return nil
}

// ask looks the message up in the outbox.
func (w *waiter) ask(ctx context.Context, known *progress) error {
	var item bus.OutboxItem
	if err := w.n.daemon(ctx, bus.OpOutboxGet, bus.OutboxGet{ID: w.id, Mesh: w.slug}, &item); err != nil {
		return fmt.Errorf("ask how far the message is: %w", err)
	}
	now := progress{State: item.State, BrokerMessageID: item.BrokerMessageID}
	if item.State == bus.StateFailed {
		now.Reason = item.LastError
	}
	known.learn(now)
	for _, r := range item.Receipts {
		known.learn(progress{State: r.State, Via: r.Via, Reason: r.Reason})
		if known.Via == "" && r.State == known.State {
			known.Via = r.Via
		}
	}
	return nil
}

// waitError: the message was accepted, and the wait for more ended too early. The message is kept.
type waitError struct {
	want   string
	result sendJSON
	cause  error
}

func (e *waitError) Error() string {
	s := "the message is " + e.result.State
	if e.want != "" {
		s += ", not yet known to be " + e.want
	}
	return s + ": " + e.cause.Error()
}

func (e *waitError) Unwrap() error { return e.cause }

func (e *waitError) data() map[string]any { return e.result.data() }

// sendFailedError: the message was accepted, and then refused for good.
type sendFailedError struct{ result sendJSON }

func (e *sendFailedError) Error() string {
	if e.result.Reason == "" {
		return "the message will not be sent"
	}
	return "the message will not be sent: " + cleanLine(e.result.Reason)
}

func (e *sendFailedError) data() map[string]any { return e.result.data() }

// data are the fields of a result for the object of a failure.
func (r sendJSON) data() map[string]any {
	b, err := json.Marshal(r)
	if err != nil {
		return nil
	}
	var m map[string]any
	if json.Unmarshal(b, &m) != nil {
		return nil
	}
	return m
}
