package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"claudemesh/wire"
)

// timers sends scheduled messages when they are due: one loop over what is in memory, which is what lies in the bucket. Being due is a fact of the record
// and not of a timer, so neither a restart nor a clock that jumps loses or doubles anything: a message is posted under an id made of the record and the due
// time, which the store takes once, and only then is the record moved on or deleted.
type timers struct {
	b    *Broker
	log  *slog.Logger
	wake chan struct{}

	mu    sync.Mutex
	all   map[string]*timer // by record key
	order uint64            // of the newest record
}

// timer is one scheduled message. Its mutex is held while it is sent, and while it is cancelled: of the two one comes first.
type timer struct {
	key, mesh, id, member string
	order                 uint64

	mu   sync.Mutex
	rec  scheduleRecord
	gone bool

	next int64 // guarded by timers.mu: when to look at it again, Unix milliseconds
}

const (
	// lookAgain bounds a sleep: the clock of a machine that was suspended jumps, and no timer tells.
	lookAgain = 30 * time.Second
	// retryAfter is the pause after a message could not be stored, or its mailbox was full.
	retryAfter = 30 * time.Second
	// lateAfter is when a message counts as late.
	lateAfter = time.Minute
	// maxMissed bounds the count of the times that a cron missed.
	maxMissed = 1000
)

func newTimers(ctx context.Context, b *Broker) (*timers, error) {
	t := &timers{b: b, log: b.log, wake: make(chan struct{}, 1), all: map[string]*timer{}}
	records, err := listRecords[scheduleRecord](ctx, b.store, scheduleFamily)
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		parts := strings.Split(r.Key, ".")
		if len(parts) != 3 {
			return nil, fmt.Errorf("read schedules: bad key %q", r.Key)
		}
		t.all[r.Key], t.order = newTimer(parts[1], r.Value), max(t.order, r.Value.Order)
	}
	return t, nil
}

func newTimer(meshID string, rec scheduleRecord) *timer {
	return &timer{key: scheduleKey(meshID, rec.ID), mesh: meshID, id: rec.ID, member: rec.MemberID, order: rec.Order, rec: rec, next: rec.Due}
}

func (t *timers) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// run sends what is due until ctx ends.
func (t *timers) run(ctx context.Context) {
	for ctx.Err() == nil {
		due, next := t.due(t.b.now())
		for _, one := range due {
			if ctx.Err() == nil {
				t.fire(ctx, one)
			}
		}
		if len(due) == 0 {
			t.b.sleep(ctx, next, t.wake)
		}
	}
}

// never is a time that does not come.
const never = math.MaxInt64

// sleep waits for ctx, for wake, or until then (Unix milliseconds), but no longer than lookAgain.
func (b *Broker) sleep(ctx context.Context, then int64, wake <-chan struct{}) {
	var over <-chan time.Time
	if then != never {
		now := b.now()
		timer := b.clock.NewTimer(min(unixMilli(then).Sub(now), lookAgain))
		defer timer.Stop()
		if over = timer.Chan(); b.now().UnixMilli() >= then || b.now().Sub(now) > time.Second {
			return // the clock has been moved before the timer stood
		}
	}
	select {
	case <-ctx.Done():
	case <-wake:
	case <-over:
	}
}

// due lists what is to be sent now, in the order of the times, and when the next is.
func (t *timers) due(now time.Time) (due []*timer, next int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next = never
	for _, one := range t.all {
		if one.next <= now.UnixMilli() {
			due = append(due, one)
		} else {
			next = min(next, one.next)
		}
	}
	slices.SortFunc(due, func(a, b *timer) int {
		return cmp.Or(cmp.Compare(a.next, b.next), cmp.Compare(a.order, b.order))
	})
	return due, next
}

// again says when a timer is looked at next.
func (t *timers) again(one *timer, at int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one.next = at
}

func (t *timers) forget(one *timer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.all, one.key)
}

// forgetMesh ends the timers of a deleted mesh, after what they were just doing. Their records are purged with it.
func (t *timers) forgetMesh(meshID string) {
	t.mu.Lock()
	var gone []*timer
	for key, one := range t.all {
		if one.mesh == meshID {
			gone = append(gone, one)
			delete(t.all, key)
		}
	}
	t.mu.Unlock()
	for _, one := range gone {
		one.mu.Lock()
		one.gone = true
		one.mu.Unlock()
	}
}

// add stores a new record.
func (t *timers) add(meshID string, rec scheduleRecord) *refusal {
	t.mu.Lock()
	own, inMesh := 0, 0
	for _, o := range t.all {
		if o.mesh == meshID {
			inMesh++
			if o.member == rec.MemberID {
				own++
			}
		}
	}
	if own >= t.b.lim.SchedulesPerMember || inMesh >= t.b.lim.SchedulesPerMesh {
		t.mu.Unlock()
		return refused(wire.CodeLimit, fmt.Sprintf("limit reached: %d scheduled messages of one member, %d of a mesh", t.b.lim.SchedulesPerMember, t.b.lim.SchedulesPerMesh))
	}
	t.order++
	rec.Order = t.order
	one := newTimer(meshID, rec)
	one.mu.Lock() // not sent before it is stored
	defer one.mu.Unlock()
	t.all[one.key] = one
	t.mu.Unlock()
	ctx, cancel := t.b.deadline()
	defer cancel()
	err := t.b.store.createRecord(ctx, one.key, rec)
	if err == nil {
		return nil
	}
	// Whether it is there is not known; nobody was told that it is, and it must not be sent.
	one.gone = true
	t.forget(one)
	t.log.Error("schedule not stored", "err", errors.Join(err, t.b.store.deleteRecord(ctx, one.key)))
	return refused(wire.CodeUnavailable, "the store does not answer; nothing was scheduled")
}

// list returns a member's records, oldest first.
func (t *timers) list(meshID, memberID string) (recs []scheduleRecord) {
	t.mu.Lock()
	var own []*timer
	for _, one := range t.all {
		if one.mesh == meshID && one.member == memberID {
			own = append(own, one)
		}
	}
	t.mu.Unlock()
	for _, one := range own {
		one.mu.Lock()
		if !one.gone {
			recs = append(recs, one.rec)
		}
		one.mu.Unlock()
	}
	slices.SortFunc(recs, func(a, b scheduleRecord) int { return cmp.Compare(a.Order, b.Order) })
	return recs
}

func (t *timers) find(meshID, id string) *timer {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all[scheduleKey(meshID, id)]
}

// owner is the member id behind a record.
func (t *timers) owner(meshID, id string) (memberID string, known bool) {
	one := t.find(meshID, id)
	if one == nil {
		return "", false
	}
	return one.member, true
}

// cancel deletes a record; false when there is none, or it has just been sent.
func (t *timers) cancel(meshID, id string) (bool, error) {
	one := t.find(meshID, id)
	if one == nil {
		return false, nil
	}
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.gone {
		return false, nil
	}
	ctx, cancel := t.b.deadline()
	defer cancel()
	if err := t.b.store.deleteRecord(ctx, one.key); err != nil {
		return false, err
	}
	one.gone = true
	t.forget(one)
	return true, nil
}

// fire sends one message and moves its record on. What fails is tried again: posting the same time twice sends once.
func (t *timers) fire(ctx context.Context, one *timer) {
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.gone {
		return
	}
	now := t.b.now()
	rec := one.rec
	failed := t.post(ctx, one.mesh, rec, now)
	switch {
	case errors.Is(failed, errNobodyLeft):
		rec.Cron = "" // nor will there be at the next time
	case errors.Is(failed, errWaitsForRoom):
		t.again(one, now.Add(retryAfter).UnixMilli())
		return
	case failed != nil:
		t.log.Warn("scheduled message not sent, trying again", "id", rec.ID, "err", failed)
		t.again(one, now.Add(retryAfter).UnixMilli())
		return
	}
	if err := t.moveOn(one, rec, now); err != nil {
		t.log.Warn("schedule not moved on, trying again", "id", rec.ID, "err", err)
		t.again(one, now.Add(retryAfter).UnixMilli())
	}
}

// moveOn makes the record stand for the next time, or deletes it.
func (t *timers) moveOn(one *timer, rec scheduleRecord, now time.Time) error {
	ctx, cancel := t.b.deadline()
	defer cancel()
	if rec.Cron != "" {
		// One may come a little before its minute has begun, if the clock was set back.
		due, err := nextDue(rec, unixMilli(max(now.UnixMilli(), rec.Due)))
		if err == nil {
			rec.Due, rec.Fired = due, rec.Fired+1
			if err := t.b.store.putRecord(ctx, one.key, rec); err != nil {
				return err
			}
			one.rec = rec
			t.again(one, due)
			return nil
		}
		t.log.Info("schedule has come to its end", "id", rec.ID, "err", err)
	}
	if err := t.b.store.deleteRecord(ctx, one.key); err != nil {
		return err
	}
	one.gone = true
	t.forget(one)
	return nil
}
