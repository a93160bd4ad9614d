package broker

import (
	"errors"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/wire"
)

// clientAck takes an acknowledgement. It counts for mail that was pushed on this connection, and for any message this connection's member received: a
// message is often surfaced long after it was delivered, by another connection. It has no answer.
func (c *conn) clientAck(data []byte, reqID string) {
	var a wire.ClientAck
	if !c.decode(data, reqID, &a) {
		return
	}
	c.acking.Store(true)
	if a.State == "" {
		a.State = wire.StateDelivered
	}
	taken, ids := c.pump.take(a.BrokerMessageID, a.ClientMessageID)
	for i, w := range taken {
		s := settlement{subject: w.subject, seq: w.seq, prev: w.prev}
		c.b.settler.took(w.subject, ids[i], c.b.now())
		if w.sender != "" {
			s.receipt = c.b.receiptFor(c.mesh, w.sender, w.key, ids[i], w.cmid, a)
		}
		c.b.settler.add(s)
	}
	if len(taken) > 0 || !validID(a.BrokerMessageID) {
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	rec, err := c.b.store.recordByID(ctx, c.mesh.rec.ID, a.BrokerMessageID)
	if err != nil {
		if !errors.Is(err, jetstream.ErrMsgNotFound) {
			c.log.Warn("acknowledgement not honoured", "err", err)
			c.pump.notEarly(a.BrokerMessageID)
		}
		return
	}
	c.b.mu.RLock()
	i := slices.IndexFunc(rec.To, func(key string) bool { return c.mesh.ownerOf(key) == c.member.Pubkey })
	c.b.mu.RUnlock()
	if i < 0 {
		return
	}
	if r := c.b.receiptFor(c.mesh, rec.MemberPubkey, rec.To[i], rec.ID, rec.CMID, a); r != nil {
		c.b.settler.add(settlement{receipt: r})
	}
}

// receiptFor makes the receipt of an acknowledgement, nil when the sender's member never asked for receipts or does not fetch them.
func (b *Broker) receiptFor(m *meshState, sender, recipient, id, cmid string, a wire.ClientAck) *receiptFor {
	b.mu.RLock()
	who := m.active(sender)
	wanted := who != nil && who.state.Receipts
	b.mu.RUnlock()
	if !wanted {
		return nil
	}
	ctx, cancel := b.deadline()
	defer cancel()
	subject := receiptSubject(m.rec.ID, sender)
	if b.store.full(ctx, subject, b.lim.MailboxDepth) {
		return nil
	}
	r := wire.Receipt{
		Type: wire.TypeReceipt, MessageID: id, ClientMessageID: cmid, State: a.State, Via: a.Via, By: a.By, RecipientPubkey: recipient,
		At: a.At, Signature: a.Signature,
	}
	if a.Signature == "" {
		r.At = wire.Timestamp(b.now()) // nobody's word but ours
	}
	return &receiptFor{subject: subject, receipt: r}
}
