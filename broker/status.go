package broker

import (
	"context"
	"time"

	"claudemesh/wire"
)

// What a peer is doing, and what that holds back. A connection that is working or wants no disturbance is pushed only messages of the priority "now"; what
// else lies in its mailboxes keeps its place, and comes in order once the status is idle (see box.reached).

// statusSource is who said so, by rank. There is no guessing from transcripts on the broker's own disk: it is not where the sessions run.
type statusSource int

const (
	byDefault statusSource = iota + 1 // nobody yet, or taken back because nobody repeated it
	byHand
	byHook
)

func (s statusSource) String() string { return [...]string{"", "jsonl", "manual", "hook"}[s] }

const (
	sweepEvery  = 15 * time.Second
	workingLife = 60 * time.Second // of "working" that nobody repeats
	freshStatus = 30 * time.Second // a lower source leaves the source of a status this fresh alone
)

// presence is what a connection says of itself and may change. Guarded by Broker.mu.
type presence struct {
	status   string
	statusBy statusSource
	statusAt time.Time
	summary  *string
	visible  bool
	stats    *wire.Stats
	profile  *wire.PeerProfile
}

// become sets the status. Called under the lock; afterwards c.drain must be called without it.
func (c *conn) become(status string, by statusSource, now time.Time) {
	if c.status != status || by >= c.statusBy || now.Sub(c.statusAt) > freshStatus {
		c.statusBy = by
	}
	c.status, c.statusAt = status, now
	c.busy.Store(status != wire.StatusIdle)
}

// gated reports whether only urgent messages may be pushed now.
func (c *conn) gated() bool { return c.busy.Load() && !c.ownGating }

// drain makes the pump look again: what was held may go out now.
func (c *conn) drain() {
	if p := c.draining.Load(); p != nil { // nil: it has not begun yet, and will look by itself
		p.kick()
	}
}

// sweepStatus takes back what nobody has repeated: a session that crashed while it was working must not be held back for ever. It ends with ctx.
func (b *Broker) sweepStatus(ctx context.Context) {
	tick := b.clock.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.Chan():
		}
		for _, c := range b.expireStatus() {
			c.drain()
		}
	}
}

func (b *Broker) expireStatus() (changed []*conn) {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.meshes {
		for c := range m.conns {
			if c.status == wire.StatusWorking && now.Sub(c.statusAt) > workingLife {
				c.become(wire.StatusIdle, byDefault, now)
				changed = append(changed, c)
			}
		}
	}
	return changed
}
