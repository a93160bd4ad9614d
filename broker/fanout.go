package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// fanout turns accepted messages into mailbox references, in the order of acceptance, each exactly once.
//
// Its position is the last accepted sequence whose references are all stored. It is saved about once a second, after every thousand messages and at Close.
// Whenever it is not known what was stored beyond it (after a crash, after a failure), the end of the mail stream is read first, and what is there is not
// written again. A reference that was acknowledged and deleted in that stretch comes back once, which clients must bear anyway (at least once). The stream's
// own duplicate window would do that too, but it costs memory for every reference of an hour.
type fanout struct {
	store   *store
	clock   clockwork.Clock
	log     *slog.Logger
	group   bool          // the store syncs every write: references are written in batches, one fsync each
	at      position      // owned by run, then by save
	reached atomic.Uint64 // at.Accept, for others
	saved   position
	wake    chan struct{}
	calm    chan chan struct{}
	broken  atomic.Bool // the last attempt failed: nothing should be accepted that would only pile up

	unsure bool                   // references beyond the position may be stored
	fresh  bool                   // this is the first pass: those references were counted when the store was opened
	there  map[reference]struct{} // the ones that are
	singly bool                   // a batch has failed: until a pass succeeds, every reference goes on its own

	known   atomic.Uint64 // the highest sequence known to be accepted
	waiting sync.Mutex    // guards what follows
	done    uint64        // everything accepted up to here has been passed on
	awaited bool
	moved   chan struct{} // closed when done has grown, if awaited
}

// position is how far the fan-out came.
type position struct {
	Accept uint64 `json:"accept"` // in CM_ACCEPT: all references up to here are stored
	Mail   uint64 `json:"mail"`   // in CM_MAIL: none up to here belongs to a later message
}

// UnmarshalJSON also takes the bare accept sequence that was saved before there was a mail sequence.
func (p *position) UnmarshalJSON(data []byte) error {
	*p = position{}
	if json.Unmarshal(data, &p.Accept) == nil {
		return nil
	}
	type plain position
	return json.Unmarshal(data, (*plain)(p))
}

// reference is one message in one mailbox.
type reference struct {
	accept  uint64
	subject string
}

const (
	fanoutWindow = 128  // messages whose references may be on their way to the store
	saveEvery    = 1000 // messages after which the position is saved, or a second, whichever comes first
)

func newFanout(s *store, clock clockwork.Clock, log *slog.Logger, at position, group bool) *fanout {
	f := &fanout{store: s, clock: clock, log: log, group: group, at: at, saved: at, unsure: true, fresh: true, wake: make(chan struct{}, 1), calm: make(chan chan struct{}), moved: make(chan struct{})}
	f.reached.Store(at.Accept)
	f.note(s.accept.CachedInfo().State.LastSeq)
	return f
}

// note says that a sequence has been accepted.
func (f *fanout) note(seq uint64) {
	for {
		at := f.known.Load()
		if seq <= at || f.known.CompareAndSwap(at, seq) {
			return
		}
	}
}

// caughtUp returns when everything has been passed on that was accepted before it was called: who was told that a post is accepted finds it in the history.
func (f *fanout) caughtUp(ctx context.Context) error {
	seq := f.known.Load()
	for {
		f.waiting.Lock()
		at, moved := f.done, f.moved
		f.awaited = f.awaited || at < seq
		f.waiting.Unlock()
		if at >= seq {
			return nil
		}
		f.poke()
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("wait for the fan-out: %w", ctx.Err())
		}
	}
}

// advance wakes those who wait for it.
func (f *fanout) advance(seq uint64) {
	f.waiting.Lock()
	defer f.waiting.Unlock()
	if seq <= f.done {
		return
	}
	if f.done = seq; f.awaited {
		close(f.moved)
		f.moved, f.awaited = make(chan struct{}), false
	}
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
				f.log.Error("fan-out stopped, trying again", "after", f.at.Accept, "err", err)
			}
		} else if err == nil && f.broken.Swap(false) {
			f.log.Info("fan-out runs again", "at", f.at.Accept)
		}
		wake := f.wake
		if f.broken.Load() {
			wake = nil // every further acceptance would only repeat the failure
		}
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case passed := <-f.calm:
			close(passed)
		case <-tick.Chan():
			f.keep(ctx)
		}
	}
}

// keep saves the position; a failure costs nothing but work after a crash.
func (f *fanout) keep(ctx context.Context) {
	if err := f.save(ctx); err != nil && ctx.Err() == nil {
		f.log.Warn("fan-out position not saved", "err", err)
	}
}

// delivery is one message with the references that are to be written for it.
type delivery struct {
	seq      uint64
	subjects []string
	there    []string  // those that have theirs
	post     *nats.Msg // its place in a topic's history; nil for other messages
}

// pass does everything accepted so far. The first failure ends it; the position then stands before the message that failed.
func (f *fanout) pass(ctx context.Context) error {
	if f.unsure {
		if err := f.recall(ctx); err != nil {
			return err
		}
	}
	known := f.known.Load() // also of what has expired since
	f.unsure = true         // unless all goes well
	defer func() { f.fresh = false }()
	for {
		group, err := f.gather(ctx)
		if err == nil && len(group) > 0 {
			err = f.write(ctx, group)
		}
		if err != nil {
			f.singly = true
			return err
		}
		if len(group) == 0 {
			f.unsure, f.there, f.singly = false, nil, false
			f.advance(known)
			return nil
		}
		if f.at.Accept-f.saved.Accept >= saveEvery {
			f.keep(ctx)
		}
	}
}

// gather reads what is to be done next: as much as one batch takes. A message with more references than that is alone.
func (f *fanout) gather(ctx context.Context) (group []delivery, err error) {
	next, refs := f.at.Accept+1, 0
	for len(group) < fanoutWindow && refs < maxBatch {
		rec, seq, err := f.store.nextRecord(ctx, next)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return nil, err
		}
		d := delivery{seq: seq}
		if rec == nil {
			f.log.Error("accepted message not readable, passed over", "seq", seq)
		} else {
			if refs+len(rec.To) > maxBatch && refs > 0 {
				break
			}
			d = f.deliver(rec, seq)
			if rec.TopicID != "" {
				if d.post, err = historyMsg(rec); err != nil {
					return nil, err
				}
			}
		}
		group, next, refs = append(group, d), seq+1, refs+len(d.subjects)
	}
	return group, nil
}

// deliver lists the references that a message still lacks.
func (f *fanout) deliver(rec *accepted, seq uint64) delivery {
	d := delivery{seq: seq}
	for _, key := range rec.To {
		subject := mailSubject(rec.Mesh, key)
		if _, is := f.there[reference{seq, subject}]; is {
			d.there = append(d.there, subject)
		} else {
			d.subjects = append(d.subjects, subject)
		}
	}
	return d
}

// passed moves the position over a message whose references are all stored, the last of them at mail.
func (f *fanout) passed(d delivery, mail uint64) {
	for _, subject := range d.subjects {
		f.store.depth.add(subject, 1)
	}
	if !f.fresh {
		for _, subject := range d.there {
			f.store.depth.add(subject, 1)
		}
	}
	f.at = position{Accept: d.seq, Mail: max(f.at.Mail, mail)}
	f.reached.Store(d.seq)
	f.advance(d.seq)
}

// barrier returns when no reference is on its way to the store: what was removed from CM_ACCEPT before gets none any more.
func (f *fanout) barrier(ctx context.Context) error {
	passed := make(chan struct{})
	select {
	case f.calm <- passed:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-passed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write stores the references of a group and moves the position over it.
func (f *fanout) write(ctx context.Context, group []delivery) error {
	var msgs []*nats.Msg
	var ends []int // of each delivery, in msgs
	for _, d := range group {
		data, err := json.Marshal(mail{Accept: d.seq})
		if err != nil {
			return fmt.Errorf("encode reference: %w", err)
		}
		for _, subject := range d.subjects {
			msgs = append(msgs, &nats.Msg{Subject: subject, Data: data})
		}
		ends = append(ends, len(msgs))
	}
	ctx, cancel := context.WithTimeout(ctx, storeDeadline)
	defer cancel()
	if err := f.keepPosts(ctx, group); err != nil {
		return err
	}
	if f.group && !f.singly && len(msgs) > fewAlone {
		var last uint64
		for chunk := range slices.Chunk(msgs, maxBatch) {
			first, err := f.store.publishAll(ctx, chunk)
			if err != nil {
				return fmt.Errorf("write references: %w", err)
			}
			last = first + uint64(len(chunk)) - 1
		}
		for _, d := range group {
			f.passed(d, last)
		}
		return nil
	}
	futures := make([]jetstream.PubAckFuture, len(msgs))
	for i, m := range msgs {
		var err error
		if futures[i], err = f.store.js.PublishMsgAsync(m, jetstream.WithStallWait(storeDeadline)); err != nil {
			return fmt.Errorf("write reference: %w", err)
		}
	}
	from := 0
	for i, d := range group {
		last := f.at.Mail
		for _, future := range futures[from:ends[i]] {
			ack, err := await(ctx, future)
			if err != nil {
				return fmt.Errorf("write reference: %w", err)
			}
			last = max(last, ack.Sequence)
		}
		f.passed(d, last)
		from = ends[i]
	}
	return nil
}

// keepPosts writes the posts of a group into their topics' histories. It comes before the references: who hears of a post finds it there. What is done again
// after a crash is there twice then, which the reader passes over (order.add).
func (f *fanout) keepPosts(ctx context.Context, group []delivery) error {
	var msgs []*nats.Msg
	for _, d := range group {
		if d.post != nil {
			msgs = append(msgs, d.post)
		}
	}
	if f.group && !f.singly && len(msgs) > fewAlone {
		if _, err := f.store.publishAll(ctx, msgs); err != nil {
			return fmt.Errorf("write history: %w", err)
		}
		return nil
	}
	futures := make([]jetstream.PubAckFuture, len(msgs))
	for i, m := range msgs {
		var err error
		if futures[i], err = f.store.js.PublishMsgAsync(m, jetstream.WithStallWait(storeDeadline)); err != nil {
			return fmt.Errorf("write history: %w", err)
		}
	}
	for _, future := range futures {
		if _, err := await(ctx, future); err != nil {
			return fmt.Errorf("write history: %w", err)
		}
	}
	return nil
}

// recall finds the references beyond the position that are stored: those at the end of the mail stream.
func (f *fanout) recall(ctx context.Context) error {
	f.there = map[reference]struct{}{}
	info, err := f.store.accept.Info(ctx)
	if err != nil {
		return fmt.Errorf("read end of messages: %w", err)
	}
	if info.State.LastSeq <= f.at.Accept {
		return nil
	}
	if info, err = f.store.mail.Info(ctx); err != nil {
		return fmt.Errorf("read end of mail: %w", err)
	}
	next := f.at.Mail + 1
	if info.State.LastSeq < f.at.Mail { // another stream than the position is of
		next = 1
	}
	for {
		msg, err := f.store.mail.GetMsg(ctx, next, jetstream.WithGetMsgSubject("mbx.>"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read mail after %d: %w", next, err)
		}
		var m mail
		if json.Unmarshal(msg.Data, &m) == nil && m.Accept > f.at.Accept {
			f.there[reference{m.Accept, msg.Subject}] = struct{}{}
		}
		next = msg.Sequence + 1
	}
}

// save stores the position if it has moved.
func (f *fanout) save(ctx context.Context) error {
	at := f.at
	if at == f.saved {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeDeadline)
	defer cancel()
	if err := f.store.put(ctx, cursorKey, at); err != nil {
		return err
	}
	f.saved = at
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
