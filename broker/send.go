package broker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// pendingSend is a send whose answer waits its turn: no is set, or first (the message it repeats), or future, the store's promise.
type pendingSend struct {
	ack    wire.Ack // id and request id
	rec    *accepted
	first  *accepted
	future promise
	no     *refusal
}

const noPeer = "no connected peer for target (not online, or targetSpec is your own key without another session)"

// send begins one send and returns as soon as it is on its way to the store; answerSends answers in the order of the frames.
func (c *conn) send(data []byte) {
	if c.sends == nil {
		c.sends = make(chan *pendingSend, c.b.lim.SendsInFlight)
		c.acker.Go(c.answerSends)
	}
	p := &pendingSend{ack: wire.Ack{Type: wire.TypeAck}}
	var f struct {
		wire.Send
		ReqID string `json:"_reqId"`
	}
	err := wire.Decode(data, &f) // fills in what it can before it fails
	if len(f.ID) <= wire.MaxIDBytes {
		p.ack.ID = f.ID
	}
	p.ack.ReqID = f.ReqID
	if err != nil {
		p.no = refused(wire.AckInvalid, "invalid: "+err.Error())
	} else {
		p.rec, p.first, p.no = c.compose(f.Send)
	}
	if p.no == nil && p.first == nil {
		p.future, p.no = c.b.accept(p.rec)
	}
	c.sends <- p
}

// compose makes the record of a send, or says why not. A repetition gets the first answer whoever is reachable now: first is then the accepted message.
func (c *conn) compose(f wire.Send) (rec, first *accepted, no *refusal) {
	if n := f.Size(); n > wire.MaxSendBytes {
		return nil, nil, refused(wire.AckPayloadTooLarge, fmt.Sprintf("payload too large: %d bytes > MAX_MESSAGE_BYTES=%d", n, wire.MaxSendBytes))
	}
	if no = c.maySend(f.TargetSpec); no != nil {
		return nil, nil, no
	}
	rec = &accepted{
		CMID: f.ClientMessageID, Mesh: c.mesh.rec.ID, MemberID: c.member.ID, MemberPubkey: c.member.Pubkey, SessionKey: c.sessionKey, Name: c.name,
		Target: f.TargetSpec, Priority: f.Priority, Nonce: f.Nonce, Ciphertext: f.Ciphertext, ReplyTo: f.ReplyToID, At: c.b.now().UnixMilli(),
		BodyVersion: f.BodyVersion,
	}
	if f.RequestFingerprint != "" {
		if !hexOf(f.RequestFingerprint, 32) {
			return nil, nil, refused(wire.AckInvalid, "invalid: request_fingerprint must be 64 hex digits")
		}
		rec.Fingerprint, rec.Digest = f.RequestFingerprint, "f:"+f.RequestFingerprint
	} else {
		sum := sha256.Sum256([]byte(f.TargetSpec + "|" + f.Priority + "|" + f.Nonce + "|" + f.Ciphertext))
		rec.Digest = "h:" + hex.EncodeToString(sum[:])
	}
	if rec.CMID != "" {
		rec.ID = messageID(c.b.idSecret, rec.Mesh, rec.MemberID, rec.CMID)
	} else {
		id, err := newID(c.b.cfg.Rand)
		if err != nil {
			c.log.Error("send refused", "err", err)
			return nil, nil, refused(wire.AckUnavailable, "internal error")
		}
		rec.ID = id
	}
	if no = c.limited(); no == nil {
		no = c.route(rec)
	}
	if no == nil || rec.CMID == "" {
		return rec, nil, no
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	if first, err := c.b.store.recordByID(ctx, rec.Mesh, rec.ID); err == nil {
		return rec, first, nil
	}
	return nil, nil, no
}

// route fills in the mailboxes the message goes to.
func (c *conn) route(rec *accepted) *refusal {
	ctx, cancel := c.b.deadline()
	defer cancel()
	depth := c.b.lim.MailboxDepth
	if group, all, ok := isMulticast(rec.Target); ok {
		c.b.mu.RLock()
		to := c.mesh.multicast(c.member, group, all, c.b.now())
		c.b.mu.RUnlock()
		rec.Multicast = true
		rec.To = slices.DeleteFunc(to, func(key string) bool { return c.b.store.full(ctx, mailSubject(rec.Mesh, key), depth) })
		return nil
	}
	switch {
	case rec.Target[0] == '#':
		return c.routePost(ctx, rec)
	case rec.Target[0] == '@':
		return refused(wire.AckInvalid, "invalid: group name missing")
	case !mesh.ValidKey(rec.Target) || slices.Contains(c.keys, rec.Target):
		return refused(wire.AckNoPeer, noPeer)
	}
	c.b.mu.RLock()
	known, blocked := c.mesh.addressable(rec.Target), c.mesh.blocked(c.member, rec.Target)
	c.b.mu.RUnlock()
	switch {
	case !known:
		return refused(wire.AckNoPeer, noPeer)
	case blocked != nil:
		return blocked
	}
	if c.b.store.full(ctx, mailSubject(rec.Mesh, rec.Target), depth) {
		return refused(wire.AckUnavailable, "unavailable: the recipient's mailbox is full")
	}
	rec.To = []string{rec.Target}
	return nil
}

// accept starts the write that is the acceptance: it succeeds only if no message has that id.
func (b *Broker) accept(rec *accepted) (promise, *refusal) {
	if b.fan.broken.Load() {
		return nil, refused(wire.AckUnavailable, "unavailable: the store does not take mail now")
	}
	data, err := json.Marshal(rec)
	if err != nil {
		return nil, refused(wire.AckInvalid, "invalid: "+err.Error())
	}
	rec.size = len(data)
	future, err := b.keep(&nats.Msg{Subject: acceptSubject(rec.Mesh, rec.ID), Data: data})
	if err != nil {
		b.log.Warn("send refused", "err", err)
		return nil, refused(wire.AckUnavailable, "unavailable: the store does not answer")
	}
	return future, nil
}

// answerSends waits for the store's promises and answers, in order. It finishes what was begun also when the client is gone.
func (c *conn) answerSends() {
	for p := range c.sends {
		if p.no == nil {
			p.no = c.outcome(p)
		}
		if p.no != nil {
			p.ack.MessageID, p.ack.Error, p.ack.Code, p.ack.RetryAfterMS = "", p.no.message, p.no.code, (p.no.wait + time.Millisecond - 1).Milliseconds()
			c.b.figures.rejected(p.no.code)
		} else if !p.ack.Duplicate {
			c.b.figures.routed[p.rec.Priority].Inc() // a decoded send has one of the three
		}
		data, err := wire.Encode(p.ack)
		if err != nil {
			c.log.Error("send not answered", "err", err)
			continue
		}
		select { // the answer first, so that a receipt cannot overtake it; but a client that does not read holds up nobody's mail
		case c.out <- frame{data: data}:
			c.b.fan.poke()
		default:
			c.b.fan.poke()
			c.push(frame{data: data})
		}
	}
}

// outcome waits for one promise and completes the answer.
func (c *conn) outcome(p *pendingSend) *refusal {
	if p.first != nil {
		return p.repeats(p.first)
	}
	seq, err := p.future.wait(context.Background())
	if err == nil {
		c.b.store.bodies.put(seq, p.rec)
		c.b.fan.note(seq)
		p.ack.Queued, p.ack.MessageID = true, p.rec.ID
		return nil
	}
	if !idTaken(err) {
		c.log.Warn("send not stored", "err", err)
		return refused(wire.AckUnavailable, "unavailable: the store did not take the message")
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	first, err := c.b.store.recordByID(ctx, p.rec.Mesh, p.rec.ID)
	if err != nil {
		c.log.Warn("repeated send not answered", "err", err)
		return refused(wire.AckUnavailable, "unavailable: the store does not answer")
	}
	return p.repeats(first)
}

// repeats answers a send whose id is in use: with the first answer if it is the same request.
func (p *pendingSend) repeats(first *accepted) *refusal {
	if first.Digest != p.rec.Digest {
		return refused(wire.AckIDReused, wire.AckIDReused+": client_message_id was used for a different request")
	}
	p.ack.Queued, p.ack.Duplicate, p.ack.MessageID = true, true, first.ID
	return nil
}

// idTaken reports whether the conditional write failed because the subject is in use.
func idTaken(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == 10164)
}
