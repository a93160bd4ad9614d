package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/wire"
)

// The history of topics: stream CM_TOPIC, one subject per topic, written by the fan-out in the order of acceptance. A page is cut by post ids, so that no
// post is skipped or shown twice however many were accepted in one millisecond.

const (
	historyTopics = 64        // topics whose order of posts is remembered; of the others it is read again when asked for
	historyBytes  = 384 << 10 // one page, about: the daemon adds the opened texts and must stay within the bus's limit
	postIDHeader  = "Claudemesh-Post"
	postByHeader  = "Claudemesh-Member" // public key of who posted
	redoStretch   = 4096                // posts that the fan-out may have written twice after a crash
)

// historyMsg is a post as it lies in its topic's history.
func historyMsg(rec *accepted) (*nats.Msg, error) {
	data, err := encodePost(rec)
	if err != nil {
		return nil, err
	}
	return &nats.Msg{Subject: historySubject(rec.Mesh, rec.TopicID), Data: data, Header: nats.Header{postIDHeader: {rec.ID}, postByHeader: {rec.MemberPubkey}}}, nil
}

// history knows the order of posts. All of it may be lost at any time: it is read from the stream.
type history struct {
	store *store
	mu    sync.Mutex
	order *simplelru.LRU[string, *order] // by subject
}

// order is the posts of one topic, oldest first, as far as the stream was read.
type order struct {
	mu    sync.Mutex
	last  uint64 // sequence of the stream
	posts []postAt
}

type postAt struct {
	seq uint64
	id  string
	by  string // public key of the member
	at  int64  // Unix milliseconds
}

func newHistory(s *store) *history {
	h := &history{store: s}
	h.order, _ = simplelru.NewLRU[string, *order](historyTopics, nil) // the only error is for a size below one
	return h
}

// of returns a topic's order, locked and up to date; the caller unlocks it.
func (h *history) of(ctx context.Context, subject string) (*order, error) {
	h.mu.Lock()
	o, ok := h.order.Get(subject)
	if !ok {
		o = &order{}
		h.order.Add(subject, o)
	}
	h.mu.Unlock()
	o.mu.Lock()
	for {
		msg, err := h.store.topics.GetMsg(ctx, o.last+1, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return o, nil
		}
		if err != nil {
			o.mu.Unlock()
			return nil, fmt.Errorf("read history: %w", err)
		}
		o.add(postAt{msg.Sequence, msg.Header.Get(postIDHeader), msg.Header.Get(postByHeader), msg.Time.UnixMilli()})
	}
}

func (o *order) add(p postAt) {
	o.last = p.seq
	recent := o.posts[max(0, len(o.posts)-redoStretch):]
	if slices.ContainsFunc(recent, func(q postAt) bool { return q.id == p.id }) {
		return
	}
	o.posts = append(o.posts, p)
	if len(o.posts) > maxTopicHistory+redoStretch {
		o.posts = slices.Clone(o.posts[redoStretch:])
	}
}

// find is the place of a post, -1 when it is not there.
func (o *order) find(id string) int {
	return slices.IndexFunc(o.posts, func(p postAt) bool { return p.id == id })
}

// has reports whether a topic has that post. A store that does not answer has none.
func (h *history) has(ctx context.Context, meshID, topicID, id string) bool {
	o, err := h.of(ctx, historySubject(meshID, topicID))
	if err != nil {
		return false
	}
	defer o.mu.Unlock()
	return o.find(id) >= 0
}

// unread counts the posts of others than that member since a time, in Unix milliseconds.
func (h *history) unread(ctx context.Context, subject string, since int64, member string) (n int, err error) {
	o, err := h.of(ctx, subject)
	if err != nil {
		return 0, err
	}
	defer o.mu.Unlock()
	for i := len(o.posts) - 1; i >= 0 && o.posts[i].at > since; i-- {
		if o.posts[i].by != member {
			n++
		}
	}
	return n, nil
}

var errNoPost = errors.New("no such post in this topic")

// page returns at most limit posts, newest first: those before the one named, or the newest. more says that there are older ones. Error: errNoPost, or the
// store's.
func (h *history) page(ctx context.Context, subject, before string, limit int) (page []*accepted, more bool, err error) {
	o, err := h.of(ctx, subject)
	if err != nil {
		return nil, false, err
	}
	end := len(o.posts)
	if before != "" {
		if end = o.find(before); end < 0 {
			o.mu.Unlock()
			return nil, false, errNoPost
		}
	}
	posts := slices.Clone(o.posts[:end])
	o.mu.Unlock()
	size := 0
	for i := len(posts) - 1; i >= 0; i-- {
		if len(page) == limit || size >= historyBytes {
			return page, true, nil
		}
		msg, err := h.store.topics.GetMsg(ctx, posts[i].seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return page, false, nil // it and all before it have made way
		}
		if err != nil {
			return nil, false, fmt.Errorf("read history: %w", err)
		}
		rec, err := decodeAccepted(msg)
		if err != nil {
			continue // one that cannot be read hides no other
		}
		page, size = append(page, rec), size+len(msg.Data)
	}
	return page, false, nil
}

func (c *conn) topicHistory(data []byte, reqID string) {
	var f wire.TopicHistory
	if !c.decode(data, reqID, &f) {
		return
	}
	t, ok := c.memberOf(wire.TypeTopicHistory, f.Topic, reqID)
	if !ok {
		return
	}
	limit := 50
	if f.Limit != 0 {
		limit = min(max(f.Limit, 1), wire.MaxTopicPage)
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	err := c.b.fan.caughtUp(ctx)
	var page []*accepted
	var more bool
	if err == nil {
		page, more, err = c.b.history.page(ctx, historySubject(c.mesh.rec.ID, t.ID), f.BeforeID, limit)
	}
	switch {
	case errors.Is(err, errNoPost):
		c.fail(reqID, wire.CodeNotFound, "beforeId is no post of this topic, or one that has made way for newer ones")
		return
	case err != nil:
		c.storeFailed(reqID, wire.TypeTopicHistory, err)
		return
	}
	reply := wire.TopicHistoryPage{Type: wire.TypeTopicHistoryReply, Topic: f.Topic, Messages: make([]wire.TopicPost, 0, len(page)), HasMore: more, ReqID: reqID}
	for _, rec := range page {
		reply.Messages = append(reply.Messages, rec.post())
	}
	c.reply(reply)
}

// post is a row of a topic's history.
func (a *accepted) post() wire.TopicPost {
	p := wire.TopicPost{
		ID: a.ID, SenderPubkey: a.SessionKey, SenderMemberID: a.MemberID, SenderName: a.MemberName, Nonce: a.Nonce, Ciphertext: a.Ciphertext,
		BodyVersion: a.BodyVersion, ReplyToID: a.ReplyTo, CreatedAt: wire.Timestamp(unixMilli(a.At)),
	}
	if p.SenderPubkey == "" {
		p.SenderPubkey = a.MemberPubkey
	}
	if a.Name != a.MemberName {
		p.SentAs = a.Name
	}
	return p
}
