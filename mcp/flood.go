package mcp

import (
	"context"
	"sync"
	"time"

	"github.com/jonboulle/clockwork"

	"claudemesh/bus"
)

// What one peer may pour into a conversation: floodMost messages in any floodWindow. Of the others the model is told how many there are, once, when the window
// has passed. Urgent messages pass always.
const (
	floodMost   = 5
	floodWindow = 10 * time.Second
)

// flood decides which messages are shown and which are counted. It is told of each message in the order in which they come.
type flood struct {
	clock clockwork.Clock
	more  chan struct{} // something is counted that was not

	mu    sync.Mutex
	own   string // the member whose session this is
	peers map[string]*pour
}

// pour is what came from one peer lately.
type pour struct {
	shown []time.Time // not longer ago than floodWindow
	held  int
	last  bus.InboxItem // of those held
	due   time.Time     // when they are told of
}

func newFlood(clock clockwork.Clock) *flood {
	return &flood{clock: clock, more: make(chan struct{}, 1), peers: map[string]*pour{}}
}

// admit reports whether a message is to be shown. One that is not has been counted.
func (f *flood) admit(item bus.InboxItem) bool {
	if item.Priority == "now" {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.clock.Now()
	for key, p := range f.peers {
		if p.forget(now); p.held == 0 && len(p.shown) == 0 {
			delete(f.peers, key)
		}
	}
	key := f.peerOf(item)
	p := f.peers[key]
	if p == nil {
		p = &pour{}
		f.peers[key] = p
	}
	if p.held == 0 && len(p.shown) < floodMost {
		p.shown = append(p.shown, now)
		return true
	}
	if p.held == 0 {
		p.due = p.shown[0].Add(floodWindow)
	}
	// What comes while others are held is held, too, or it would overtake them.
	p.held++
	p.last = item
	select {
	case f.more <- struct{}{}:
	default:
	}
	return false
}

func (p *pour) forget(now time.Time) {
	for len(p.shown) > 0 && now.Sub(p.shown[0]) >= floodWindow {
		p.shown = p.shown[1:]
	}
}

// peerOf is who poured: a member with all of its sessions, so that one gains nothing by starting more of them. The sessions of one's own member are peers one by
// one: a user with many of them has them talk. mu is held.
func (f *flood) peerOf(item bus.InboxItem) string {
	switch {
	case item.FromMemberKey != "" && (item.FromMemberKey != f.own || item.FromKey == ""):
		return item.FromMemberKey
	case item.FromKey != "":
		return item.FromKey
	}
	return item.FromName
}

// isOf says whose session this is.
func (f *flood) isOf(member string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.own = member
}

// run tells of what was counted, when it is due, until ctx ends or tell fails.
func (f *flood) run(ctx context.Context, tell func(context.Context, bus.InboxItem, int) error) error {
	for {
		wait := f.next()
		var due <-chan time.Time
		if wait >= 0 {
			due = f.clock.After(wait)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-f.more:
			continue
		case <-due:
		}
		for _, p := range f.take() {
			if err := tell(ctx, p.last, p.held); err != nil {
				return err
			}
		}
	}
}

// next is how long it is until something is due; negative: nothing is held.
func (f *flood) next() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	wait := time.Duration(-1)
	for _, p := range f.peers {
		if left := max(0, p.due.Sub(f.clock.Now())); p.held > 0 && (wait < 0 || left < wait) {
			wait = left
		}
	}
	return wait
}

// take removes what is due. Telling of it counts as one message shown.
func (f *flood) take() (all []pour) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.clock.Now()
	for _, p := range f.peers {
		if p.held > 0 && !now.Before(p.due) {
			all = append(all, *p)
			p.forget(now)
			p.held, p.last, p.shown = 0, bus.InboxItem{}, append(p.shown, now)
		}
	}
	return all
}
