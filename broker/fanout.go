package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// fanout turns accepted messages into mailbox references, in the order of acceptance, each exactly as often as the store's duplicate window allows: a
// reference carries an id made of message and mailbox, so doing the same stretch again adds nothing.
//
// Its cursor is the last accepted sequence whose references are all stored. It is saved about once a second and at Close; after a crash the stretch since
// then is done again. A reference that was acknowledged and deleted in that stretch comes back once, which clients must bear anyway (at least once).
type fanout struct {
	store   *store
	clock   clockwork.Clock
	log     *slog.Logger
	cursor  uint64        // owned by run, then by save
	reached atomic.Uint64 // cursor, for others
	saved   uint64
	wake    chan struct{}
	broken  atomic.Bool // the last attempt failed: nothing should be accepted that would only pile up
}

const fanoutWindow = 128 // messages whose references may be on their way to the store

func newFanout(s *store, clock clockwork.Clock, log *slog.Logger, cursor uint64) *fanout {
	f := &fanout{store: s, clock: clock, log: log, cursor: cursor, saved: cursor, wake: make(chan struct{}, 1)}
	f.reached.Store(cursor)
	return f
}

// poke says that something was accepted.
func (f *fanout) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *fanout) run(ctx context.Context) {
	tick := f.clock.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if err := f.pass(ctx); err != nil && ctx.Err() == nil {
			if !f.broken.Swap(true) {
				f.log.Error("fan-out stopped, trying again", "after", f.cursor, "err", err)
			}
		} else if err == nil && f.broken.Swap(false) {
			f.log.Info("fan-out runs again", "at", f.cursor)
		}
		wake := f.wake
		if f.broken.Load() {
			wake = nil // every further acceptance would only repeat the failure
		}
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-tick.Chan():
			if err := f.save(ctx); err != nil && ctx.Err() == nil {
				f.log.Warn("fan-out position not saved", "err", err)
			}
		}
	}
}

// batch is one message's references on their way.
type batch struct {
	seq      uint64
	subjects []string
	futures  []jetstream.PubAckFuture
}

// pass does everything accepted so far. The first failure ends it; the cursor then stands before the message that failed.
func (f *fanout) pass(ctx context.Context) error {
	var way []batch
	next := f.cursor + 1
	for {
		rec, seq, err := f.store.nextRecord(ctx, next)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return err
		}
		b := batch{seq: seq}
		if rec == nil {
			f.log.Error("accepted message not readable, passed over", "seq", seq)
		} else if b, err = f.publish(rec, seq); err != nil {
			return err
		}
		way, next = append(way, b), seq+1
		if len(way) >= fanoutWindow {
			if err := f.settle(ctx, way[0]); err != nil {
				return err
			}
			way = way[1:]
		}
	}
	for _, b := range way {
		if err := f.settle(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

func (f *fanout) publish(rec *accepted, seq uint64) (batch, error) {
	b := batch{seq: seq}
	data, err := json.Marshal(mail{Accept: seq})
	if err != nil {
		return b, fmt.Errorf("encode reference: %w", err)
	}
	for _, key := range rec.To {
		subject := mailSubject(rec.Mesh, key)
		msg := &nats.Msg{Subject: subject, Data: data}
		future, err := f.store.js.PublishMsgAsync(msg, jetstream.WithMsgID(strconv.FormatUint(seq, 10)+key), jetstream.WithStallWait(storeDeadline))
		if err != nil {
			return b, fmt.Errorf("write reference: %w", err)
		}
		b.subjects, b.futures = append(b.subjects, subject), append(b.futures, future)
	}
	return b, nil
}

func (f *fanout) settle(ctx context.Context, b batch) error {
	for i, future := range b.futures {
		ack, err := await(ctx, future)
		if err != nil {
			return fmt.Errorf("write reference: %w", err)
		}
		if !ack.Duplicate {
			f.store.depth.add(b.subjects[i], 1)
		}
	}
	f.cursor = b.seq
	f.reached.Store(b.seq)
	return nil
}

// save stores the cursor if it has moved.
func (f *fanout) save(ctx context.Context) error {
	if f.cursor == f.saved {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeDeadline)
	defer cancel()
	if err := f.store.put(ctx, cursorKey, f.cursor); err != nil {
		return err
	}
	f.saved = f.cursor
	return nil
}

// await waits for an asynchronous publish. The client's own timeout ends every future, so a dead store cannot hold it.
func await(ctx context.Context, future jetstream.PubAckFuture) (*jetstream.PubAck, error) {
	select {
	case ack := <-future.Ok():
		return ack, nil
	case err := <-future.Err():
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
