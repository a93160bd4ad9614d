package broker

import (
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"
)

// box is one mailbox being read. Live copies arrive from live; a bounded number waits here, and when there are more, or some were missed, gap sends
// the pump to the stream.
type box struct {
	subject, key string

	// Of the pump's goroutine. Everything up to cursor has been dealt with; of what lies between cursor and ahead, the urgent messages have, and the others
	// are held. So a held message keeps its place, and nothing about it has to be remembered.
	cursor, ahead uint64

	mu    sync.Mutex
	queue []copied
	gap   bool
}

// copied is a republished entry: its sequence, and that of the entry before it in the same mailbox.
type copied struct {
	seq, last uint64
	data      []byte
}

// copy takes one live copy. It never blocks: the subscription's goroutine is the client library's.
func (p *pump) copy(b *box, m *nats.Msg) {
	seq, err1 := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
	last, err2 := strconv.ParseUint(m.Header.Get("Nats-Last-Sequence"), 10, 64)
	b.mu.Lock()
	if err1 != nil || err2 != nil || len(b.queue) >= liveCopies {
		b.gap = true
	} else {
		b.queue = append(b.queue, copied{seq, last, m.Data})
	}
	b.mu.Unlock()
	p.kick()
}

// missed says that copies may have been lost.
func (b *box) missed() {
	b.mu.Lock()
	b.gap = true
	b.mu.Unlock()
}

func (b *box) take() (queue []copied, gap bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	queue, gap, b.queue, b.gap = b.queue, b.gap, nil, false
	return queue, gap
}

// behind reports whether something may be held that could go out now.
func (b *box) behind(gated bool) bool { return !gated && b.cursor < b.ahead }

// at is the last entry after which reading goes on.
func (b *box) at(gated bool) uint64 {
	if gated {
		return b.ahead
	}
	return b.cursor
}

// reached notes that an entry has been dealt with, or, when it is to be held, seen.
func (b *box) reached(seq uint64, gated, hold bool) {
	if !gated || !hold && b.cursor == b.ahead {
		b.cursor = seq
	}
	b.ahead = max(b.ahead, seq)
}
