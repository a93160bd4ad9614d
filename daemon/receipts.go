package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/daemon/inbox"
	"claudemesh/daemon/outbox"
	"claudemesh/daemon/session"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// Receipts: what we say about messages that came, signed, and what we believe of those that went. A broker carries receipts and can lose them; it can make none.

// Receipts is called by the bridge when the broker hands on how far messages of ours came. nil acknowledges all of them, believed or not.
func (m *meshRun) Receipts(ctx context.Context, batch []wire.Receipt) error {
	believed := make([]wire.Receipt, 0, len(batch))
	steps := make([]outbox.Step, 0, len(batch))
	for _, r := range batch {
		if r.State != wire.StateDelivered && r.State != wire.StateSurfaced {
			continue // a state of a later version: nothing to keep
		}
		row, ours, err := m.d.outbox.Lookup(ctx, m.joined.Slug, r.ClientMessageID)
		if err != nil {
			return fmt.Errorf("look up receipt's message: %w", err)
		}
		if !ours {
			continue // sent by another machine of this member
		}
		at, why := m.proven(row, r)
		if why != nil {
			m.disbelieve(r, why)
			continue
		}
		believed = append(believed, r)
		steps = append(steps, outbox.Step{
			Mesh: m.joined.Slug, ClientMessageID: r.ClientMessageID, Recipient: r.RecipientPubkey, State: r.State, Via: r.Via, By: r.By, At: at,
		})
	}
	if len(steps) == 0 {
		return nil
	}
	went, err := m.d.outbox.Advance(ctx, steps...)
	if err != nil {
		return fmt.Errorf("store receipts: %w", err)
	}
	for i, w := range went {
		if !w.Advanced {
			continue
		}
		r := believed[i] // it may have overtaken the ack of the very message
		m.publishReceipt(w.Row, bus.Receipt{
			State: r.State, Via: printable(r.Via), By: printable(r.By), Recipient: r.RecipientPubkey, BrokerMessageID: r.MessageID, At: steps[i].At.UnixMilli(),
		})
	}
	return nil
}

// Why a receipt is not believed, beyond what package mesh says.
var (
	errUnsigned  = errors.New("it is not signed")
	errNotAsked  = errors.New("it is by a key that the message was not addressed to")
	errNoMember  = errors.New("it is by a key that nobody of this mesh is known to have")
	errOddMoment = errors.New("its time cannot be read")
)

// proven returns when what a receipt tells was so, or why it is not believed: it must be signed by the key that the message was addressed to or, of a
// multicast, by one that this daemon has met on the mesh.
func (m *meshRun) proven(row outbox.Row, r wire.Receipt) (time.Time, error) {
	if r.Signature == "" {
		return time.Time{}, errUnsigned
	}
	at, err := time.Parse(time.RFC3339Nano, r.At)
	if err != nil {
		return time.Time{}, errOddMoment
	}
	switch {
	case row.Kind == bus.SendDM && r.RecipientPubkey != row.TargetSpec:
		return time.Time{}, errNotAsked
	case row.Kind != bus.SendDM && !m.roster.met(r.RecipientPubkey):
		return time.Time{}, errNoMember
	}
	return at, mesh.Receipt{
		MeshID: m.joined.MeshID, SenderMember: m.joined.Pubkey, Recipient: r.RecipientPubkey, MessageID: r.ClientMessageID, State: r.State, Via: r.Via, By: r.By,
		At: at.UnixMilli(),
	}.Verify(r.Signature)
}

// disbelieve counts a receipt that proves nothing. One without a signature is what an older daemon sends; any other is worth a warning.
func (m *meshRun) disbelieve(r wire.Receipt, why error) {
	m.disbelieved.Add(1)
	log := m.d.opt.Log.Warn
	if errors.Is(why, errUnsigned) {
		log = m.d.opt.Log.Debug
	}
	log("receipt_not_believed", "mesh", m.joined.Slug, "id", printable(r.ClientMessageID), "state", r.State, "recipient", printable(r.RecipientPubkey), "why", why)
}

// sign makes an acknowledgement this machine's word, with the key that the message was mailed to. What cannot be signed stays the broker's word, which the
// sender does not believe.
func (m *meshRun) sign(ack *wire.ClientAck, id string, key mesh.Identity, at time.Time) {
	if key.IsZero() || ack.SenderMemberPubkey == "" {
		return
	}
	stamp := wire.Timestamp(at)
	sig, err := mesh.Receipt{
		MeshID: m.joined.MeshID, SenderMember: ack.SenderMemberPubkey, Recipient: key.PublicKey(), MessageID: id, State: ack.State, Via: ack.Via, By: ack.By,
		At: at.UnixMilli(),
	}.Sign(key)
	if err != nil {
		m.d.opt.Log.Debug("receipt_not_signed", "mesh", m.joined.Slug, "why", err)
		return
	}
	ack.At, ack.Signature = stamp, sig
}

// delivered is what is said of a message that has been stored. What could not be opened is not vouched for: its sender would take it for received.
func (m *meshRun) delivered(src bridge.Source, p wire.Push, stored inbox.Message, holders []session.Session) wire.ClientAck {
	ack := wire.ClientAck{SenderMemberPubkey: p.SenderMemberPubkey, State: wire.StateDelivered}
	if p.ClientMessageID == "" || stored.Undecryptable {
		return ack
	}
	m.sign(&ack, p.ClientMessageID, m.keyOf(src.Key, holders), stored.ReceivedAt)
	return ack
}

// keyOf is the identity of a key that mail came for: of a link, or of a session whose link has just ended.
func (m *meshRun) keyOf(key string, holders []session.Session) mesh.Identity {
	if _, id, own := m.links.LinkFor(key); own {
		return id
	}
	for _, s := range holders {
		if s.PublicKey == key {
			id, _ := mesh.IdentityFromSecret(s.KeySecret.Reveal()) // a damaged one signs nothing
			return id
		}
	}
	return mesh.Identity{}
}

// answered notes that a received message refers to one of ours: by our id of it or, as everybody in a topic and reference clients do, by the broker's.
func (m *meshRun) answered(ctx context.Context, msg inbox.Message) {
	if msg.ReplyTo == "" || msg.Undecryptable {
		return
	}
	row, ours, err := m.d.outbox.Lookup(ctx, m.joined.Slug, msg.ReplyTo)
	if err == nil && !ours {
		row, ours, err = m.d.outbox.ByBroker(ctx, m.joined.Slug, msg.ReplyTo)
	}
	if err == nil && !ours {
		return
	}
	var went []outbox.Progress
	if err == nil {
		went, err = m.d.outbox.Advance(ctx, outbox.Step{
			Mesh: m.joined.Slug, ClientMessageID: row.ClientMessageID, Recipient: msg.SenderKey, State: bus.StateAnswered, By: msg.SenderName, At: m.d.opt.Clock.Now(),
		})
	}
	switch {
	case err != nil:
		m.d.opt.Log.Error("answer_receipt_failed", "id", msg.ID, "error", err)
	case went[0].Advanced:
		m.publishReceipt(went[0].Row, bus.Receipt{State: bus.StateAnswered, By: msg.SenderName, Recipient: msg.SenderKey})
	}
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
		State: wire.StateSurfaced, Via: printable(via), By: printable(by),
	}
	key := msg.RecipientKey
	if key == "" { // a multicast: it came for the member
		key = m.joined.Pubkey
	}
	m.sign(&a, msg.ClientMessageID, m.keyOf(key, nil), m.d.opt.Clock.Now())
	m.late.mu.Lock()
	if len(m.late.waiting) < maxLateReports {
		m.late.waiting = append(m.late.waiting, surfacedReport{key: msg.RecipientKey, ack: a})
	}
	m.late.mu.Unlock()
	m.late.flush(m)
}
