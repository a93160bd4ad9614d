package bridge

import (
	"context"
	"time"

	"golang.org/x/sync/semaphore"

	"claudemesh/wire"
)

// mailroom hands pushes and receipts to the link's handlers, in order, messages that wait together as one batch, receipts likewise, and acknowledges what they
// stored. It belongs to the link, not to a connection: what was received is handed over although its connection is gone, because a broker of the reference's
// kind would never send it again.
//
// It holds at most limits.pushes frames and limits.pushBytes bytes; when it is full, the reader waits, and with it the broker.
type mailroom struct {
	link  *Link
	queue chan parcel
	room  *semaphore.Weighted
	ahead *parcel // taken from the queue, but not part of the last batch; run's own
}

// pushBatch bounds the messages, or receipts, that are handed over, and committed, together.
const pushBatch = 64

// parcel is one push or one receipt.
type parcel struct {
	from    *conn
	push    *wire.Push
	receipt *wire.Receipt
	size    int
}

// message reports whether the parcel is a push that is stored and acknowledged.
func (p parcel) message() bool { return p.push != nil && p.push.Kept() }

// joins reports whether the parcel can be handed over together with those behind first.
func (p parcel) joins(first parcel) bool {
	return p.from == first.from && (p.message() && first.message() || p.receipt != nil && first.receipt != nil)
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
		batch := m.batch(p)
		if p.from.broken.Load() {
			continue
		}
		err := m.hand(ctx, batch)
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
	if m.ahead != nil {
		p, m.ahead = *m.ahead, nil
		return p, true
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

// batch is first and what of its kind, messages or receipts of the same connection, waits right behind it; a system push is a batch of its own.
func (m *mailroom) batch(first parcel) []parcel {
	m.room.Release(int64(first.size))
	batch := []parcel{first}
	for first.joins(first) && len(batch) < pushBatch {
		select {
		case p := <-m.queue:
			if !p.joins(first) {
				m.ahead = &p
				return batch
			}
			m.room.Release(int64(p.size))
			batch = append(batch, p)
		default:
			return batch
		}
	}
	return batch
}

// hand calls the handler and, when it has stored the batch, tells the broker.
func (m *mailroom) hand(ctx context.Context, batch []parcel) error {
	first := batch[0]
	if first.receipt != nil {
		return m.handReceipts(ctx, batch)
	}
	pushes := make([]wire.Push, 0, len(batch))
	for _, p := range batch {
		pushes = append(pushes, *p.push)
	}
	acks, err := m.link.cfg.OnPush(ctx, pushes)
	if !first.message() {
		if err != nil {
			m.link.log.Warn("system event not handled", "event", clean(first.push.Event, 64), "error", err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	for i, p := range batch {
		var ack wire.ClientAck
		if i < len(acks) {
			ack = acks[i]
		}
		ack.ClientMessageID, ack.BrokerMessageID = p.push.ClientMessageID, p.push.MessageID
		m.acknowledge(ctx, p.from, ack)
	}
	return nil
}

func (m *mailroom) handReceipts(ctx context.Context, batch []parcel) error {
	receipts := make([]wire.Receipt, 0, len(batch))
	for _, p := range batch {
		receipts = append(receipts, *p.receipt)
	}
	if err := m.link.cfg.OnReceipt(ctx, receipts); err != nil {
		return err
	}
	for _, r := range receipts {
		m.acknowledge(ctx, batch[0].from, wire.ClientAck{BrokerMessageID: r.MailID})
	}
	return nil
}

// acknowledge uses the connection of the parcel, or the one that took its place. An acknowledgement that cannot be written is not an error: the broker
// delivers again, the handler recognises the message, and that copy is acknowledged.
func (m *mailroom) acknowledge(ctx context.Context, c *conn, ack wire.ClientAck) {
	ack.Type = wire.TypeClientAck
	if ack.Validate() != nil {
		return // a push without any id cannot be acknowledged
	}
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
