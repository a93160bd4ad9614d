package bridge

import (
	"context"
	"encoding/json"
	"sync"
)

// pending are the requests of one connection that wait for an answer, by id. Its size is bounded: a request over the bound waits for its turn.
type pending struct {
	turns chan struct{}
	mu    sync.Mutex
	byID  map[string]chan answer
}

type answer struct {
	frame json.RawMessage
	err   error
}

func newPending(limit int) *pending {
	return &pending{turns: make(chan struct{}, limit), byID: map[string]chan answer{}}
}

// add registers id, or reports that it is registered already.
func (p *pending) add(id string) (<-chan answer, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, taken := p.byID[id]; taken {
		return nil, false
	}
	ch := make(chan answer, 1)
	p.byID[id] = ch
	return ch, true
}

// remove forgets the request that waits on answers, and not one that came after it under the same id.
func (p *pending) remove(id string, answers <-chan answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byID[id] == answers {
		delete(p.byID, id)
	}
}

// resolve gives the answer to the request that waits under id; false when there is none. The first answer counts.
func (p *pending) resolve(id string, a answer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	ch, ok := p.byID[id]
	if !ok || id == "" {
		return false
	}
	delete(p.byID, id)
	ch <- a
	return true
}

// ask sends a request and waits for its answer. With blind it succeeds with {} once the frame was written, for requests that this broker never answers.
func (c *conn) ask(ctx context.Context, set *pending, id string, data []byte, blind bool) (json.RawMessage, error) {
	var written chan struct{}
	if blind {
		written = make(chan struct{})
	}
	answers, err := c.begin(ctx, set, id, data, written)
	if err != nil {
		return nil, err
	}
	return c.wait(ctx, set, id, answers, written)
}

// begin takes a turn, enters the request and queues its frame. After nil, wait must be called: it gives the turn back.
func (c *conn) begin(ctx context.Context, set *pending, id string, data []byte, written chan<- struct{}) (<-chan answer, error) {
	select {
	case set.turns <- struct{}{}:
	case <-c.ctx.Done():
		return nil, ErrNotOpen
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	answers, ok := set.add(id)
	if !ok {
		<-set.turns
		return nil, ErrInFlight
	}
	if err := c.queue(ctx, data, written); err != nil {
		set.remove(id, answers)
		<-set.turns
		return nil, err
	}
	return answers, nil
}

// wait returns the answer to a request that was begun.
func (c *conn) wait(ctx context.Context, set *pending, id string, answers <-chan answer, written <-chan struct{}) (json.RawMessage, error) {
	defer func() {
		set.remove(id, answers)
		<-set.turns
	}()
	select {
	case a := <-answers:
		return a.frame, a.err
	case <-written:
		return json.RawMessage("{}"), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.ctx.Done():
	}
	select {
	case a := <-answers: // it came with the last breath
		return a.frame, a.err
	default:
		return nil, ErrLost
	}
}
