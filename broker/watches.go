package broker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"claudemesh/wire"
)

// watches checks addresses. A result is posted under an id that counts the watch's notifications, and only then is the new value stored: a crash between the
// two tells the same change again under the same id, which the store takes once.
//
// Checks run beside one another, at most watchesAtOnce, and of one member at most watchesPerMember: a server that is slow delays nobody else's watch.
type watches struct {
	b     *Broker
	log   *slog.Logger
	fetch *fetcher
	wake  chan struct{}
	tasks sync.WaitGroup // checks

	mu      sync.Mutex
	all     map[string]*watch // by record key
	running map[string]int    // checks, by member id
	total   int
}

// watch is one watch. spec never changes.
type watch struct {
	key, mesh string
	spec      watchRecord

	mu      sync.Mutex // held while a result is stored, and while the watch is removed
	rec     watchRecord
	checked time.Time
	problem string // why the last check found nothing
	gone    bool

	due  int64 // guarded by watches.mu: Unix milliseconds
	busy bool  // guarded by watches.mu: being checked
}

const (
	watchesAtOnce    = 32
	watchesPerMember = 4
)

func newWatches(ctx context.Context, b *Broker) (*watches, error) {
	w := &watches{b: b, log: b.log, fetch: newFetcher(b.cfg.AllowPrivateWatches), wake: make(chan struct{}, 1), all: map[string]*watch{}, running: map[string]int{}}
	records, err := listRecords[watchRecord](ctx, b.store, watchFamily)
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		parts := strings.Split(r.Key, ".")
		if len(parts) != 3 {
			return nil, fmt.Errorf("read watches: bad key %q", r.Key)
		}
		one := newWatch(parts[1], r.Value)
		// All are due at once after a restart: they begin at any point of their interval.
		random, err := w.random()
		if err != nil {
			return nil, err
		}
		one.due = b.now().Add(time.Duration(r.Value.Interval) * time.Second * time.Duration(random) / 256).UnixMilli()
		w.all[r.Key] = one
	}
	return w, nil
}

func newWatch(meshID string, rec watchRecord) *watch {
	one := &watch{key: watchKey(meshID, rec.ID), mesh: meshID, spec: rec, rec: rec, due: rec.CreatedAt}
	if rec.Checked != 0 {
		one.checked = unixMilli(rec.Checked)
	}
	return one
}

func (w *watches) random() (byte, error) {
	var b [1]byte
	if _, err := io.ReadFull(w.b.cfg.Rand, b[:]); err != nil {
		return 0, fmt.Errorf("read randomness: %w", err)
	}
	return b[0], nil
}

func (w *watches) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run starts checks as they fall due until ctx ends, and waits for those under way.
func (w *watches) run(ctx context.Context) {
	defer w.tasks.Wait()
	for ctx.Err() == nil {
		due, next := w.take()
		for _, one := range due {
			w.tasks.Go(func() { w.check(ctx, one) })
		}
		w.b.sleep(ctx, next, w.wake)
	}
}

// take picks what is due and may run now, the longest waiting first, and says when the next is due.
func (w *watches) take() (due []*watch, next int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next = never
	var waiting []*watch
	at := w.b.now().UnixMilli()
	for _, one := range w.all {
		switch left := time.Duration(one.due-at) * time.Millisecond; {
		case one.busy:
		case left <= 0, left > 2*time.Duration(one.spec.Interval)*time.Second: // or the clock was set back
			waiting = append(waiting, one)
		default:
			next = min(next, one.due)
		}
	}
	slices.SortFunc(waiting, func(a, b *watch) int { return cmp.Or(cmp.Compare(a.due, b.due), strings.Compare(a.key, b.key)) })
	for _, one := range waiting { // what finds no place is looked at again when a check ends
		if w.total < watchesAtOnce && w.running[one.spec.MemberID] < watchesPerMember {
			one.busy = true
			w.total++
			w.running[one.spec.MemberID]++
			due = append(due, one)
		}
	}
	return due, next
}

// check makes one check and takes its result.
func (w *watches) check(ctx context.Context, one *watch) {
	value, err := w.fetch.value(ctx, one.spec)
	if ctx.Err() == nil {
		if err = w.settle(ctx, one, value, err); err != nil {
			w.log.Warn("watch not served", "id", one.spec.ID, "err", err)
		}
	}
	random, err := w.random()
	if err != nil {
		w.log.Warn("watch not spread", "err", err)
	}
	w.mu.Lock()
	defer w.poke()
	defer w.mu.Unlock()
	one.busy = false
	w.total--
	if w.running[one.spec.MemberID]--; w.running[one.spec.MemberID] == 0 {
		delete(w.running, one.spec.MemberID)
	}
	// From when it was due, so that the time a check takes does not add up; but what was missed is not made up for.
	now, pause := w.b.now(), one.spec.interval(random)
	next := unixMilli(one.due).Add(pause)
	if !next.After(now) {
		next = now.Add(pause)
	}
	one.due = next.UnixMilli()
}

// settle compares a value with the last, tells the owner and stores the new one. What cannot be told stays untold until the next check.
func (w *watches) settle(ctx context.Context, one *watch, value string, failed error) error {
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.gone {
		return nil
	}
	one.checked, one.problem = w.b.now(), ""
	if failed != nil {
		one.problem = problemOf(failed)
		return nil // the owner sees it in the list
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeDeadline)
	defer cancel()
	rec := one.rec
	first, changed, news := rec.Checked == 0, value != rec.Value, rec.notifies(value)
	if news {
		rec.Told++
		switch told, err := w.tell(ctx, one.mesh, rec, value); {
		case errors.Is(err, errNobodyLeft):
			return w.drop(ctx, one)
		case err != nil:
			one.problem = "the result could not be stored"
			return err
		case !told:
			one.problem = "the owner's mailbox is full"
			return nil
		}
	}
	rec.Value, rec.Checked = value, one.checked.UnixMilli()
	if first || changed || news { // else there is nothing in it that must outlive the process
		if err := w.b.store.putRecord(ctx, one.key, rec); err != nil {
			return err
		}
	}
	one.rec = rec
	return nil
}

// problemOf is a failure as the owner may see it.
func problemOf(err error) string {
	switch {
	case errors.Is(err, errPrivate):
		return errPrivate.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer within %s", fetchDeadline)
	}
	return bounded(err.Error())
}

// tell mails a result to the watch's owner; false when there is no room for it.
func (w *watches) tell(ctx context.Context, meshID string, rec watchRecord, value string) (bool, error) {
	b := w.b
	b.mu.RLock()
	m := b.meshes[meshID]
	here := m != nil && m.active(rec.MemberPubkey) != nil
	b.mu.RUnlock()
	switch {
	case !here:
		return false, errNobodyLeft
	case b.store.full(ctx, mailSubject(meshID, rec.MemberPubkey), b.lim.MailboxDepth):
		return false, nil
	}
	data, err := json.Marshal(wire.WatchTriggered{WatchID: rec.ID, URL: rec.URL, Label: rec.Label, Mode: rec.Mode, OldValue: rec.Value, NewValue: value})
	if err != nil {
		return false, fmt.Errorf("encode watch: %w", err)
	}
	return true, b.post(ctx, &accepted{
		// With the time it was made, because a short id may come again.
		CMID: strings.Join([]string{rec.ID, strconv.FormatInt(rec.CreatedAt, 10), strconv.Itoa(rec.Told)}, ":"),
		Mesh: meshID, SessionKey: senderSystem, Name: senderSystem, Target: rec.MemberPubkey, To: []string{rec.MemberPubkey}, Priority: wire.PriorityNow,
		Subtype: wire.SubtypeSystem, Event: wire.EventWatchTriggered, EventData: data,
	})
}

// add stores a new watch and returns its id.
func (w *watches) add(meshID string, rec watchRecord) (id string, no *refusal) {
	w.mu.Lock()
	own, inMesh := 0, 0
	for _, o := range w.all {
		if o.mesh == meshID {
			inMesh++
			if o.spec.MemberID == rec.MemberID {
				own++
			}
		}
	}
	w.mu.Unlock()
	if own >= w.b.lim.WatchesPerMember || inMesh >= w.b.lim.WatchesPerMesh {
		return "", refused(wire.CodeLimit, fmt.Sprintf("limit reached: %d watches of one member, %d of a mesh", w.b.lim.WatchesPerMember, w.b.lim.WatchesPerMesh))
	}
	ctx, cancel := w.b.deadline()
	defer cancel()
	for {
		u, err := uuid.NewRandomFromReader(w.b.cfg.Rand)
		if err == nil {
			rec.ID = "w_" + u.String()[:8]
			if err = w.b.store.createRecord(ctx, watchKey(meshID, rec.ID), rec); errors.Is(err, errRecordExists) {
				continue
			}
		}
		if err != nil {
			w.log.Error("watch not stored", "err", err)
			return "", refused(wire.CodeUnavailable, "the store does not answer; nothing is watched")
		}
		one := newWatch(meshID, rec)
		w.mu.Lock()
		w.all[one.key] = one
		w.mu.Unlock()
		w.poke()
		return rec.ID, nil
	}
}

func (w *watches) find(meshID, id string) *watch {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all[watchKey(meshID, id)]
}

// of lists a member's watches, oldest first.
func (w *watches) of(meshID, memberID string) (own []*watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range w.all {
		if one.mesh == meshID && one.spec.MemberID == memberID {
			own = append(own, one)
		}
	}
	slices.SortFunc(own, func(a, b *watch) int {
		return cmp.Or(cmp.Compare(a.spec.CreatedAt, b.spec.CreatedAt), strings.Compare(a.key, b.key))
	})
	return own
}

// remove ends a watch. A check under way comes to nothing.
func (w *watches) remove(one *watch) error {
	one.mu.Lock()
	defer one.mu.Unlock()
	ctx, cancel := w.b.deadline()
	defer cancel()
	return w.drop(ctx, one)
}

// drop deletes a watch whose mutex is held.
func (w *watches) drop(ctx context.Context, one *watch) error {
	if err := w.b.store.deleteRecord(ctx, one.key); err != nil {
		return err
	}
	one.gone = true
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, one.key)
	return nil
}
