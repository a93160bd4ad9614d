package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// store is the broker's JetStream: its streams and buckets, and two caches over them that may be lost at any time.
type store struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	accept jetstream.Stream
	mail   jetstream.Stream
	rcpt   jetstream.Stream
	meta   jetstream.KeyValue
	data   jetstream.KeyValue
	topics jetstream.Stream
	dataS  jetstream.Stream // the stream of data
	bodies *bodyCache
	depth  *depths
}

func openStore(ctx context.Context, nc *nats.Conn, l Limits) (*store, error) {
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4096), jetstream.WithPublishAsyncTimeout(storeDeadline))
	if err != nil {
		return nil, fmt.Errorf("open jetstream: %w", err)
	}
	s := &store{nc: nc, js: js, bodies: newBodyCache(16 << 20)}
	if s.accept, err = js.CreateOrUpdateStream(ctx, acceptConfig(l)); err != nil {
		return nil, fmt.Errorf("open stream %s: %w", acceptStream, err)
	}
	if s.mail, err = js.CreateOrUpdateStream(ctx, mailConfig(l)); err != nil {
		return nil, fmt.Errorf("open stream %s: %w", mailStream, err)
	}
	if s.rcpt, err = js.CreateOrUpdateStream(ctx, receiptConfig(l)); err != nil {
		return nil, fmt.Errorf("open stream %s: %w", rcptStream, err)
	}
	if s.topics, err = js.CreateOrUpdateStream(ctx, topicConfig(l)); err != nil {
		return nil, fmt.Errorf("open stream %s: %w", topicStream, err)
	}
	if s.meta, err = js.CreateOrUpdateKeyValue(ctx, metaConfig(l)); err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", metaBucket, err)
	}
	if s.data, err = js.CreateOrUpdateKeyValue(ctx, dataConfig(l)); err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", dataBucket, err)
	}
	if s.dataS, err = js.Stream(ctx, dataStream); err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", dataBucket, err)
	}
	s.depth = &depths{of: map[string]int{}}
	for _, stream := range []jetstream.Stream{s.mail, s.rcpt} {
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter(">"))
		if err != nil {
			return nil, fmt.Errorf("count mail: %w", err)
		}
		for subject, n := range info.State.Subjects {
			s.depth.of[subject] = int(n)
		}
	}
	return s, nil
}

// holding is the stream that holds a mailbox.
func (s *store) holding(subject string) jetstream.Stream {
	if strings.HasPrefix(subject, receiptPrefix) {
		return s.rcpt
	}
	return s.mail
}

// put stores v under key for good.
func (s *store) put(ctx context.Context, key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	if _, err := s.meta.Put(ctx, key, data); err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	return nil
}

// create stores v under key if the key is free; otherwise the error wraps jetstream.ErrKeyExists.
func (s *store) create(ctx context.Context, key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	if _, err := s.meta.Create(ctx, key, data); err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	return nil
}

// under calls fn with every entry of the bucket that the pattern matches.
func (s *store) under(ctx context.Context, pattern string, fn func(jetstream.KeyValueEntry) error) (err error) {
	w, err := s.meta.Watch(ctx, pattern, jetstream.IgnoreDeletes())
	if err != nil {
		return fmt.Errorf("read bucket: %w", err)
	}
	defer func() { err = errors.Join(err, w.Stop()) }()
	for {
		select {
		case e := <-w.Updates():
			if e == nil { // the end of what was there
				return nil
			}
			if err := fn(e); err != nil {
				return fmt.Errorf("read bucket: %s: %w", e.Key(), err)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// record returns an accepted message by its sequence; jetstream.ErrMsgNotFound when it has expired.
func (s *store) record(ctx context.Context, seq uint64) (*accepted, error) {
	if rec := s.bodies.get(seq); rec != nil {
		return rec, nil
	}
	msg, err := s.accept.GetMsg(ctx, seq)
	if err != nil {
		return nil, fmt.Errorf("read message %d: %w", seq, err)
	}
	return decodeAccepted(msg)
}

// nextRecord returns the first accepted message at or after seq; jetstream.ErrMsgNotFound when there is none yet. One that cannot be read is nil: it must
// not stop those behind it.
func (s *store) nextRecord(ctx context.Context, seq uint64) (*accepted, uint64, error) {
	if rec := s.bodies.get(seq); rec != nil {
		return rec, seq, nil
	}
	msg, err := s.accept.GetMsg(ctx, seq, jetstream.WithGetMsgSubject("accept.>"))
	if err != nil {
		return nil, 0, fmt.Errorf("read message after %d: %w", seq, err)
	}
	rec, err := decodeAccepted(msg)
	if err != nil {
		return nil, msg.Sequence, nil
	}
	s.bodies.put(msg.Sequence, rec)
	return rec, msg.Sequence, nil
}

// recordByID returns the accepted message with that id; jetstream.ErrMsgNotFound when there is none.
func (s *store) recordByID(ctx context.Context, meshID, id string) (*accepted, error) {
	msg, err := s.accept.GetLastMsgForSubject(ctx, acceptSubject(meshID, id))
	if err != nil {
		return nil, fmt.Errorf("read message %s: %w", id, err)
	}
	return decodeAccepted(msg)
}

func decodeAccepted(msg *jetstream.RawStreamMsg) (*accepted, error) {
	rec := &accepted{size: len(msg.Data)}
	if err := json.Unmarshal(msg.Data, rec); err != nil {
		return nil, fmt.Errorf("decode message %d: %w", msg.Sequence, err)
	}
	return rec, nil
}

// bodyCache holds the most recently accepted messages, so that a push right after the acceptance reads no disk. Bounded in bytes.
type bodyCache struct {
	mu    sync.Mutex
	lru   *simplelru.LRU[uint64, *accepted]
	bytes int
	limit int
}

func newBodyCache(limit int) *bodyCache {
	c := &bodyCache{limit: limit}
	// The only error is for a size below one.
	c.lru, _ = simplelru.NewLRU(limit/1024, func(_ uint64, rec *accepted) { c.bytes -= 2 * rec.size })
	return c
}

func (c *bodyCache) get(seq uint64) *accepted {
	c.mu.Lock()
	defer c.mu.Unlock()
	rec, _ := c.lru.Get(seq)
	return rec
}

func (c *bodyCache) put(seq uint64, rec *accepted) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lru.Contains(seq) {
		return
	}
	c.bytes += 2 * rec.size // with the frame that is made of it
	c.lru.Add(seq, rec)
	for c.bytes > c.limit {
		c.lru.RemoveOldest()
	}
}

// depths counts the entries of each mailbox.
type depths struct {
	mu sync.Mutex
	of map[string]int
}

func (d *depths) get(subject string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.of[subject]
}

func (d *depths) add(subject string, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	// An entry may be acknowledged, and counted out, before the fan-out has counted it in: the sum is right whatever the order.
	if d.of[subject] += n; d.of[subject] == 0 {
		delete(d.of, subject)
	}
}

// sum adds up the mailboxes whose subject begins with prefix: their entries, their number, the entries of the fullest.
func (d *depths) sum(prefix string) (entries, boxes, deepest int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for subject, n := range d.of {
		if strings.HasPrefix(subject, prefix) {
			entries, boxes, deepest = entries+n, boxes+1, max(deepest, n)
		}
	}
	return entries, boxes, deepest
}

// forget drops the counts of the mailboxes whose subject contains part.
func (d *depths) forget(part string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.of, func(subject string, _ int) bool { return strings.Contains(subject, part) })
}

// full reports whether the mailbox holds limit entries. The counts do not see mail expire, so a full one is counted again before it is believed.
func (s *store) full(ctx context.Context, subject string, limit int) bool {
	if s.depth.get(subject) < limit {
		return false
	}
	info, err := s.holding(subject).Info(ctx, jetstream.WithSubjectFilter(subject))
	if err != nil {
		return true
	}
	n := int(info.State.Subjects[subject])
	s.depth.mu.Lock()
	s.depth.of[subject] = n
	s.depth.mu.Unlock()
	return n >= limit
}
