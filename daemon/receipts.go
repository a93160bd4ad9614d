package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"claudemesh/bus"
	"claudemesh/daemon/inbox"
	"claudemesh/daemon/outbox"
	"claudemesh/wire"
)

// Receipt is called by the bridge when the broker tells how far a message of ours came. nil acknowledges it.
func (m *meshRun) Receipt(ctx context.Context, r wire.Receipt) error {
	at, err := time.Parse(time.RFC3339Nano, r.At)
	if err != nil {
		at = m.d.opt.Clock.Now()
	}
	if r.State != wire.StateDelivered && r.State != wire.StateSurfaced {
		return nil // a state of a later version: nothing to keep
	}
	row, advanced, err := m.d.outbox.Receipt(ctx, r.ClientMessageID, m.joined.Slug, r.RecipientPubkey, r.State, r.Via, at)
	switch {
	case errors.Is(err, outbox.ErrNotFound):
		return nil // sent by another machine of this member
	case err != nil:
		return fmt.Errorf("store receipt: %w", err)
	case !advanced:
		return nil
	}
	// A receipt may overtake the ack of the very message.
	m.publishReceipt(row, bus.Receipt{State: r.State, Via: printable(r.Via), By: printable(r.By), Recipient: r.RecipientPubkey, BrokerMessageID: r.MessageID, At: at.UnixMilli()})
	return nil
}

// answered notes that a received message refers to one of ours.
func (m *meshRun) answered(ctx context.Context, msg inbox.Message) {
	if msg.ReplyTo == "" || msg.Undecryptable {
		return
	}
	row, advanced, err := m.d.outbox.Receipt(ctx, msg.ReplyTo, m.joined.Slug, msg.SenderKey, bus.StateAnswered, "", m.d.opt.Clock.Now())
	if errors.Is(err, outbox.ErrNotFound) || err == nil && !advanced {
		return
	}
	if err != nil {
		m.d.opt.Log.Error("answer_receipt_failed", "id", msg.ID, "error", err)
		return
	}
	m.publishReceipt(row, bus.Receipt{State: bus.StateAnswered, By: msg.SenderName, Recipient: msg.SenderKey})
}

func (m *meshRun) publishReceipt(row outbox.Row, r bus.Receipt) {
	r.Mesh, r.ClientMessageID = row.Mesh, row.ClientMessageID
	if r.BrokerMessageID == "" {
		r.BrokerMessageID = row.BrokerMessageID
	}
	if r.At == 0 {
		r.At = m.d.opt.Clock.Now().UnixMilli()
	}
	m.d.journal.Publish(bus.ReceiptSubject(row.Mesh, row.Actor, row.ClientMessageID), r)
}

func (d *Daemon) publishEvent(slug, kind string, data map[string]any) {
	d.journal.Publish(bus.EventSubject(slug, kind), data)
}

// surfacedQueue keeps reports of surfaced messages until a link takes them. It is bounded and not durable: what is lost makes the sender believe less
// than is true, never more.
type surfacedQueue struct {
	mu      sync.Mutex
	waiting []surfacedReport
}

type surfacedReport struct {
	key string // the key that the message was for: its link makes the report
	ack wire.ClientAck
}

const maxLateReports = 10_000

func (q *surfacedQueue) flush(m *meshRun) {
	q.mu.Lock()
	waiting := q.waiting
	q.waiting = nil
	q.mu.Unlock()
	for i, r := range waiting {
		link, _, _ := m.links.LinkFor(r.key) // the member's, when that session has ended
		if err := link.Post(m.ctx, r.ack); err != nil {
			q.mu.Lock()
			q.waiting = append(waiting[i:], q.waiting...)
			q.mu.Unlock()
			return
		}
	}
}

// reportSurfaced tells the sender, through the broker, that its message was handed to a session.
func (m *meshRun) reportSurfaced(msg inbox.Message, via, by string) {
	a := wire.ClientAck{
		Type: wire.TypeClientAck, ClientMessageID: msg.ClientMessageID, BrokerMessageID: msg.BrokerMessageID, SenderMemberPubkey: msg.SenderMemberKey,
		State: wire.StateSurfaced, Via: via, By: by,
	}
	m.late.mu.Lock()
	if len(m.late.waiting) < maxLateReports {
		m.late.waiting = append(m.late.waiting, surfacedReport{key: msg.RecipientKey, ack: a})
	}
	m.late.mu.Unlock()
	m.late.flush(m)
}
