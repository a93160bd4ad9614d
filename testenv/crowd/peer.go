package crowd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"claudemesh/wire"
)

// Peer is a member that loses nothing of its own: it connects until it is stopped, sends every message until it is acknowledged, and acknowledges what it
// receives after it has noted it.
type Peer struct {
	Member
	mesh *Mesh
	tell chan<- struct{} // a sign that something moved

	mu       sync.Mutex
	todo     []wire.Send // not yet acknowledged, in order
	onWay    map[string]struct{}
	ids      map[string]string // broker's message id by client message id, of what was acknowledged
	got      map[string]int    // how often each client message id was received
	as       map[string]string // broker's message id by client message id, of what was received
	problems []error
	room     chan struct{}
	connects int
}

// window is how many sends of a peer wait for their acknowledgement at a time.
const window = 16

// NewPeer makes the peer of a member. It tells when something was acknowledged or received, without waiting for anybody to listen.
func (m *Mesh) NewPeer(who Member, tell chan<- struct{}) *Peer {
	return &Peer{Member: who, mesh: m, tell: tell, ids: map[string]string{}, got: map[string]int{}, as: map[string]string{}, room: make(chan struct{}, 1)}
}

// Queue adds messages to be sent.
func (p *Peer) Queue(sends ...wire.Send) {
	p.mu.Lock()
	p.todo = append(p.todo, sends...)
	p.mu.Unlock()
	p.poke(p.room)
}

// Run is the peer's life; it returns nil when ctx ends, and an error when the broker refuses its hello.
func (p *Peer) Run(ctx context.Context) error {
	retry := time.NewTicker(20 * time.Millisecond) // between attempts to reach a broker that is down
	defer retry.Stop()
	for ctx.Err() == nil {
		c, err := p.mesh.Join(ctx, p.Member, p.on)
		switch {
		case err == nil:
			p.feed(ctx, c)
			c.Close()
		case errors.Is(err, ErrRefused):
			return err
		default:
			select {
			case <-retry.C:
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// feed sends what is to be sent over one connection.
func (p *Peer) feed(ctx context.Context, c *Client) {
	p.mu.Lock()
	p.onWay = map[string]struct{}{} // what an earlier connection sent is sent again
	p.connects++
	p.mu.Unlock()
	for {
		for _, s := range p.next() {
			if c.Write(s) != nil {
				return
			}
		}
		select {
		case <-p.room:
		case <-c.Done():
			return
		case <-ctx.Done():
			return
		}
	}
}

// next takes what the window has room for.
func (p *Peer) next() (sends []wire.Send) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.todo {
		if len(p.onWay) >= window {
			break
		}
		if _, on := p.onWay[s.ID]; !on {
			p.onWay[s.ID] = struct{}{}
			sends = append(sends, s)
		}
	}
	return sends
}

func (p *Peer) on(c *Client, frameType string, data []byte) {
	switch frameType {
	case wire.TypeAck:
		var a wire.Ack
		p.check(json.Unmarshal(data, &a))
		p.acked(a)
	case wire.TypePush:
		var m wire.Push
		p.check(json.Unmarshal(data, &m))
		if m.Subtype == wire.SubtypeSystem {
			return
		}
		p.received(m)
		// A failure means that the connection is ending; the message then comes again.
		_ = c.Write(wire.ClientAck{Type: wire.TypeClientAck, BrokerMessageID: m.MessageID, ClientMessageID: m.ClientMessageID})
		p.poke(p.tell)
	case wire.TypeError:
		p.check(fmt.Errorf("unexpected %s", data))
	}
}

func (p *Peer) received(m wire.Push) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got[m.ClientMessageID]++
	if had, ok := p.as[m.ClientMessageID]; ok && had != m.MessageID {
		p.problems = append(p.problems, fmt.Errorf("%s came as %s and %s", m.ClientMessageID, had, m.MessageID))
	}
	p.as[m.ClientMessageID] = m.MessageID
}

func (p *Peer) acked(a wire.Ack) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !a.Queued {
		p.problems = append(p.problems, fmt.Errorf("send %s was refused: %s", a.ID, a.Error))
	}
	if had, ok := p.ids[a.ID]; ok && had != a.MessageID {
		p.problems = append(p.problems, fmt.Errorf("%s is %s and %s", a.ID, had, a.MessageID))
	}
	p.ids[a.ID] = a.MessageID
	delete(p.onWay, a.ID)
	for i, s := range p.todo { // near the front: answers come in order
		if s.ID == a.ID {
			p.todo = append(p.todo[:i], p.todo[i+1:]...)
			break
		}
	}
	p.poke(p.room)
	p.poke(p.tell)
}

func (p *Peer) check(err error) {
	if err != nil {
		p.mu.Lock()
		p.problems = append(p.problems, err)
		p.mu.Unlock()
		p.poke(p.tell)
	}
}

func (p *Peer) poke(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Tally is what a peer has seen so far.
type Tally struct {
	Unacked  int // sends not yet acknowledged
	Acked    int
	Received int // different client message ids
	Repeated int // receipts of one that had been received before
	Connects int
	Problems []error
}

// Tally counts.
func (p *Peer) Tally() Tally {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := Tally{Unacked: len(p.todo), Acked: len(p.ids), Received: len(p.got), Connects: p.connects, Problems: append([]error(nil), p.problems...)}
	for _, n := range p.got {
		t.Repeated += n - 1
	}
	return t
}

// Got is how often the peer received each client message id.
func (p *Peer) Got() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[string]int, len(p.got))
	for id, n := range p.got {
		all[id] = n
	}
	return all
}
