//go:build unix

package fake

import "sync"

// What an item of the queue is, and so how the model is told.
const (
	kindTyped   = "typed"   // by the user
	kindWake    = "wake"    // the last words of an asyncRewake hook
	kindChannel = "channel" // a channel message
	kindInbox   = "inbox"   // a line on the session's inbox socket
	kindControl = "control" // of the test: !notify, !exit, or the end
)

// item is something that happened to the session.
type item struct {
	kind string
	text string // to be given to the model, without the words around it
	from string // the hook or the server
}

// queue keeps what has happened until the session has time for it.
type queue struct {
	mu    sync.Mutex
	items []item
	ready chan struct{}
}

func newQueue() *queue { return &queue{ready: make(chan struct{}, 1)} }

func (q *queue) push(it item) {
	q.mu.Lock()
	q.items = append(q.items, it)
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// next is the oldest item; it waits for one.
func (q *queue) next() item {
	for {
		q.mu.Lock()
		if len(q.items) > 0 {
			it := q.items[0]
			q.items = q.items[1:]
			q.mu.Unlock()
			return it
		}
		q.mu.Unlock()
		<-q.ready
	}
}

// midTurn takes what may be told to the model while it works: all but what the user typed.
func (q *queue) midTurn() []item {
	q.mu.Lock()
	defer q.mu.Unlock()
	var told, kept []item
	for _, it := range q.items {
		switch it.kind {
		case kindWake, kindChannel, kindInbox:
			told = append(told, it)
		default:
			kept = append(kept, it)
		}
	}
	q.items = kept
	return told
}
