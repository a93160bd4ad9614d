package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
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
	order   uint64 // of the newest record
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
		w.all[r.Key], w.order = one, max(w.order, r.Value.Order)
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
	slices.SortFunc(waiting, func(a, b *watch) int {
		return cmp.Or(cmp.Compare(a.due, b.due), cmp.Compare(a.spec.Order, b.spec.Order))
	})
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
	w.order++
	rec.Order = w.order
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
	slices.SortFunc(own, func(a, b *watch) int { return cmp.Compare(a.spec.Order, b.spec.Order) })
	return own
}

// forgetMesh ends the watches of a deleted mesh, after what they were just doing. Their records are purged with it.
func (w *watches) forgetMesh(meshID string) {
	w.mu.Lock()
	var gone []*watch
	for key, one := range w.all {
		if one.mesh == meshID {
			gone = append(gone, one)
			delete(w.all, key)
		}
	}
	w.mu.Unlock()
	for _, one := range gone {
		one.mu.Lock()
		one.gone = true
		one.mu.Unlock()
	}
}

// remove ends a watch. A check under way comes to nothing.
func (w *watches) remove(one *watch) error {
	one.mu.Lock()
	defer one.mu.Unlock()
	ctx, cancel := w.b.deadline()
	defer cancel()
	if err := w.b.store.deleteRecord(ctx, one.key); err != nil {
		return err
	}
	one.gone = true
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, one.key)
	return nil
}
