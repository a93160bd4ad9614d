package bus

import (
	"sync"
	"time"

	"github.com/jonboulle/clockwork"
)

// burst lets the first n events of a second through and counts the rest, so that no client can fill the log by doing a wrong thing quickly.
type burst struct {
	clock clockwork.Clock
	n     int

	mu         sync.Mutex
	since      time.Time
	passed     int
	suppressed int
}

// allow reports whether to log this event, and how many were swallowed since the last one that was logged.
func (b *burst) allow() (ok bool, swallowed int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.clock.Now()
	if now.Sub(b.since) >= time.Second || now.Before(b.since) {
		b.since, b.passed = now, 0
	}
	if b.passed >= b.n {
		b.suppressed++
		return false, 0
	}
	b.passed++
	swallowed, b.suppressed = b.suppressed, 0
	return true, swallowed
}
