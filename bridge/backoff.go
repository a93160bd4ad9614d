package bridge

import (
	"encoding/binary"
	"io"
	"sync"
	"time"
)

// steps is the reference's backoff table, in units of the base.
var steps = [...]time.Duration{1, 2, 4, 8, 16, 30}

// ending is how a connection, or the attempt to make one, ended.
type ending int

const (
	endLost    ending = iota // it stood long enough to be trusted, then was lost: come back fast
	endFailed                // it could not be made, or died young
	endRefused               // the broker does not want it: come back slowly
)

// backoff computes the pauses between attempts. Every pause is at least base/10, so that no ending, however often repeated, makes a hot loop; all are
// jittered over their whole range, so that the clients of a restarted broker do not return in step.
type backoff struct {
	base     time.Duration
	rand     *lockedReader
	attempts int
}

func (b *backoff) next(end ending) time.Duration {
	if end == endLost {
		b.attempts = 0
		return b.between(b.base/10, b.base/4)
	}
	step := steps[min(b.attempts, len(steps)-1)] * b.base
	b.attempts++
	if end == endRefused {
		return b.between(5*b.base, max(step, 10*b.base))
	}
	return b.between(b.base/10, step)
}

// between draws uniformly from [low, high).
func (b *backoff) between(low, high time.Duration) time.Duration {
	if high <= low {
		return low
	}
	return low + time.Duration(b.rand.uint64()%uint64(high-low))
}

// lockedReader makes an injected source of randomness safe for the several goroutines of a mesh.
type lockedReader struct {
	mu sync.Mutex
	r  io.Reader
}

func (l *lockedReader) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return io.ReadFull(l.r, p)
}

// uint64 serves jitter and request names, which need no secrecy: a source that fails gives a constant, not a failure.
func (l *lockedReader) uint64() uint64 {
	var b [8]byte
	if _, err := l.Read(b[:]); err != nil {
		return 1 << 40
	}
	return binary.BigEndian.Uint64(b[:])
}
