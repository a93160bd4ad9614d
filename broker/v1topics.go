package broker

import (
	"errors"
	"net/http"
	"strconv"

	"claudemesh/wire"
)

// The REST API's routes for topics. Each is the operation of the WebSocket of the same name, in other clothes. Topics are named by their names; a key that is
// limited to some reaches no other.

const (
	routeV1Post    = "POST /api/v1/messages"
	routeV1Topics  = "GET /api/v1/topics"
	routeV1History = "GET /api/v1/topics/{name}/messages"
	routeV1Read    = "PATCH /api/v1/topics/{name}/read"
	routeV1Key     = "GET /api/v1/topics/{name}/key"
	routeV1Stream  = "GET /api/v1/topics/{name}/stream"
)

// v1Topic is a row of GET /api/v1/topics. Unread are the posts of others since the member last read the topic, as far as they are kept.
type v1Topic struct {
	ID          string  `json:"id"`
	Name        string  `json:"name"`
	Description *string `json:"description"`
	Visibility  string  `json:"visibility"`
	CreatedAt   string  `json:"createdAt"`
	Unread      int     `json:"unread"`
}

// v1Message is a post as the REST API shows it. SenderPubkey is the member's.
type v1Message struct {
	ID             string  `json:"id"`
	SenderMemberID string  `json:"senderMemberId"`
	SenderPubkey   string  `json:"senderPubkey"`
	SenderName     string  `json:"senderName"`
	Nonce          string  `json:"nonce"`
	Ciphertext     string  `json:"ciphertext"`
	BodyVersion    int     `json:"bodyVersion"`
	ReplyToID      *string `json:"replyToId"`
	CreatedAt      string  `json:"createdAt"`
}

func (a *accepted) v1() v1Message {
	m := v1Message{
		ID: a.ID, SenderMemberID: a.MemberID, SenderPubkey: a.MemberPubkey, SenderName: a.MemberName, Nonce: a.Nonce, Ciphertext: a.Ciphertext,
		BodyVersion: a.BodyVersion, CreatedAt: wire.Timestamp(unixMilli(a.At)),
	}
	if a.ReplyTo != "" {
		m.ReplyToID = &a.ReplyTo
	}
	return m
}

// v1TopicOf finds the topic of a request, if the key reaches it and its member may know of it. It answers for itself when not.
func (b *Broker) v1TopicOf(w http.ResponseWriter, r *http.Request, who keyCaller, name string) (id string, ok bool) {
	b.mu.RLock()
	t := who.mesh.topicNamed(name)
	known := t != nil && who.mesh.mayKnow(t, who.member)
	if known {
		id = t.ID
	}
	b.mu.RUnlock()
	if no := who.inScope(name); no != nil {
		b.refuseKey(w, r, no)
		return "", false
	}
	if !known {
		answer(w, http.StatusNotFound, map[string]any{"error": wire.CodeTopicNotFound, "topic": name})
		return "", false
	}
	return id, true
}

func (b *Broker) v1Topics(w http.ResponseWriter, r *http.Request, who keyCaller) {
	var list wire.TopicList
	if err := b.agentOf(who).ask(wire.TypeTopicList, nil, &list); err != nil {
		b.v1Fail(w, r, err)
		return
	}
	rows := []v1Topic{}
	ctx, cancel := b.deadline()
	defer cancel()
	if err := b.fan.caughtUp(ctx); err != nil {
		b.v1Fail(w, r, err)
		return
	}
	for _, t := range list.Topics {
		if who.inScope(t.Name) != nil {
			continue
		}
		row := v1Topic{ID: t.ID, Name: t.Name, Description: t.Description, Visibility: t.Visibility, CreatedAt: t.CreatedAt}
		if t.Role != "" {
			b.mu.RLock()
			var since int64
			if live := who.mesh.topics[t.ID]; live != nil {
				rec := live.members[who.member.Pubkey]
				since = max(rec.LastReadAt, rec.JoinedAt, who.member.JoinedAt)
			}
			b.mu.RUnlock()
			var err error
			if row.Unread, err = b.history.unread(ctx, historySubject(who.mesh.rec.ID, t.ID), since, who.member.Pubkey); err != nil {
				b.v1Fail(w, r, err)
				return
			}
		}
		rows = append(rows, row)
	}
	answer(w, http.StatusOK, map[string]any{"topics": rows})
}

func (b *Broker) v1History(w http.ResponseWriter, r *http.Request, who keyCaller) {
	name := r.PathValue("name")
	id, ok := b.v1TopicOf(w, r, who, name)
	if !ok {
		return
	}
	limit := 50
	if s := r.URL.Query().Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			b.v1Fail(w, r, refused(wire.CodeInvalid, "limit must be a number from 1 to "+strconv.Itoa(wire.MaxTopicPage)))
			return
		}
		limit = min(max(n, 1), wire.MaxTopicPage)
	}
	if no := b.v1Inside(who, id); no != nil {
		b.v1Fail(w, r, no)
		return
	}
	ctx, cancel := b.deadline()
	defer cancel()
	err := b.fan.caughtUp(ctx)
	var page []*accepted
	if err == nil {
		page, _, err = b.history.page(ctx, historySubject(who.mesh.rec.ID, id), r.URL.Query().Get("before"), limit)
	}
	switch {
	case errors.Is(err, errNoPost):
		err = refused(wire.CodeNotFound, "before is no post of this topic, or one that has made way for newer ones")
		fallthrough
	case err != nil:
		b.v1Fail(w, r, err)
		return
	}
	posts := make([]v1Message, 0, len(page))
	for _, rec := range page {
		posts = append(posts, rec.v1())
	}
	answer(w, http.StatusOK, map[string]any{"topic": name, "topicId": id, "messages": posts})
}

// v1Inside checks that the member belongs to a topic, by the table's row for reading it.
func (b *Broker) v1Inside(who keyCaller, topicID string) error {
	b.mu.RLock()
	t := who.mesh.topics[topicID]
	in := t != nil && who.mesh.topicRole(t, who.member) != ""
	b.mu.RUnlock()
	if no := who.allowed(wire.TypeTopicHistory, in); no != nil {
		return refused(no.code, "not a member of the topic")
	}
	return nil
}

func (b *Broker) v1Read(w http.ResponseWriter, r *http.Request, who keyCaller) {
	name := r.PathValue("name")
	id, ok := b.v1TopicOf(w, r, who, name)
	if !ok {
		return
	}
	if err := b.agentOf(who).ask(wire.TypeTopicMarkRead, map[string]any{"topic": id}, nil); err != nil {
		b.v1Fail(w, r, err)
		return
	}
	answer(w, http.StatusOK, map[string]any{"topic": name, "topicId": id, "readAt": wire.Timestamp(b.now())})
}

func (b *Broker) v1Key(w http.ResponseWriter, r *http.Request, who keyCaller) {
	name := r.PathValue("name")
	id, ok := b.v1TopicOf(w, r, who, name)
	if !ok {
		return
	}
	var key wire.TopicKey
	if err := b.agentOf(who).ask(wire.TypeTopicKey, map[string]any{"topic": id}, &key); err != nil {
		b.v1Fail(w, r, err)
		return
	}
	answer(w, http.StatusOK, map[string]any{
		"topic": name, "topicId": id, "encryptedKey": key.EncryptedKey, "nonce": key.Nonce, "senderPubkey": key.SenderPubkey, "createdAt": key.CreatedAt,
		"generation": key.Generation,
	})
}

// v1Posting is the body of POST /api/v1/messages. ClientMessageID, ours, makes a repetition harmless.
type v1Posting struct {
	Topic           string   `json:"topic"`
	Ciphertext      string   `json:"ciphertext"`
	Nonce           string   `json:"nonce"`
	Priority        string   `json:"priority"`
	BodyVersion     int      `json:"bodyVersion"`
	Mentions        []string `json:"mentions"`
	ReplyToID       string   `json:"replyToId"`
	ClientMessageID string   `json:"client_message_id"`
}

const (
	maxMentions  = 16
	maxReplyToID = 128
)

func (p v1Posting) check() *refusal {
	switch {
	case p.Topic == "", p.Ciphertext == "":
		return refused(wire.CodeInvalid, "topic and ciphertext required")
	case len(p.Topic) > wire.MaxNameBytes:
		return refused(wire.CodeInvalid, "topic is too long")
	case len(p.Mentions) > maxMentions:
		return refused(wire.CodeInvalid, "at most 16 mentions")
	case len(p.ReplyToID) > maxReplyToID:
		return refused(wire.CodeInvalid, "replyToId is too long")
	}
	return nil
}

func (b *Broker) v1Post(w http.ResponseWriter, r *http.Request, who keyCaller) {
	var p v1Posting
	if status, problem := readPost(w, r, &p); problem != "" {
		b.refuseKey(w, r, &keyRefusal{status, "error.invalid", problem})
		return
	}
	if no := p.check(); no != nil {
		b.v1Fail(w, r, no)
		return
	}
	id, ok := b.v1TopicOf(w, r, who, p.Topic)
	if !ok {
		return
	}
	if p.Priority == "" {
		p.Priority = wire.PriorityNext
	}
	rec, no := b.agentOf(who).post(wire.Send{
		TargetSpec: "#" + id, Priority: p.Priority, Nonce: p.Nonce, Ciphertext: p.Ciphertext, ClientMessageID: p.ClientMessageID, ReplyToID: p.ReplyToID,
		Mentions: p.Mentions, BodyVersion: p.BodyVersion,
	})
	if no != nil {
		b.v1Fail(w, r, no)
		return
	}
	out := map[string]any{
		"messageId": rec.ID, "historyId": rec.ID, "queueId": rec.ID, "topic": p.Topic, "topicId": id, "notifications": 0, "bodyVersion": rec.BodyVersion,
	}
	if rec.ReplyTo != "" {
		out["replyToId"] = rec.ReplyTo
	}
	answer(w, http.StatusOK, out)
}
