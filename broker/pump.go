package broker

import (
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/wire"
)

// pump reads a connection's mailboxes and pushes what lies in them, each mailbox in order. It starts at the oldest entry: what an earlier connection did
// not acknowledge comes again. A goroutine serves it only while there is something to read: most connections are idle most of the time.
type pump struct {
	c     *conn
	boxes []*box

	work    sync.WaitGroup
	state   sync.Mutex
	running bool
	more    bool // look again before you end
	over    bool

	repeating bool // a round of again is under way

	mu      sync.Mutex
	waiting map[string]waiting               // pushed, neither acknowledged nor given up; by broker message id or mail id
	room    chan struct{}                    // something left waiting
	early   *simplelru.LRU[string, struct{}] // acknowledged before it was pushed on this connection; nil until there is one
}

func startPump(c *conn) *pump {
	p := &pump{c: c, waiting: map[string]waiting{}, room: make(chan struct{}, 1)}
	for _, key := range c.keys {
		p.boxes = append(p.boxes, &box{subject: mailSubject(c.mesh.rec.ID, key), key: key, gap: true})
	}
	if c.receipts {
		p.boxes = append(p.boxes, &box{subject: receiptSubject(c.mesh.rec.ID, c.member.Pubkey), key: c.member.Pubkey, gap: true})
	}
	c.b.live.join(p)
	p.kick()
	return p
}

// wait ends the pump of a connection that has ended.
func (p *pump) wait() {
	p.c.b.live.leave(p)
	p.state.Lock()
	p.over = true
	p.state.Unlock()
	p.work.Wait()
}

// kick says that a mailbox wants reading. It never blocks.
func (p *pump) kick() {
	p.state.Lock()
	defer p.state.Unlock()
	p.more = true
	if !p.running && !p.over {
		p.running = true
		p.work.Go(p.run)
	}
}

func (p *pump) run() {
	for p.wanted() {
		err := p.emptyAll()
		if err == nil || p.c.ctx.Err() != nil {
			continue
		}
		// The connection can still send; its mail waits for the store.
		p.c.log.Warn("mailbox not readable, trying again", "err", err)
		select {
		case <-p.c.ctx.Done():
		case <-p.c.b.clock.After(time.Second):
			p.kick()
		}
	}
}

// wanted reports whether there is something to do; when not, run must end.
func (p *pump) wanted() bool {
	p.state.Lock()
	defer p.state.Unlock()
	p.running = p.more && p.c.ctx.Err() == nil
	p.more = false
	return p.running
}

// emptyAll deals with everything in every mailbox. After a failure the mailbox is read from the stream the next time.
func (p *pump) emptyAll() error {
	var failed error
	for _, b := range p.boxes {
		if err := p.empty(b); err != nil {
			b.missed()
			failed = err
		}
	}
	return failed
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
				err = p.deliver(b, e.seq, e.last, e.data, gated)
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
	for prev := uint64(0); ; {
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
		if prev != b.at(gated) {
			prev = 0 // not what was read from
		}
		if err := p.deliver(b, msg.Sequence, prev, msg.Data, gated); err != nil {
			return err
		}
		prev = msg.Sequence
	}
}

// deliver pushes one entry, waiting for room if the client owes acknowledgements, and moves on behind it. A gated one that is not urgent is only passed.
// prev is the entry before it, if known: see settlement.
func (p *pump) deliver(b *box, seq, prev uint64, data []byte, gated bool) error {
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
	w := waiting{subject: b.subject, key: b.key, seq: seq, prev: prev, at: c.b.now()}
	var id string
	var encoded []byte
	var err error
	if m.Receipt != nil {
		id = receiptID(seq)
		encoded, err = receiptFrame(*m.Receipt, seq)
	} else {
		var rec *accepted
		rec, err = c.b.store.record(c.ctx, m.Accept)
		if errors.Is(err, jetstream.ErrMsgNotFound) { // the message has expired; so will its references
			c.b.settler.add(settlement{subject: b.subject, seq: seq, prev: prev})
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
		id, w.cmid, w.sender = rec.ID, rec.CMID, rec.MemberPubkey
		encoded, err = rec.frame()
	}
	if err != nil {
		c.log.Error("mail not sendable, passed over", "seq", seq, "err", err)
		b.reached(seq, gated, false)
		return nil
	}
	switch p.hold(id, w) {
	case ended:
		return c.ctx.Err()
	case early:
		c.b.settler.add(settlement{subject: b.subject, seq: seq, prev: prev})
	case held:
		if !c.push(frame{data: encoded, sent: func() { p.sent(id) }}) {
			return c.ctx.Err()
		}
	}
	b.reached(seq, gated, false)
	return nil
}
