package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/wire"
)

// Families of records in the bucket CM_DATA whose number in a mesh is bounded.
const (
	familyState  = "kvstate" // recordName(key)
	familyMemory = "memory"  // id
	familySkill  = "skill"   // recordName(name)
	familyFile   = "file"    // id
)

// shelf is one family of records of one mesh. Whoever changes what is on it holds it from the look to the write and the news of it, so that its count is
// exact and the news come in the order of the writes.
type shelf struct {
	mu      sync.Mutex
	n       int
	counted bool
}

// shelves are those in use, by family and mesh.
type shelves struct {
	mu sync.Mutex
	of map[string]*shelf
}

// hold takes a shelf, counting it first if nobody has. Release it with done.
func (b *Broker) hold(ctx context.Context, family, meshID string) (*shelf, error) {
	id := recordKey(family, meshID)
	b.shelves.mu.Lock()
	s := b.shelves.of[id]
	if s == nil {
		s = &shelf{}
		b.shelves.of[id] = s
	}
	b.shelves.mu.Unlock()
	s.mu.Lock()
	if !s.counted {
		keys, err := b.store.recordKeys(ctx, family, meshID)
		if err != nil {
			s.mu.Unlock()
			return nil, err
		}
		s.n, s.counted = len(keys), true
	}
	return s, nil
}

func (s *shelf) done() { s.mu.Unlock() }

// forget drops the shelves of a deleted mesh.
func (all *shelves) forget(meshID string) {
	all.mu.Lock()
	defer all.mu.Unlock()
	maps.DeleteFunc(all.of, func(id string, _ *shelf) bool { return strings.HasSuffix(id, "."+meshID) })
}

// size is how many records a shelf holds.
func (b *Broker) size(ctx context.Context, family, meshID string) (int, error) {
	s, err := b.hold(ctx, family, meshID)
	if err != nil {
		return 0, err
	}
	defer s.done()
	return s.n, nil
}

// add stores a new record on the shelf.
func (s *shelf) add(ctx context.Context, st *store, key string, v any) error {
	err := st.createRecord(ctx, key, v)
	if err != nil {
		s.counted = false // it may be there all the same
		return err
	}
	s.n++
	return nil
}

// remove deletes a record that is on the shelf.
func (s *shelf) remove(ctx context.Context, st *store, key string) error {
	if err := st.deleteRecord(ctx, key); err != nil {
		s.counted = false
		return err
	}
	s.n--
	return nil
}

// recordKeys lists the keys of all records under the tokens, in no particular order.
func (s *store) recordKeys(ctx context.Context, tokens ...string) (keys []string, err error) {
	w, err := s.data.Watch(ctx, recordKey(append(tokens, ">")...), jetstream.IgnoreDeletes(), jetstream.MetaOnly())
	if err != nil {
		return nil, fmt.Errorf("list records: %w", err)
	}
	defer func() { err = errors.Join(err, w.Stop()) }()
	for {
		select {
		case e := <-w.Updates():
			if e == nil { // the end of what was there
				return keys, nil
			}
			keys = append(keys, e.Key())
		case <-ctx.Done():
			return nil, fmt.Errorf("list records: %w", ctx.Err())
		}
	}
}

// nameOf is the inverse of recordName for the last token of a key.
func nameOf(token string) (string, error) {
	name, err := nameCoding.DecodeString(token)
	if err != nil {
		return "", fmt.Errorf("read record name: %w", err)
	}
	return string(name), nil
}

// pageBytes bounds the rows of one answer. It leaves room in a frame for what is around them.
const pageBytes = 512 << 10

// page counts the bytes of an answer's rows.
type page struct{ size int }

// takes counts a row and reports whether the answer still has room for it. The first one always has: nothing is stored that could not be answered with.
func (p *page) takes(row any) (bool, error) {
	data, err := json.Marshal(row)
	if err != nil {
		return false, fmt.Errorf("encode answer: %w", err)
	}
	fits := p.size == 0 || p.size+len(data) <= pageBytes
	p.size += len(data) + 1
	return fits, nil
}

// tooMuch answers a request for a list that does not fit into one answer, by a client that does not ask in pages.
func (c *conn) tooMuch(reqID, what string) {
	c.fail(reqID, wire.CodeLimit, "there are more "+what+" than one answer holds; ask with paged:true, and again with after set to the last one")
}

// tooBig reports whether a record could not be answered with once it is stored, and answers the request then.
func (c *conn) tooBig(reqID string, row any) bool {
	data, err := json.Marshal(row)
	if err == nil && len(data) <= pageBytes {
		return false
	}
	c.fail(reqID, wire.CodeInvalid, fmt.Sprintf("invalid frame: over %d bytes of JSON in all", pageBytes))
	return true
}

// author is the display name under which c's member signs what it stores.
func (c *conn) author() string {
	c.b.mu.RLock()
	defer c.b.mu.RUnlock()
	return c.member.Name
}

// news sends a frame to the other connections of the mesh; ours only to those that want it.
func (c *conn) news(frame any, ours bool) {
	data, err := wire.Encode(frame)
	if err != nil {
		c.log.Error("news not sent", "err", err)
		return
	}
	c.b.mu.RLock()
	all := c.mesh.others(c, true)
	c.b.mu.RUnlock()
	for _, o := range all {
		if !ours || o.changes {
			o.event(data)
		}
	}
}
