package broker

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/wire"
)

// pump reads a connection's mailboxes and pushes what lies in them, each mailbox in order. It starts at the oldest entry: what an earlier connection did
// not acknowledge comes again.
type pump struct {
	c      *conn
	boxes  []*box
	signal chan struct{}
	ended  chan struct{}

	mu      sync.Mutex
	waiting map[string]waiting               // pushed, neither acknowledged nor given up; by broker message id or mail id
	room    chan struct{}                    // something left waiting
	early   *simplelru.LRU[string, struct{}] // acknowledged before it was pushed on this connection
}

// waiting is a push that waits for its acknowledgement.
type waiting struct {
	subject string // its mailbox
	key     string // the mailbox key it was addressed to
	seq     uint64 // in CM_MAIL
	cmid    string
	sender  string // public key of the sending member; "" for a receipt
}

// box is one mailbox being read. Live copies arrive by subscription; a bounded number waits here, and when there are more, or some were missed, gap sends
// the pump to the stream.
type box struct {
	subject, key string
	cursor       uint64 // of the pump's goroutine: the last entry dealt with

	mu    sync.Mutex
	queue []copied
	gap   bool
}

// copied is a republished entry: its sequence, and that of the entry before it in the same mailbox.
type copied struct {
	seq, last uint64
	data      []byte
}

func startPump(c *conn) *pump {
	p := &pump{c: c, signal: make(chan struct{}, 1), ended: make(chan struct{}), waiting: map[string]waiting{}, room: make(chan struct{}, 1)}
	p.early, _ = simplelru.NewLRU[string, struct{}](1024, nil)
	for _, key := range c.keys {
		p.boxes = append(p.boxes, &box{subject: mailSubject(c.mesh.rec.ID, key), key: key, gap: true})
	}
	if c.receipts {
		p.boxes = append(p.boxes, &box{subject: receiptSubject(c.mesh.rec.ID, c.member.Pubkey), key: c.member.Pubkey, gap: true})
	}
	go p.run()
	return p
}

func (p *pump) wait() { <-p.ended }

func (p *pump) run() {
	defer close(p.ended)
	var subs sync.WaitGroup
	defer subs.Wait()
	if err := p.subscribe(&subs); err != nil {
		p.c.log.Error("mailbox not readable", "err", err)
		p.c.close(websocket.CloseInternalServerErr, "store unavailable")
		return
	}
	var again <-chan time.Time
	for {
		if err := p.emptyAll(); p.c.ctx.Err() != nil {
			return
		} else if err != nil { // the connection can still send; its mail waits for the store
			p.c.log.Warn("mailbox not readable, trying again", "err", err)
			again = p.c.b.clock.After(time.Second)
		}
		select {
		case <-p.c.ctx.Done():
			return
		case <-p.signal:
		case <-again:
			again = nil
		}
	}
}

// emptyAll deals with everything in every mailbox. After a failure the mailbox is read from the stream the next time.
func (p *pump) emptyAll() error {
	var failed error
	for _, b := range p.boxes {
		if err := p.empty(b); err != nil {
			b.mu.Lock()
			b.gap = true
			b.mu.Unlock()
			failed = err
		}
	}
	return failed
}

// subscribe listens for live copies before anything is read, so that no entry falls between. Every subscription ends with the connection.
func (p *pump) subscribe(subs *sync.WaitGroup) error {
	for _, b := range p.boxes {
		sub, err := p.c.b.store.nc.Subscribe(livePrefix+b.subject, func(m *nats.Msg) { p.copy(b, m) })
		if err != nil {
			return err
		}
		subs.Add(1)
		sub.SetClosedHandler(func(string) { subs.Done() })
		context.AfterFunc(p.c.ctx, func() { _ = sub.Unsubscribe() })
	}
	ctx, cancel := p.c.b.deadline()
	defer cancel()
	return p.c.b.store.nc.FlushWithContext(ctx)
}

// copy takes one live copy. It never blocks: the subscription's goroutine is the client library's.
func (p *pump) copy(b *box, m *nats.Msg) {
	seq, err1 := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
	last, err2 := strconv.ParseUint(m.Header.Get("Nats-Last-Sequence"), 10, 64)
	b.mu.Lock()
	if err1 != nil || err2 != nil || len(b.queue) >= liveCopies {
		b.gap = true
	} else {
		b.queue = append(b.queue, copied{seq, last, m.Data})
	}
	b.mu.Unlock()
	select {
	case p.signal <- struct{}{}:
	default:
	}
}

func (b *box) take() (queue []copied, gap bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	queue, gap, b.queue, b.gap = b.queue, b.gap, nil, false
	return queue, gap
}

// empty deals with everything that is in the mailbox now.
func (p *pump) empty(b *box) error {
	for {
		queue, gap := b.take()
		if !gap && len(queue) == 0 {
			return nil
		}
		if gap {
			if err := p.catchUp(b); err != nil {
				return err
			}
		}
		for _, e := range queue {
			var err error
			switch {
			case e.seq <= b.cursor:
			case e.last <= b.cursor:
				err = p.deliver(b, e.seq, e.data)
			default:
				err = p.catchUp(b)
			}
			if err != nil {
				return err
			}
		}
	}
}

// catchUp reads the mailbox from the stream.
func (p *pump) catchUp(b *box) error {
	for {
		msg, err := p.c.b.store.mail.GetMsg(p.c.ctx, b.cursor+1, jetstream.WithGetMsgSubject(b.subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := p.deliver(b, msg.Sequence, msg.Data); err != nil {
			return err
		}
	}
}

// deliver pushes one entry, waiting for room if the client owes acknowledgements, and moves the cursor over it.
func (p *pump) deliver(b *box, seq uint64, data []byte) error {
	c := p.c
	if c.b.settler.settled(seq) {
		b.cursor = seq
		return nil
	}
	var m mail
	if err := json.Unmarshal(data, &m); err != nil {
		c.log.Error("mailbox entry not readable, passed over", "seq", seq, "err", err)
		b.cursor = seq
		return nil
	}
	w := waiting{subject: b.subject, key: b.key, seq: seq}
	var id string
	var v any
	if m.Receipt != nil {
		r := *m.Receipt
		r.MailID = "r" + strconv.FormatUint(seq, 10)
		id, v = r.MailID, r
	} else {
		rec, err := c.b.store.record(c.ctx, m.Accept)
		if errors.Is(err, jetstream.ErrMsgNotFound) { // the message has expired; so will its references
			c.b.settler.add(settlement{subject: b.subject, seq: seq})
			b.cursor = seq
			return nil
		}
		if err != nil {
			return err
		}
		if rec.Multicast && rec.MemberPubkey == c.member.Pubkey && !c.ownMulticast {
			b.cursor = seq // for another connection of this member
			return nil
		}
		id, v, w.cmid, w.sender = rec.ID, rec.push(), rec.CMID, rec.MemberPubkey
		if p.acknowledgedEarly(id) {
			c.b.settler.add(settlement{subject: b.subject, seq: seq})
			b.cursor = seq
			return nil
		}
	}
	encoded, err := wire.Encode(v)
	if err != nil {
		c.log.Error("mail not sendable, passed over", "seq", seq, "err", err)
		b.cursor = seq
		return nil
	}
	if !p.hold(id, w) || !c.push(frame{data: encoded, sent: func() { p.sent(id) }}) {
		return c.ctx.Err()
	}
	b.cursor = seq
	return nil
}

// hold registers a push before it is written, once the window has room. False: the connection ended first.
func (p *pump) hold(id string, w waiting) bool {
	for {
		p.mu.Lock()
		if len(p.waiting) < p.c.b.lim.Window {
			p.waiting[id] = w
			p.mu.Unlock()
			return true
		}
		p.mu.Unlock()
		select {
		case <-p.room:
		case <-p.c.ctx.Done():
			return false
		}
	}
}

// take removes the pushes that an acknowledgement means: by broker message id or mail id, else by client message id.
func (p *pump) take(id, cmid string) (taken []waiting, ids []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if id != "" {
		if w, ok := p.waiting[id]; ok {
			taken, ids = append(taken, w), append(ids, id)
		}
	} else {
		for id, w := range p.waiting {
			if w.cmid == cmid && w.sender != "" {
				taken, ids = append(taken, w), append(ids, id)
			}
		}
	}
	for _, id := range ids {
		delete(p.waiting, id)
	}
	if len(ids) > 0 {
		select {
		case p.room <- struct{}{}:
		default:
		}
	}
	return taken, ids
}

// sent is called when the socket took a push. For a client that never acknowledges this is the acknowledgement, unless somebody who does reads the same
// mailbox: then it is theirs to give.
func (p *pump) sent(id string) {
	if p.c.acking.Load() {
		return
	}
	taken, _ := p.take(id, "")
	for _, w := range taken {
		if !p.c.b.acknowledged(p.c.mesh, w.key) {
			p.c.b.settler.add(settlement{subject: w.subject, seq: w.seq})
		}
	}
}

// acknowledged reports whether any connection that acknowledges reads the mailbox.
func (b *Broker) acknowledged(m *meshState, key string) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for c := range m.readers[key] {
		if c.acking.Load() {
			return true
		}
	}
	return false
}

func (p *pump) noteEarly(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.early.Add(id, struct{}{})
}

func (p *pump) acknowledgedEarly(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.early.Remove(id)
}

// push is the frame that carries an accepted message.
func (a *accepted) push() wire.Push {
	sender := a.SessionKey
	if sender == "" {
		sender = a.MemberPubkey
	}
	return wire.Push{
		Type: wire.TypePush, MessageID: a.ID, MeshID: a.Mesh, SenderPubkey: sender, SenderMemberPubkey: a.MemberPubkey, SenderMemberID: a.MemberID,
		SenderName: a.Name, ReplyToID: a.ReplyTo, Priority: a.Priority, Nonce: a.Nonce, Ciphertext: a.Ciphertext,
		CreatedAt: wire.Timestamp(unixMilli(a.At)), ClientMessageID: a.CMID, RequestFingerprint: a.Fingerprint, TargetSpec: a.Target,
	}
}

func unixMilli(ms int64) time.Time { return time.UnixMilli(ms) }
