package broker

import (
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// maxEarly is how many ids a connection may acknowledge before they are pushed on it; of more, the oldest are forgotten and come again.
const maxEarly = 1024

// waiting is a push that waits for its acknowledgement.
type waiting struct {
	subject string // its mailbox
	key     string // the mailbox key it was addressed to
	seq     uint64 // in the stream that holds it
	prev    uint64 // the entry before it, see settlement
	cmid    string
	sender  string // public key of the sending member; "" for a receipt
	at      time.Time
}

// What hold did.
type holding int

const (
	held  holding = iota // the push is registered; write it
	early                // it has been acknowledged already, on this connection; do not
	ended                // the connection is over
)

// hold registers a push before it is written, once the window has room.
func (p *pump) hold(id string, w waiting) holding {
	for stalled := false; ; stalled = true {
		p.mu.Lock()
		switch {
		case p.early != nil && p.early.Remove(id):
			p.mu.Unlock()
			return early
		case len(p.waiting) < p.c.b.lim.Window:
			p.waiting[id] = w
			p.mu.Unlock()
			return held
		}
		p.mu.Unlock()
		if !stalled {
			p.c.b.figures.stalls.Inc()
		}
		select {
		case <-p.room:
		case <-p.c.ctx.Done():
			return ended
		}
	}
}

// take removes the pushes that an acknowledgement means: by broker message id or mail id, else by client message id. A message id that is not waiting is
// remembered: an earlier connection may have received the message, and this one is not to push it again.
func (p *pump) take(id, cmid string) (taken []waiting, ids []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if id != "" {
		if w, ok := p.waiting[id]; ok {
			taken, ids = append(taken, w), append(ids, id)
		} else if validID(id) {
			if p.early == nil {
				// The only error is for a size below one.
				p.early, _ = simplelru.NewLRU[string, struct{}](maxEarly, nil)
			}
			p.early.Add(id, struct{}{})
		}
	} else {
		for id, w := range p.waiting {
			if w.cmid == cmid {
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

// notEarly forgets an early acknowledgement of which no receipt could be made: the message is pushed, and acknowledged, again.
func (p *pump) notEarly(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.early != nil {
		p.early.Remove(id)
	}
}

// sent is called when the socket took a push. For a client that never acknowledges this is the acknowledgement, unless somebody who does reads the same
// mailbox: then it is theirs to give.
func (p *pump) sent(id string) {
	if p.c.acking.Load() {
		return
	}
	taken, _ := p.take(id, "")
	for _, w := range taken {
		// This very connection may have acknowledged it between the two lines above: it found nothing to take then, and what it meant is settled here.
		if !p.c.b.acknowledged(p.c, w.key) {
			p.c.b.settler.took(w.subject, id, p.c.b.now())
			p.c.b.settler.add(settlement{subject: w.subject, seq: w.seq, prev: w.prev})
		}
	}
}

// acknowledged reports whether any other connection than but that acknowledges reads the mailbox.
func (b *Broker) acknowledged(but *conn, key string) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for c := range but.mesh.readers[key] {
		if c != but && c.acking.Load() {
			return true
		}
	}
	return false
}
