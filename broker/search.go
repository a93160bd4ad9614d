package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/broker/fts"
)

// Search through the view of broker/fts. What is searched lies in streams; an index reads one of them in order into the view, and remembers in the view how
// far it came. It does so before every search: a search therefore finds all that was stored before it, nothing waits for the view when something is stored,
// and whatever is lost or damaged of the view is read again.

// searchFile is the view's file in Config.Dir.
const searchFile = "broker-search.db"

// searchView is the view that all indexes share. Each works under the read lock; the view is made anew under the write lock, and has a new age then, by which
// the others see that they start over.
type searchView struct {
	*fts.View
	mu  sync.RWMutex
	age int
}

func openSearch(dir string, log *slog.Logger) (*searchView, error) {
	path := ""
	if dir != "" {
		path = filepath.Join(dir, searchFile)
	}
	v, err := fts.Open(path, log)
	if err != nil {
		return nil, err
	}
	return &searchView{View: v}, nil
}

// renew empties a damaged view, unless somebody has since it had that age.
func (v *searchView) renew(age int) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.age != age {
		return nil
	}
	if err := v.Reset(); err != nil {
		return err
	}
	v.age++
	return nil
}

// index is one source of the view: the messages of a stream on one pattern of subjects.
type index struct {
	view   *searchView
	log    *slog.Logger
	name   string // of its position in the view
	stream jetstream.Stream
	filter string
	// read makes documents of a message: put, or drop when the message says that they are gone.
	read func(msg *jetstream.RawStreamMsg) (put, drop []fts.Doc)

	turn chan struct{} // capacity 1: one reads at a time
	age  int           // of the view when pos was read from it; guarded by turn, as pos
	pos  uint64        // the last sequence that is in the view
}

// indexBatch is how many messages one commit of the view takes.
const indexBatch = 256

// newIndex makes one. The position has the stream's creation time in its name, because a stream that was made again numbers anew. A stream that ends before
// the position is an older copy that was restored: the view holds what it does not.
func newIndex(ctx context.Context, v *searchView, log *slog.Logger, stream jetstream.Stream, filter string, read func(*jetstream.RawStreamMsg) (put, drop []fts.Doc)) (*index, error) {
	info, err := stream.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	name := fmt.Sprintf("%s %s %d", info.Config.Name, filter, info.Created.UnixNano())
	pos, err := v.Position(ctx, name)
	if err == nil && pos > info.State.LastSeq {
		err = v.renew(v.age)
	}
	if err != nil && !errors.Is(err, fts.ErrDamaged) { // damage is mended when the view is used
		return nil, fmt.Errorf("open index: %w", err)
	}
	return &index{view: v, log: log, name: name, stream: stream, filter: filter, read: read, turn: make(chan struct{}, 1), age: -1}, nil
}

// catchUp reads what is missing, so that the first search does not have to.
func (x *index) catchUp(ctx context.Context) {
	if err := x.update(ctx); err != nil && ctx.Err() == nil {
		x.log.Warn("search index is behind", "index", x.name, "err", err)
	}
}

// search finds documents among all that was stored before the call.
func (x *index) search(ctx context.Context, meshID, kind, query string, limit int) (hits []fts.Hit, err error) {
	for range renewals {
		if err := x.update(ctx); err != nil {
			return nil, err
		}
		x.view.mu.RLock()
		age := x.view.age
		hits, err = x.view.Search(ctx, meshID, kind, query, limit)
		x.view.mu.RUnlock()
		if !errors.Is(err, fts.ErrDamaged) {
			return hits, err
		}
		if err := x.renew(age, err); err != nil {
			return nil, err
		}
	}
	return nil, err
}

// renewals is how often a damaged view is made anew for one request: once for the damage, and once more for a new file on a bad disk.
const renewals = 2

func (x *index) renew(age int, cause error) error {
	x.log.Warn("search view is made anew", "reason", cause)
	return x.view.renew(age)
}

// update reads the stream to its end.
func (x *index) update(ctx context.Context) error {
	select {
	case x.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("update index: %w", ctx.Err())
	}
	defer func() { <-x.turn }()
	for renewed := 0; ; {
		age, more, err := x.advance(ctx)
		switch {
		case errors.Is(err, fts.ErrDamaged) && renewed < renewals:
			renewed++
			if err := x.renew(age, err); err != nil {
				return fmt.Errorf("update index: %w", err)
			}
		case err != nil:
			return fmt.Errorf("update index: %w", err)
		case !more:
			return nil
		}
	}
}

// advance takes the next messages into the view, whose age it returns. more is false at the end of the stream.
func (x *index) advance(ctx context.Context) (age int, more bool, err error) {
	x.view.mu.RLock()
	defer x.view.mu.RUnlock()
	age = x.view.age
	if x.age != age {
		if x.pos, err = x.view.Position(ctx, x.name); err != nil {
			return age, false, err
		}
		x.age = age
	}
	b := docBatch{view: x.view}
	at := x.pos
	for range indexBatch {
		msg, err := x.stream.GetMsg(ctx, at+1, jetstream.WithGetMsgSubject(x.filter))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err == nil {
			err = b.take(ctx, x.read, msg)
		}
		if err != nil {
			return age, false, err
		}
		at = msg.Sequence
	}
	if at == x.pos {
		return age, false, nil
	}
	err = b.flush(ctx)
	if err == nil {
		err = x.view.SetPosition(ctx, x.name, at)
	}
	if err != nil {
		return age, false, err
	}
	x.pos = at
	return age, true, nil
}

// docBatch collects documents, so that many are one commit, without changing the order of putting and dropping.
type docBatch struct {
	view *searchView
	put  []fts.Doc
}

func (b *docBatch) take(ctx context.Context, read func(*jetstream.RawStreamMsg) (put, drop []fts.Doc), msg *jetstream.RawStreamMsg) error {
	put, drop := read(msg)
	b.put = append(b.put, put...)
	if len(drop) == 0 {
		return nil
	}
	if err := b.flush(ctx); err != nil {
		return err
	}
	for _, d := range drop {
		if err := b.view.Delete(ctx, d.Mesh, d.Kind, d.ID); err != nil {
			return err
		}
	}
	return nil
}

func (b *docBatch) flush(ctx context.Context) error {
	if len(b.put) == 0 {
		return nil
	}
	err := b.view.Put(ctx, b.put...)
	b.put = nil
	return err
}
