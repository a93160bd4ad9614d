package bridge

import (
	"context"

	"claudemesh/wire"
)

// Pending is a message on its way: Begin put it on the socket's queue, Wait learns the broker's answer.
type Pending struct {
	c       *conn
	id      string
	answers <-chan answer
}

// Begin queues one message for the socket and returns without waiting for the answer. Messages begun one after the other reach the broker in that order,
// which concurrent Sends do not promise. It blocks while too many are unanswered. Every Pending must be waited for. Errors: those of Send, except ErrLost.
func (l *Link) Begin(ctx context.Context, s wire.Send) (*Pending, error) {
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
	answers, err := c.begin(ctx, c.sends, s.ID, data, nil)
	if err != nil {
		return nil, err
	}
	return &Pending{c: c, id: s.ID, answers: answers}, nil
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
