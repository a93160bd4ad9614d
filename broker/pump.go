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
		msg, err := p.c.b.store.holding(b.subject).GetMsg(p.c.ctx, b.cursor+1, jetstream.WithGetMsgSubject(b.subject))
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
	if c.b.settler.settled(b.subject, seq) {
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
	}
	encoded, err := wire.Encode(v)
	if err != nil {
		c.log.Error("mail not sendable, passed over", "seq", seq, "err", err)
		b.cursor = seq
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
	b.cursor = seq
	return nil
}
