package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/bus"
)

// The event stream. It is read from the streams of the bus, so what happened while a client was away is there when it comes back and says how far it has been.

const (
	maxStreams    = 64               // event streams open at one time
	keepAlive     = 15 * time.Second // between comments on a quiet stream
	eventDeadline = 10 * time.Second // a client that takes no byte for so long is cut
	ahead         = 64               // events read before they are written
)

// feed is one caller's event stream.
type feed struct {
	s    *Server
	c    *caller
	w    http.ResponseWriter
	out  *http.ResponseController
	at   cursor
	from cursor // where the client goes on; what lies before it is looked at for its ids only
	seen *seenIDs
}

// source is one stream of the bus as a feed reads it.
type source struct {
	stream   string
	subjects []string
	place    func(*cursor) *uint64
}

func (s *Server) events(w http.ResponseWriter, r *http.Request, c *caller) {
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		fail(w, refusal(503, "busy", "too many event streams are open"))
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	f := &feed{s: s, c: c, w: w, out: http.NewResponseController(w), seen: newSeenIDs()}
	// It ends with the daemon, and with the token: the bus cuts the connection of one that was revoked.
	for _, life := range []context.Context{s.ctx, c.life} {
		stop := context.AfterFunc(life, cancel)
		defer stop()
	}
	if err := f.run(ctx, r.Header.Get("Last-Event-ID")); err != nil && ctx.Err() == nil {
		s.cfg.Log.Info("event_stream_ended", "actor", c.actor(), "error", err)
	}
}

// run opens the sources, then writes what they have until the client goes.
func (f *feed) run(ctx context.Context, last string) error {
	js, err := jetstream.New(f.s.cfg.Streams)
	if err != nil {
		fail(f.w, err)
		return err
	}
	messages, events := bus.Hears(f.c.grant)
	sources := []source{
		{bus.StreamMessages, messages, func(c *cursor) *uint64 { return &c.messages }},
		{bus.StreamEvents, events, func(c *cursor) *uint64 { return &c.events }},
	}
	gap, err := f.position(ctx, js, sources, last)
	if err != nil {
		var api *bus.APIError
		if !errors.As(err, &api) {
			f.s.cfg.Log.Warn("event_stream_failed", "error", err)
		}
		fail(f.w, err)
		return err
	}
	got := make(chan jetstream.Msg, ahead)
	for _, src := range sources {
		stop, err := f.read(ctx, js, src, got)
		if err != nil {
			fail(f.w, err)
			return err
		}
		defer stop()
	}
	h := f.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache, no-transform")
	h.Set("X-Accel-Buffering", "no")
	f.w.WriteHeader(http.StatusOK)
	// The id without data gives a client its place before anything has happened.
	if err := f.put([]byte(fmt.Sprintf(": connected\n\nid: %s\n\n", f.at))); err != nil {
		return err
	}
	if gap {
		if err := f.event("gap", object{}.set("detail", "some of what happened since is not kept any more; ask for the inbox")); err != nil {
			return err
		}
	}
	return f.pass(ctx, got)
}

// position decides where the feed begins: behind the last event that the client has seen, else now. A gap is what lies between and is not kept any more.
func (f *feed) position(ctx context.Context, js jetstream.JetStream, sources []source, last string) (gap bool, err error) {
	want, goesOn := parseCursor(last)
	if last != "" && !goesOn {
		return false, refusal(400, "bad_event_id", "Last-Event-ID is none of this stream's ids")
	}
	f.at = want
	for _, src := range sources {
		stream, err := js.Stream(ctx, src.stream)
		if err != nil {
			return false, fmt.Errorf("open stream %s: %w", src.stream, err)
		}
		state := stream.CachedInfo().State
		at := src.place(&f.at)
		switch {
		case !goesOn:
			*at = state.LastSeq
		case *at > state.LastSeq: // the stream was made anew since
			*at, gap = state.LastSeq, true
		case *at+1 < state.FirstSeq:
			gap = true
		}
	}
	f.from = f.at
	return gap, nil
}

// read has what a source holds and gets sent to got. It begins a little before the feed's place, for the ids of messages whose copies lie on both sides of it.
func (f *feed) read(ctx context.Context, js jetstream.JetStream, src source, got chan<- jetstream.Msg) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	at := *src.place(&f.at)
	begin := at + 1
	if src.stream == bus.StreamMessages {
		begin -= min(at, copiesApart)
	}
	consumer, err := js.OrderedConsumer(ctx, src.stream, jetstream.OrderedConsumerConfig{
		FilterSubjects: src.subjects, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: begin, InactiveThreshold: time.Minute,
	})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("read stream %s: %w", src.stream, err)
	}
	reading, err := consumer.Consume(func(m jetstream.Msg) {
		select {
		case got <- m: // a full channel holds the consumer back, and nobody else
		case <-ctx.Done():
		}
	}, jetstream.PullMaxMessages(ahead))
	if err != nil {
		cancel()
		return nil, fmt.Errorf("read stream %s: %w", src.stream, err)
	}
	return func() {
		cancel() // it may be waiting for got, which nobody reads any more
		reading.Stop()
		<-reading.Closed()
	}, nil
}

// pass writes events as they come, and a comment when none does.
func (f *feed) pass(ctx context.Context, got <-chan jetstream.Msg) error {
	quiet := f.s.cfg.Clock.NewTimer(keepAlive)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-quiet.Chan():
			if err := f.put([]byte(": keepalive\n\n")); err != nil {
				return err
			}
		case m := <-got:
			if err := f.show(m); err != nil {
				return err
			}
		}
		quiet.Reset(keepAlive)
	}
}

// show writes one message of the bus as an event, if it is news.
func (f *feed) show(m jetstream.Msg) error {
	meta, err := m.Metadata()
	if err != nil {
		return fmt.Errorf("read stream: %w", err)
	}
	sub, err := bus.ParseSubject(m.Subject())
	if err != nil {
		return nil // of a later version
	}
	o, err := parse(m.Data())
	if err != nil {
		return nil
	}
	at, from := &f.at.events, f.from.events
	kind := string(sub.Kind)
	switch sub.Kind {
	case bus.KindEvent:
		kind = sub.Name
		o.spread("data")
	case bus.KindReceipt:
	default:
		kind, at, from = "message", &f.at.messages, f.from.messages
		var id string
		_ = json.Unmarshal(o["id"], &id) // a message without an id is shown
		if isNew := f.seen.add(id); !isNew || meta.Sequence.Stream <= from {
			return nil
		}
		o.also(itemNames()).also(map[string]string{"created_at": "received_at"})
	}
	if meta.Sequence.Stream <= from {
		return nil
	}
	*at = meta.Sequence.Stream
	return f.event(kind, o.set("ts", meta.Timestamp.UTC().Format("2006-01-02T15:04:05.000Z07:00")))
}

// spread adds the fields of an object to those beside it, of which none is replaced.
func (o object) spread(name string) {
	inner, err := parse(o[name])
	if err != nil {
		return
	}
	for k, v := range inner {
		if _, taken := o[k]; !taken {
			o[k] = v
		}
	}
}

// event writes one event: its id, its kind, and its data on one line.
func (f *feed) event(kind string, o object) error {
	data, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "id: %s\nevent: %s\ndata: ", f.at, kind)
	if err := json.Compact(&b, data); err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	b.WriteString("\n\n")
	return f.put(b.Bytes())
}

// put writes and sends at once. Who takes nothing within the deadline is cut; nothing piles up for it meanwhile but what the streams keep anyway.
func (f *feed) put(b []byte) error {
	if err := f.out.SetWriteDeadline(time.Now().Add(eventDeadline)); err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	if _, err := f.w.Write(b); err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	if err := f.out.Flush(); err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	return nil
}
