package broker

import (
	"context"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// committer writes accepted messages to a store that syncs every write. What arrives while one group is on its way to the disk waits and makes the next
// one, which costs one fsync: the slower the disk, the larger the groups. The order is that of arrival. Without it a store makes one fsync per message.
type committer struct {
	store *store
	jobs  chan *commit
	ended chan struct{}

	mu     sync.RWMutex
	closed bool
}

// commit is one message to be stored.
type commit struct {
	msg  *nats.Msg
	done chan struct{}
	seq  uint64 // valid after done
	err  error  // valid after done
}

const (
	commitQueue = 4096
	commitBytes = 4 << 20 // of one group, so that a group of long messages does not keep the others waiting
)

func newCommitter(s *store) *committer {
	return &committer{store: s, jobs: make(chan *commit, commitQueue), ended: make(chan struct{})}
}

// add queues a message that is to be stored if its subject is unused. It blocks while thousands are waiting; run always makes progress. The error is
// ErrClosed.
func (k *committer) add(msg *nats.Msg) (*commit, error) {
	msg.Header = nats.Header{jetstream.ExpectedLastSubjSeqHeader: {"0"}}
	c := &commit{msg: msg, done: make(chan struct{})}
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return nil, ErrClosed
	}
	k.jobs <- c
	return c, nil
}

// close returns when everything queued is done.
func (k *committer) close() {
	k.mu.Lock()
	if !k.closed {
		k.closed = true
		close(k.jobs)
	}
	k.mu.Unlock()
	<-k.ended
}

func (k *committer) run() {
	defer close(k.ended)
	var next *commit // taken from the queue, but not of this group
	for {
		first := next
		if next = nil; first == nil {
			var ok bool
			if first, ok = <-k.jobs; !ok {
				return
			}
		}
		var group []*commit
		group, next = k.gather(first)
		k.write(group)
	}
}

// gather makes a group of what is waiting. One that would be the second of its subject has to wait for the answer to the first; it is next.
func (k *committer) gather(first *commit) (group []*commit, next *commit) {
	group = []*commit{first}
	subjects := map[string]struct{}{first.msg.Subject: {}}
	for size := len(first.msg.Data); len(group) < maxBatch && size < commitBytes; {
		var c *commit
		select {
		case c = <-k.jobs:
		default:
		}
		if c == nil { // nothing is waiting, or the queue is closed
			return group, nil
		}
		if _, twice := subjects[c.msg.Subject]; twice {
			return group, c
		}
		subjects[c.msg.Subject] = struct{}{}
		group, size = append(group, c), size+len(c.msg.Data)
	}
	return group, nil
}

func (k *committer) write(group []*commit) {
	ctx, cancel := context.WithTimeout(context.Background(), storeDeadline)
	defer cancel()
	if len(group) > fewAlone {
		msgs := make([]*nats.Msg, len(group))
		for i, c := range group {
			msgs[i] = c.msg
		}
		first, err := k.store.publishAll(ctx, msgs)
		if err == nil || !notStored(err) {
			for i, c := range group {
				c.end(first+uint64(i), err)
			}
			return
		}
		withoutBatch(msgs) // one of them is a repetition, or there is no room for all
	}
	var answers sync.WaitGroup
	for _, c := range group {
		future, err := k.store.js.PublishMsgAsync(c.msg, jetstream.WithStallWait(storeDeadline))
		if err != nil {
			c.end(0, err)
			continue
		}
		answers.Go(func() {
			ack, err := await(ctx, future)
			if err != nil {
				c.end(0, err)
				return
			}
			c.end(ack.Sequence, nil)
		})
	}
	answers.Wait()
}

func (c *commit) end(seq uint64, err error) {
	c.seq, c.err = seq, err
	close(c.done)
}

func (c *commit) wait(ctx context.Context) (uint64, error) {
	select {
	case <-c.done:
		return c.seq, c.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// promise is a write on its way to the store. It ends by itself: every write has its deadline.
type promise interface {
	// wait returns the sequence under which the message is stored.
	wait(ctx context.Context) (seq uint64, err error)
}

// published is the promise of a store that does not sync every write, where nothing is gained by waiting for others.
type published struct{ future jetstream.PubAckFuture }

func (p published) wait(ctx context.Context) (uint64, error) {
	ack, err := await(ctx, p.future)
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

// keep starts the write of a message that is to be stored if its subject is unused.
func (b *Broker) keep(msg *nats.Msg) (promise, error) {
	if b.committer != nil {
		c, err := b.committer.add(msg)
		if err != nil {
			return nil, fmt.Errorf("write message: %w", err)
		}
		return c, nil
	}
	future, err := b.store.js.PublishMsgAsync(msg, jetstream.WithExpectLastSequencePerSubject(0), jetstream.WithStallWait(storeDeadline))
	if err != nil {
		return nil, fmt.Errorf("write message: %w", err)
	}
	return published{future}, nil
}
