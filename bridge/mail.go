package bridge

import (
	"context"
	"time"

	"golang.org/x/sync/semaphore"

	"claudemesh/wire"
)

// mailroom hands pushes and receipts to the link's handlers, one at a time, and acknowledges what they stored. It belongs to the link, not to a connection:
// what was received is handed over although its connection is gone, because a broker of the reference's kind would never send it again.
//
// It holds at most limits.pushes frames and limits.pushBytes bytes; when it is full, the reader waits, and with it the broker.
type mailroom struct {
	link  *Link
	queue chan parcel
	room  *semaphore.Weighted
}

// parcel is one push or one receipt.
type parcel struct {
	from    *conn
	push    *wire.Push
	receipt *wire.Receipt
	size    int
}

func newMailroom(l *Link) *mailroom {
	return &mailroom{link: l, queue: make(chan parcel, l.cfg.limits.pushes), room: semaphore.NewWeighted(l.cfg.limits.pushBytes)}
}

// put accepts a parcel from a reader; it waits while the room is full and the connection lives. Parcels of a broken connection are dropped: they are
// unacknowledged, will be delivered again, and must not keep the reader from the answers behind them.
func (m *mailroom) put(p parcel) {
	if p.from.broken.Load() || m.room.Acquire(p.from.mailCtx, int64(p.size)) != nil {
		return
	}
	select {
	case m.queue <- p:
	case <-p.from.mailCtx.Done():
		m.room.Release(int64(p.size))
	}
}

// run hands over until ctx ends, or until noMore is closed and the room is empty.
func (m *mailroom) run(ctx context.Context, noMore <-chan struct{}) {
	failures := &backoff{base: m.link.cfg.Backoff, rand: m.link.rand}
	var last time.Time
	for {
		p, ok := m.next(ctx, noMore)
		if !ok {
			return
		}
		m.room.Release(int64(p.size))
		if p.from.broken.Load() {
			continue
		}
		err := m.hand(ctx, p)
		if err == nil || ctx.Err() != nil {
			continue
		}
		now := m.link.clock.Now()
		if now.Sub(last) > 60*m.link.cfg.Backoff {
			failures.attempts = 0
		}
		last = now
		m.giveUp(ctx, p.from, failures.next(endFailed), err)
	}
}

func (m *mailroom) next(ctx context.Context, noMore <-chan struct{}) (p parcel, ok bool) {
	if ctx.Err() != nil {
		return p, false
	}
	select {
	case <-ctx.Done():
		return p, false
	case p = <-m.queue:
		return p, true
	case <-noMore:
	}
	select {
	case p = <-m.queue:
		return p, true
	default:
		return p, false
	}
}

// hand calls the handler and, when it has stored the parcel, tells the broker.
func (m *mailroom) hand(ctx context.Context, p parcel) error {
	ack := wire.ClientAck{Type: wire.TypeClientAck}
	switch {
	case p.receipt != nil:
		if err := m.link.cfg.OnReceipt(ctx, *p.receipt); err != nil {
			return err
		}
		ack.BrokerMessageID = p.receipt.MailID
	case p.push.Subtype == wire.SubtypeSystem:
		if err := m.link.cfg.OnPush(ctx, *p.push); err != nil {
			m.link.log.Warn("system event not handled", "event", clean(p.push.Event, 64), "error", err)
		}
		return nil
	default:
		if err := m.link.cfg.OnPush(ctx, *p.push); err != nil {
			return err
		}
		ack.ClientMessageID, ack.BrokerMessageID = p.push.ClientMessageID, p.push.MessageID
	}
	if ack.Validate() == nil {
		m.acknowledge(ctx, p.from, ack)
	}
	return nil
}

// acknowledge uses the connection of the parcel, or the one that took its place. An acknowledgement that cannot be written is not an error: the broker
// delivers again, the handler recognises the message, and that copy is acknowledged.
func (m *mailroom) acknowledge(ctx context.Context, c *conn, ack wire.ClientAck) {
	data, err := wire.Encode(ack)
	if err != nil {
		return
	}
	if c.queue(ctx, data, nil) == nil {
		return
	}
	if c = m.link.current.Load(); c != nil {
		_ = c.queue(ctx, data, nil)
	}
}

// giveUp ends a connection of which a parcel was not stored, so that the broker delivers it and all behind it again, in order. Sends go on during the pause
// before: a full disk does not stop what is already on its way out.
func (m *mailroom) giveUp(ctx context.Context, c *conn, pause time.Duration, err error) {
	c.broken.Store(true)
	c.stopMail()
	m.link.log.Error("pushed message not stored; broker will deliver again", "error", err, "reconnect_in", pause)
	t := m.link.clock.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.Chan():
		c.end(errNotStored)
	case <-c.ctx.Done():
	case <-ctx.Done():
	}
}
