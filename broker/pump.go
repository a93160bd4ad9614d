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

// look makes the pump look at its mailboxes. It never blocks.
func (p *pump) look() {
	select {
	case p.signal <- struct{}{}:
	default:
	}
}

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

// empty deals with everything that is in the mailbox now.
func (p *pump) empty(b *box) error {
	for {
		queue, gap := b.take()
		if gap = gap || b.behind(p.c.gated()); !gap && len(queue) == 0 {
			return nil
		}
		if gap {
			if err := p.catchUp(b); err != nil {
				return err
			}
		}
		for _, e := range queue {
			var err error
			switch gated := p.c.gated(); {
			case b.behind(gated): // the status has just changed
				err = p.catchUp(b)
			case e.seq <= b.at(gated):
			case e.last <= b.at(gated):
				err = p.deliver(b, e.seq, e.data, gated)
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
		gated := p.c.gated()
		msg, err := p.c.b.store.holding(b.subject).GetMsg(p.c.ctx, b.at(gated)+1, jetstream.WithGetMsgSubject(b.subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			if !gated {
				b.cursor = b.ahead // what was held has gone meanwhile
			}
			return nil
		}
		if err != nil {
			return err
		}
		if err := p.deliver(b, msg.Sequence, msg.Data, gated); err != nil {
			return err
		}
	}
}

// deliver pushes one entry, waiting for room if the client owes acknowledgements, and moves on behind it. A gated one that is not urgent is only passed.
func (p *pump) deliver(b *box, seq uint64, data []byte, gated bool) error {
	c := p.c
	if c.b.settler.settled(b.subject, seq) {
		b.reached(seq, gated, false)
		return nil
	}
	var m mail
	if err := json.Unmarshal(data, &m); err != nil {
		c.log.Error("mailbox entry not readable, passed over", "seq", seq, "err", err)
		b.reached(seq, gated, false)
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
			b.reached(seq, gated, false)
			return nil
		}
		if err != nil {
			return err
		}
		if rec.Multicast && rec.MemberPubkey == c.member.Pubkey && !c.ownMulticast {
			b.reached(seq, gated, false) // for another connection of this member
			return nil
		}
		if urgent := rec.Priority == wire.PriorityNow; gated && !urgent {
			b.reached(seq, gated, true)
			return nil
		} else if urgent && seq <= b.ahead && !gated { // pushed while those before it were held
			b.reached(seq, gated, false)
			return nil
		}
		id, v, w.cmid, w.sender = rec.ID, rec.push(), rec.CMID, rec.MemberPubkey
	}
	encoded, err := wire.Encode(v)
	if err != nil {
		c.log.Error("mail not sendable, passed over", "seq", seq, "err", err)
		b.reached(seq, gated, false)
		return nil
	}
	switch p.hold(id, w) {
	case ended:
		return c.ctx.Err()
	case early:
		c.b.settler.add(settlement{subject: b.subject, seq: seq})
	case held:
		if !c.push(frame{data: encoded, sent: func() { p.sent(id) }}) {
			return c.ctx.Err()
		}
	}
	b.reached(seq, gated, false)
	return nil
}
