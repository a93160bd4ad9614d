package broker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/wire"
)

// What a client that acknowledges was pushed and has not acknowledged is its own for Limits.Lease. Then it is pushed again on the same connection: the client
// may have lost it between its socket and its store, and would otherwise get it with its next connection only.
const leaseEvery = 15 * time.Second

// renewLeases pushes again what is overdue, until ctx ends.
func (b *Broker) renewLeases(ctx context.Context) {
	tick := b.clock.NewTicker(leaseEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.Chan():
		}
		b.mu.RLock()
		var pumps []*pump
		for _, m := range b.meshes {
			for c := range m.conns {
				if p := c.draining.Load(); p != nil && c.acking.Load() {
					pumps = append(pumps, p)
				}
			}
		}
		b.mu.RUnlock()
		for _, p := range pumps {
			p.again(b.now())
		}
	}
}

// overdue is one push whose lease is over.
type overdue struct {
	id string
	waiting
}

// again begins to push what is overdue, oldest first. One such round of a connection is under way at a time; it may wait for the socket.
func (p *pump) again(now time.Time) {
	p.mu.Lock()
	var late []overdue
	for id, w := range p.waiting {
		if now.Sub(w.at) >= p.c.b.lim.Lease {
			late = append(late, overdue{id, w})
			w.at = now
			p.waiting[id] = w
		}
	}
	p.mu.Unlock()
	if len(late) == 0 {
		return
	}
	slices.SortFunc(late, func(a, b overdue) int { return cmp.Compare(a.seq, b.seq) })
	p.state.Lock()
	defer p.state.Unlock()
	if p.repeating || p.over {
		return
	}
	p.repeating = true
	p.work.Go(func() {
		for _, o := range late {
			if err := p.repeat(o); err != nil {
				if p.c.ctx.Err() == nil {
					p.c.log.Warn("push not repeated, trying again", "err", err)
				}
				break
			}
		}
		p.state.Lock()
		p.repeating = false
		p.state.Unlock()
	})
}

// repeat pushes one entry again, if it is still there and still waits.
func (p *pump) repeat(o overdue) error {
	p.mu.Lock()
	_, waits := p.waiting[o.id]
	p.mu.Unlock()
	if !waits {
		return nil
	}
	store := p.c.b.store
	msg, err := store.holding(o.subject).GetMsg(p.c.ctx, o.seq)
	var encoded []byte
	if err == nil {
		var m mail
		if err := json.Unmarshal(msg.Data, &m); err != nil {
			return err
		}
		if m.Receipt != nil {
			encoded, err = receiptFrame(*m.Receipt, o.seq)
		} else {
			var rec *accepted
			if rec, err = store.record(p.c.ctx, m.Accept); err == nil {
				encoded, err = rec.frame()
			}
		}
	}
	if errors.Is(err, jetstream.ErrMsgNotFound) { // it has expired, or another connection has acknowledged it
		p.take(o.id, "")
		return nil
	}
	if err != nil {
		return err
	}
	if !p.c.push(frame{data: encoded}) {
		return p.c.ctx.Err()
	}
	return nil
}

// receiptFrame is the frame of the receipt at that place of its mailbox.
func receiptFrame(r wire.Receipt, seq uint64) ([]byte, error) {
	r.MailID = receiptID(seq)
	return wire.Encode(r)
}

func receiptID(seq uint64) string { return "r" + strconv.FormatUint(seq, 10) }
