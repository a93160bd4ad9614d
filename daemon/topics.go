package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"claudemesh/bridge"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// topics knows a mesh's topics: their ids and names as the broker listed them last, and the keys of those this member belongs to. The keys are in memory
// only; their sealed copies at the broker are the truth. One goroutine keeps all of it up to date, seals keys for members that wait for them, and makes a new
// key when somebody left who has the old one; the broker's events only tell it when to look.
type topics struct {
	m       *meshRun
	poke    chan struct{} // capacity 1: look again
	looking sync.Mutex    // one look at a time
	listing sync.Mutex    // one list at a time: an older one must not be entered after a newer one
	seen    *seenKeys

	mu     sync.Mutex
	byID   map[string]wire.Topic
	keys   map[string]map[int]mesh.TopicKey // by topic id and generation
	listed bool                             // byID is what the broker said since the link opened
}

const (
	retryTopics = 2 * time.Second // after a look that failed
	lookAgain   = 5 * time.Minute // without any event: events may be lost
)

func newTopics(m *meshRun) *topics {
	return &topics{
		m: m, poke: make(chan struct{}, 1), byID: map[string]wire.Topic{}, keys: map[string]map[int]mesh.TopicKey{},
		seen: &seenKeys{path: filepath.Join(m.d.opt.Dir, seenKeysDir, m.joined.MeshID+".json")},
	}
}

// refresh asks for a new look; several requests become one.
func (t *topics) refresh() {
	select {
	case t.poke <- struct{}{}:
	default:
	}
}

func (t *topics) run() {
	for {
		select {
		case <-t.m.ctx.Done():
			return
		case <-t.poke:
		case <-t.m.d.opt.Clock.After(lookAgain):
		}
		if !t.m.online() {
			continue
		}
		if err := t.look(t.m.ctx); err != nil && t.m.ctx.Err() == nil {
			t.m.d.opt.Log.Warn("topics_not_read", "mesh", t.m.joined.Slug, "error", err)
			select {
			case <-t.m.ctx.Done():
				return
			case <-t.m.d.opt.Clock.After(retryTopics):
				t.refresh()
			}
		}
	}
}

// lost forgets that the list is fresh: the link is down.
func (t *topics) lost() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.listed = false
}

// keeps reports whether the broker keeps keys. A reference broker does not, over this way: posts to it go in clear.
func (t *topics) keeps() bool { return t.m.links.Member().State().Has(wire.CapTopicKeys) }

// look reads the list of topics and does what it asks for. A topic that cannot be dealt with does not hold up the others.
func (t *topics) look(ctx context.Context) error {
	t.looking.Lock()
	defer t.looking.Unlock()
	list, err := t.list(ctx)
	if err != nil || !t.keeps() {
		return err
	}
	var failed []error
	for _, row := range list {
		if row.Role == "" || row.Generation == 0 {
			continue
		}
		if err := t.attend(ctx, row); err != nil {
			failed = append(failed, fmt.Errorf("topic %s: %w", printable(row.Name), err))
		}
	}
	return errors.Join(failed...)
}

func (t *topics) attend(ctx context.Context, row wire.Topic) error {
	key, has := t.key(row.ID, row.Generation)
	if !has && row.HasKey {
		if err := t.fetch(ctx, row); err != nil {
			return err
		}
		if key, has = t.key(row.ID, row.Generation); !has {
			return errors.New("the key that is sealed for this member does not open")
		}
	}
	if !has {
		return nil
	}
	// Also when the key was here before: a post may have been looked at just before the key came, and stored just after.
	if err := t.m.openLate(ctx, row.ID); err != nil {
		return err
	}
	switch {
	case row.RotationDue:
		_, err := t.renew(ctx, row)
		return err
	case row.PendingSeals > 0:
		return t.sealForWaiting(ctx, row, key)
	}
	return nil
}

// list reads the broker's list now.
func (t *topics) list(ctx context.Context) ([]wire.Topic, error) {
	t.listing.Lock()
	defer t.listing.Unlock()
	var list wire.TopicList
	if err := t.ask(ctx, wire.TypeTopicList, nil, &list); err != nil {
		return nil, err
	}
	byID := make(map[string]wire.Topic, len(list.Topics))
	for _, row := range list.Topics {
		byID[row.ID] = row
	}
	t.mu.Lock()
	t.byID, t.listed = byID, true
	for id := range t.keys {
		if byID[id].Role == "" {
			delete(t.keys, id) // left: what is still to come is not for us
		}
	}
	t.mu.Unlock()
	// After the list is in force: what was seen of a key must never be ahead of what the list says for an instant, or a post would be refused for good (see seal).
	for _, row := range list.Topics {
		if row.Generation > 0 {
			if err := t.seen.note(row.ID, row.Generation); err != nil {
				return nil, err
			}
		}
	}
	t.m.signal() // a row may have waited for it
	return list.Topics, nil
}

// ask asks the broker something about topics, as the member.
func (t *topics) ask(ctx context.Context, op string, in, out any) error {
	return t.askOver(ctx, t.m.links.Member(), op, in, out)
}

// askOver asks over a link: what a session wants by itself goes over the one that linkOf says, the errands about keys over the member's.
func (t *topics) askOver(ctx context.Context, link *bridge.Link, op string, in, out any) error {
	var fields []byte
	if in != nil {
		var err error
		if fields, err = json.Marshal(in); err != nil {
			return fmt.Errorf("encode %s: %w", op, err)
		}
	}
	reply, err := t.m.call(ctx, link, op, fields)
	if err != nil || out == nil {
		return err
	}
	if err := wire.Decode(reply, out); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

// find returns the topic that a target means: by id, then by name, then by name in any case if only one has it. settled is false while the answer may still
// change: the broker is down, or has not listed since the link opened.
func (t *topics) find(ref string) (row wire.Topic, found, settled bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	settled = t.listed && t.m.online()
	if row, found = t.byID[ref]; found {
		return row, true, settled
	}
	var alike []wire.Topic
	for _, row := range t.byID {
		if row.Name == ref {
			return row, true, settled
		}
		if strings.EqualFold(row.Name, ref) {
			alike = append(alike, row)
		}
	}
	if len(alike) == 1 {
		return alike[0], true, settled
	}
	return wire.Topic{}, false, settled
}

// names lists the topics that can be posted to.
func (t *topics) names() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := []string{}
	for _, row := range t.byID {
		out = append(out, printable(row.Name))
	}
	slices.Sort(out)
	return out[:min(len(out), maxChoices)]
}
