package bridge

import (
	"context"
	"errors"
	"sync"

	"claudemesh/wire"
)

// Pending is a message on its way: Begin put it on the socket's queue, Wait learns the broker's answer.
type Pending struct {
	c       *conn
	id      string
	answers <-chan answer
	settled sync.Once
}

// ErrBehind: nothing was sent, because messages that were begun before it, on a connection that is gone, are not settled yet. It would overtake those that
// are begun again.
var ErrBehind = errors.New("messages of an earlier connection are not settled yet")

// Begin queues one message for the socket and returns without waiting for the answer. Messages begun one after the other reach the broker in that order,
// which concurrent Sends do not promise. It blocks while too many are unanswered. Every Pending must be waited for, and settled once the caller knows what it
// does with the outcome. Errors: those of Send, except ErrLost, and ErrBehind.
func (l *Link) Begin(ctx context.Context, s wire.Send) (*Pending, error) {
	return l.begin(ctx, s, &l.open)
}

// begin is Begin when order is kept in u, and in no order when u is nil.
func (l *Link) begin(ctx context.Context, s wire.Send, u *unsettled) (*Pending, error) {
	if s.ID == "" {
		return nil, ErrNoID
	}
	s.Type = wire.TypeSend
	if err := s.Validate(); err != nil {
		return nil, err
	}
	data, err := wire.Encode(s)
	if err != nil {
		return nil, err
	}
	c := l.current.Load()
	if c == nil {
		return nil, ErrNotOpen
	}
	if u != nil && !u.add(c) {
		return nil, ErrBehind
	}
	p := &Pending{c: c, id: s.ID}
	if p.answers, err = c.begin(ctx, c.sends, s.ID, data, nil); err != nil {
		if u != nil {
			u.done(c)
		}
		return nil, err
	}
	return p, nil
}

// Settle says that the outcome is dealt with: what is begun from now on may pass this message.
func (p *Pending) Settle() { p.settled.Do(func() { p.c.link.open.done(p.c) }) }

// unsettled counts the messages of each connection that were begun and are not settled.
type unsettled struct {
	mu sync.Mutex
	of map[*conn]int
}

// add counts one more of c; false when there are some of another connection.
func (u *unsettled) add(c *conn) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.of == nil {
		u.of = map[*conn]int{}
	}
	if _, mine := u.of[c]; len(u.of) > 1 || len(u.of) == 1 && !mine {
		return false
	}
	u.of[c]++
	return true
}

func (u *unsettled) done(c *conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.of[c]--; u.of[c] <= 0 {
		delete(u.of, c)
	}
}

// Wait returns the broker's ack. Errors: ErrLost and ctx's (outcome unknown), *BrokerError, wire.ErrMalformed.
func (p *Pending) Wait(ctx context.Context) (wire.Ack, error) {
	frame, err := p.c.wait(ctx, p.c.sends, p.id, p.answers, nil)
	if err != nil {
		return wire.Ack{}, err
	}
	var ack wire.Ack
	if err := wire.Decode(frame, &ack); err != nil {
		return wire.Ack{}, err
	}
	return ack, nil
}
