package broker

import (
	"fmt"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
)

// live hands the republished copies of mail to the mailboxes that are being read. It is one subscription for all of them: one of each mailbox would cost
// every connection a goroutine and some kilobytes, and its hello a round trip to the store.
type live struct {
	nc     *nats.Conn
	sub    *nats.Subscription
	closed chan struct{} // the subscription's last copy has been handed over
	back   chan nats.Status
	lost   int // copies that the client library threw away, as far as dealt with; of the subscription's goroutine

	mu      sync.RWMutex
	readers map[string][]reader // by mailbox subject
}

// reader is one connection's view of a mailbox.
type reader struct {
	p *pump
	b *box
}

// openLive subscribes. Copies from then on reach whoever reads their mailbox.
func openLive(nc *nats.Conn) (*live, error) {
	l := &live{nc: nc, closed: make(chan struct{}), readers: map[string][]reader{}, back: nc.StatusChanged(nats.CONNECTED)}
	sub, err := nc.Subscribe(livePrefix+">", l.copy)
	if err != nil {
		nc.RemoveStatusListener(l.back)
		return nil, fmt.Errorf("subscribe to mail: %w", err)
	}
	l.sub = sub
	sub.SetClosedHandler(func(string) { close(l.closed) })
	return l, nil
}

// watch sends every reader to the stream when the connection to the store has been lost and is back: copies may have been missed meanwhile. It returns
// after close.
func (l *live) watch() {
	for range l.back {
		l.missed()
	}
}

// close ends copies and watch.
func (l *live) close() {
	l.nc.RemoveStatusListener(l.back)
	if l.sub.Unsubscribe() == nil { // else the connection has gone, and the handler may never be called
		<-l.closed
	}
}

func (l *live) copy(m *nats.Msg) {
	if lost, err := l.sub.Dropped(); err == nil && lost != l.lost {
		l.lost = lost
		l.missed()
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, r := range l.readers[strings.TrimPrefix(m.Subject, livePrefix)] {
		r.p.copy(r.b, m)
	}
}

// missed makes every reader look into its mailbox.
func (l *live) missed() {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, all := range l.readers {
		for _, r := range all {
			r.b.missed()
			r.p.kick()
		}
	}
}

// join lets a pump hear of its mailboxes, before it reads them for the first time, so that no entry falls between.
func (l *live) join(p *pump) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range p.boxes {
		l.readers[b.subject] = append(l.readers[b.subject], reader{p, b})
	}
}

// leave ends that; no copy reaches the pump after it.
func (l *live) leave(p *pump) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range p.boxes {
		var rest []reader
		for _, r := range l.readers[b.subject] {
			if r.p != p {
				rest = append(rest, r)
			}
		}
		if l.readers[b.subject] = rest; len(rest) == 0 {
			delete(l.readers, b.subject)
		}
	}
}
