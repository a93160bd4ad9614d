package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/nats-io/nats.go"

	"claudemesh/wire"
)

// A topic's posts as server-sent events, while they are made: GET /api/v1/topics/{name}/stream. What was posted before is in the history; a reader that falls
// behind is told so and let go, because a gap it does not know of would be worse.

const (
	streamsPerKey  = 4
	streamsInAll   = 256
	streamBacklog  = 256
	heartbeatEvery = 30 * time.Second
)

// admitStream counts a stream in; done counts it out.
func (b *Broker) admitStream(k *apiKey) (done func(), ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || k.streams >= streamsPerKey || b.streams >= streamsInAll {
		return nil, false
	}
	k.streams++
	b.streams++
	b.conns.Add(1)
	return func() {
		b.mu.Lock()
		k.streams--
		b.streams--
		b.mu.Unlock()
		b.conns.Done()
	}, true
}

func (b *Broker) v1Stream(w http.ResponseWriter, r *http.Request, who keyCaller) {
	name := r.PathValue("name")
	id, ok := b.v1TopicOf(w, r, who, name)
	if !ok {
		return
	}
	if err := b.v1Inside(who, id); err != nil {
		b.v1Fail(w, r, err)
		return
	}
	done, ok := b.admitStream(who.live)
	if !ok {
		b.refuseKey(w, r, &keyRefusal{http.StatusTooManyRequests, codeKeyRate, fmt.Sprintf("an API key has at most %d streams", streamsPerKey)})
		return
	}
	defer done()
	s := &eventStream{b: b, w: w, rc: http.NewResponseController(w)}
	s.recent, _ = simplelru.NewLRU[string, struct{}](2*streamBacklog, nil) // the only error is for a size below one
	posts := make(chan *nats.Msg, streamBacklog)
	sub, err := b.store.nc.ChanSubscribe(historySubject(who.mesh.rec.ID, id), posts)
	if err != nil {
		b.v1Fail(w, r, err)
		return
	}
	defer func() { _ = sub.Unsubscribe() }() // the connection is closed: nothing comes any more
	ctx, cancel := context.WithTimeout(r.Context(), storeDeadline)
	err = b.store.nc.FlushWithContext(ctx)
	cancel()
	if err != nil {
		b.v1Fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	if s.send("ready", "", map[string]any{"topic": name, "topicId": id, "connectedAt": wire.Timestamp(b.now())}) != nil {
		return
	}
	s.run(r.Context(), posts, sub, func() bool { return b.stillReads(who, id) })
}

// stillReads reports whether a key may still follow a topic.
func (b *Broker) stillReads(who keyCaller, topicID string) bool {
	b.mu.RLock()
	works := who.live.works(b.now()) && who.mesh.active(who.member.Pubkey) != nil
	b.mu.RUnlock()
	return works && b.v1Inside(who, topicID) == nil
}

// eventStream writes the events of one reader.
type eventStream struct {
	b      *Broker
	w      http.ResponseWriter
	rc     *http.ResponseController
	recent *simplelru.LRU[string, struct{}] // posts shown: after a crash the fan-out may publish one again
}

func (s *eventStream) run(ctx context.Context, posts <-chan *nats.Msg, sub *nats.Subscription, allowed func() bool) {
	beat := s.b.clock.NewTicker(heartbeatEvery)
	defer beat.Stop()
	for {
		var next func() error
		select {
		case <-ctx.Done():
			return
		case <-s.b.closing:
			s.end(reasonShutdown)
			return
		case <-beat.Chan():
			next = func() error { return s.send("heartbeat", "", s.b.now().UnixMilli()) }
		case msg := <-posts:
			next = func() error { return s.post(msg) }
		}
		if !allowed() {
			s.end("the key does not reach this topic any more")
			return
		}
		if next() != nil { // the reader is gone
			return
		}
		if n, _ := sub.Dropped(); n > 0 {
			s.end("the reader is too slow: posts were left out, read them from the history")
			return
		}
	}
}

// end says why the stream ends, to a reader that may be gone.
func (s *eventStream) end(why string) { _ = s.send("error", "", map[string]any{"error": why}) }

func (s *eventStream) post(msg *nats.Msg) error {
	id := msg.Header.Get(postIDHeader)
	if s.recent.Contains(id) {
		return nil
	}
	s.recent.Add(id, struct{}{})
	var rec accepted
	if err := json.Unmarshal(msg.Data, &rec); err != nil {
		s.b.log.Error("post not readable, passed over", "err", err)
		return nil
	}
	return s.send("message", rec.ID, rec.v1())
}

// send writes one event. Ids are ours and hold no line breaks, nor does encoded JSON.
func (s *eventStream) send(event, id string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	if err := s.rc.SetWriteDeadline(time.Now().Add(s.b.lim.WriteDeadline)); err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	text := "event: " + event + "\n"
	if id != "" {
		text += "id: " + id + "\n"
	}
	if _, err := fmt.Fprintf(s.w, "%sdata: %s\n\n", text, data); err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	return s.rc.Flush()
}
