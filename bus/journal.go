package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/nats-io/nats.go"
)

// journalPending bounds the publications of a Journal that wait for the connection.
const journalPending = 8192

// Journal publishes messages, events and receipts without ever making its caller wait: subscribers hear them at once, and the streams keep them. What
// does not fit is dropped and counted; the log tells once per burst.
type Journal struct {
	nc    *nats.Conn
	log   *slog.Logger
	quiet *burst
	queue chan nats.Msg
	quit  chan struct{}
	done  chan struct{}

	mu      sync.Mutex
	closed  bool
	dropped uint64
}

// NewJournal starts a journal on nc, a connection of [Server.BusConn]. Close ends it.
func NewJournal(nc *nats.Conn, log *slog.Logger) *Journal { return newJournal(nc, log, journalPending) }

func newJournal(nc *nats.Conn, log *slog.Logger, pending int) *Journal {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	j := &Journal{
		nc: nc, log: log, quiet: &burst{clock: clockwork.NewRealClock(), n: 1},
		queue: make(chan nats.Msg, pending), quit: make(chan struct{}), done: make(chan struct{}),
	}
	go j.run()
	return j
}

// Publish sends payload as JSON on subject and reports whether it was taken. It keeps the order of calls and never blocks.
func (j *Journal) Publish(subject string, payload any) bool {
	data, err := json.Marshal(payload)
	if err != nil {
		j.drop(fmt.Errorf("encode %s: %w", subject, err))
		return false
	}
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		j.drop(nats.ErrConnectionClosed)
		return false
	}
	select {
	case j.queue <- nats.Msg{Subject: subject, Data: data}:
		j.mu.Unlock()
		return true
	default:
	}
	j.mu.Unlock()
	j.drop(fmt.Errorf("%d publications wait already", cap(j.queue)))
	return false
}

// Dropped is how many publications were lost since the start.
func (j *Journal) Dropped() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.dropped
}

// Close publishes what waits, at most until ctx ends, and stops.
func (j *Journal) Close(ctx context.Context) error {
	j.mu.Lock()
	if !j.closed {
		j.closed = true
		close(j.queue)
	}
	j.mu.Unlock()
	select {
	case <-j.done:
		return nil
	case <-ctx.Done():
	}
	j.mu.Lock()
	select {
	case <-j.quit:
	default:
		close(j.quit)
	}
	j.mu.Unlock()
	return fmt.Errorf("close journal: %w", ctx.Err())
}

func (j *Journal) run() {
	defer close(j.done)
	for m := range j.queue {
		select {
		case <-j.quit:
			j.drop(context.Canceled)
			continue
		default:
		}
		if err := j.nc.PublishMsg(&m); err != nil {
			j.drop(err)
		}
	}
	_ = j.nc.FlushTimeout(time.Second) // on a closed connection there is nothing left to flush
}

func (j *Journal) drop(err error) {
	j.mu.Lock()
	j.dropped++
	total := j.dropped
	j.mu.Unlock()
	if ok, swallowed := j.quiet.allow(); ok {
		j.log.Warn("publication dropped", "err", err, "swallowed", swallowed, "total", total)
	}
}
