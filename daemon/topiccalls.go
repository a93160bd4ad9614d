package daemon

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// The calls about topics that need keys or names, which the broker does not have. The others are carried as they are.

// topicCall answers one; self is the caller's key.
type topicCall func(t *topics, ctx context.Context, c *bus.Call, self string) (any, error)

var topicCalls = map[string]topicCall{
	bus.CallTopicCreate: (*topics).create, bus.CallTopicJoin: (*topics).join, bus.CallTopicLeave: (*topics).leave, bus.CallTopicHistory: (*topics).history,
	bus.CallTopicSearch: (*topics).search, bus.CallTopicRotate: (*topics).rotate,
}

// create makes a topic with a key from the start. A reference broker makes a key itself, and shows it to nobody over this way: its topics are posted to in
// clear, unless it hands the sealed key out after all.
func (t *topics) create(ctx context.Context, c *bus.Call, _ string) (any, error) {
	var req bus.TopicCreate
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	ask := wire.TopicCreate{Name: strings.TrimPrefix(req.Name, "#"), Description: req.Description, Visibility: req.Visibility}
	var key mesh.TopicKey
	if t.keeps() {
		var err error
		if key, err = mesh.NewTopicKey(t.m.d.opt.Rand); err != nil {
			return nil, err
		}
		sealed, err := t.sealed(key, t.m.joined.Pubkey)
		if err != nil {
			return nil, fmt.Errorf("seal topic key: %w", err)
		}
		ask.Key = &sealed
	}
	var made wire.TopicCreated
	if err := t.askOver(ctx, t.m.d.linkOf(ctx, c.Actor, t.m), wire.TypeTopicCreate, ask, &made); err != nil {
		return nil, err
	}
	switch {
	case made.Created && ask.Key != nil:
		t.remember(made.Topic.ID, 1, key)
	case made.Topic.EncryptedKey != "":
		if key, err := t.opened(made.Topic.EncryptedKey, made.Topic.Nonce); err == nil {
			t.remember(made.Topic.ID, cmp.Or(made.Topic.Generation, 1), key)
		}
	}
	if _, err := t.list(ctx); err != nil {
		return nil, err
	}
	t.refresh()
	return bus.TopicCreated{ID: made.Topic.ID, Name: made.Topic.Name, Visibility: made.Topic.Visibility, Created: made.Created, Sealed: made.Topic.Generation > 0}, nil
}

// memberKey finds the member that a caller names: by the key, name or prefix of one of its connections, or by its own.
func (t *topics) memberKey(ctx context.Context, name, self string) (string, error) {
	target, err := mesh.ParseTarget(name)
	if err != nil || target.SendKind() != bus.SendDM {
		return "", &bus.APIError{Code: 400, Reason: "bad_target", Detail: "a member is meant by its name, its key or the beginning of it"}
	}
	peer, settled, err := t.m.roster.resolve(ctx, target, self)
	switch {
	case err == nil:
		return cmp.Or(peer.MemberKey, peer.Key), nil
	case !settled:
		return "", t.m.down()
	}
	return "", targetError(err)
}

func (t *topics) join(ctx context.Context, c *bus.Call, self string) (any, error) {
	var req bus.TopicJoin
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	ask := wire.TopicJoin{Topic: strings.TrimPrefix(req.Topic, "#"), Role: req.Role}
	if req.Member != "" {
		var err error
		if ask.MemberID, err = t.memberKey(ctx, req.Member, self); err != nil {
			return nil, err
		}
	}
	return t.change(ctx, c, wire.TypeTopicJoin, ask)
}

func (t *topics) leave(ctx context.Context, c *bus.Call, self string) (any, error) {
	var req bus.TopicLeave
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	ask := wire.TopicLeave{Topic: strings.TrimPrefix(req.Topic, "#")}
	if req.Member != "" {
		var err error
		if ask.MemberID, err = t.memberKey(ctx, req.Member, self); err != nil {
			return nil, err
		}
	}
	return t.change(ctx, c, wire.TypeTopicLeave, ask)
}

// change makes a change of membership, and knows of it before it answers.
func (t *topics) change(ctx context.Context, c *bus.Call, op string, ask any) (any, error) {
	if err := t.askOver(ctx, t.m.d.linkOf(ctx, c.Actor, t.m), op, ask, nil); err != nil {
		return nil, err
	}
	if _, err := t.list(ctx); err != nil {
		return nil, err
	}
	t.refresh()
	return json.RawMessage("{}"), nil
}

// rotate gives a topic its next key, or its first one.
func (t *topics) rotate(ctx context.Context, c *bus.Call, _ string) (any, error) {
	var req bus.TopicRotate
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	if !t.keeps() {
		return nil, &bus.APIError{Code: 501, Reason: "no_topic_keys", Detail: "this broker keeps no keys of topics: posts to it go in clear"}
	}
	t.looking.Lock()
	defer t.looking.Unlock()
	ref := strings.TrimPrefix(req.Topic, "#")
	if _, err := t.list(ctx); err != nil {
		return nil, err
	}
	row, _, err := t.resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	n, err := t.renew(ctx, row)
	if err != nil {
		return nil, err
	}
	if _, err := t.list(ctx); err != nil {
		return nil, err
	}
	return bus.TopicRotated{Topic: row.Name, TopicID: row.ID, Generation: row.Generation + 1, SealedFor: n}, nil
}

// known finds a topic for reading, with its keys if they can be had now. One that is not listed is the broker's to refuse.
func (t *topics) known(ctx context.Context, ref string) wire.Topic {
	for asked := false; ; asked = true {
		row, found, _ := t.find(ref)
		_, has := t.key(row.ID, row.Generation)
		if found && (has || row.Generation == 0) || asked || !t.m.online() {
			return row
		}
		_ = t.look(ctx) // what fails shows as posts without a text
	}
}

func (t *topics) history(ctx context.Context, c *bus.Call, _ string) (any, error) {
	var req bus.TopicHistory
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	req.Topic = strings.TrimPrefix(req.Topic, "#")
	page, id, err := t.page(ctx, c.Actor, req)
	if err != nil {
		return nil, err
	}
	out := bus.TopicPage{Topic: req.Topic, TopicID: id, Messages: []bus.TopicPost{}, HasMore: page.HasMore}
	size := 0
	for _, p := range page.Messages {
		post := t.post(id, p)
		data, err := json.Marshal(post)
		if size += len(data) + 1; err != nil || size > maxListBytes && len(out.Messages) > 0 {
			out.HasMore = true
			break
		}
		out.Messages = append(out.Messages, post)
	}
	return out, nil
}

func (t *topics) page(ctx context.Context, actor string, req bus.TopicHistory) (page wire.TopicHistoryPage, id string, err error) {
	id = t.known(ctx, req.Topic).ID
	link := t.m.d.linkOf(ctx, actor, t.m)
	return page, id, t.askOver(ctx, link, wire.TypeTopicHistory, wire.TopicHistory{Topic: cmp.Or(id, req.Topic), Limit: req.Limit, BeforeID: req.BeforeID}, &page)
}

func (t *topics) post(topicID string, p wire.TopicPost) bus.TopicPost {
	out := bus.TopicPost{
		ID: p.ID, SenderPubkey: p.SenderPubkey, SenderMemberID: p.SenderMemberID, SenderName: printable(p.SenderName), SentAs: printable(p.SentAs), Nonce: p.Nonce,
		Ciphertext: p.Ciphertext, BodyVersion: p.BodyVersion, ReplyToID: p.ReplyToID, CreatedAt: p.CreatedAt,
	}
	text, reason := t.postText(topicID, p)
	if out.Reason = reason; reason == "" {
		out.Message = &text
	}
	return out
}

// searchDepth is how many posts one search looks at.
const searchDepth = 2000

// search opens the newest posts and looks into them: the broker cannot search what it cannot read.
func (t *topics) search(ctx context.Context, c *bus.Call, _ string) (any, error) {
	var req bus.TopicSearch
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	words := strings.Fields(strings.ToLower(req.Query))
	if len(words) == 0 {
		return nil, &bus.APIError{Code: 400, Reason: "bad_request", Detail: "a search needs at least one word"}
	}
	limit := min(cmp.Or(max(req.Limit, 0), 50), wire.MaxTopicPage)
	ask := bus.TopicHistory{Topic: strings.TrimPrefix(req.Topic, "#"), Limit: wire.MaxTopicPage}
	out := bus.TopicFound{Topic: ask.Topic, Messages: []bus.TopicPost{}}
	for size := 0; ; {
		page, id, err := t.page(ctx, c.Actor, ask)
		if err != nil {
			return nil, err
		}
		out.TopicID = id
		for _, p := range page.Messages {
			if len(out.Messages) == limit || out.Searched == searchDepth || size > maxListBytes/2 {
				out.HasMore = true
				return out, nil
			}
			out.Searched++
			if post := t.post(id, p); post.Message != nil && holdsAll(*post.Message, words) {
				out.Messages, size = append(out.Messages, post), size+len(p.Ciphertext)+len(*post.Message)
			}
			ask.BeforeID = p.ID
		}
		if !page.HasMore || len(page.Messages) == 0 {
			return out, nil
		}
	}
}

// holdsAll reports whether a text holds every one of words, which are in lower case.
func holdsAll(text string, words []string) bool {
	text = strings.ToLower(text)
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

func decodePost(p wire.TopicPost) (body, nonce []byte, err error) {
	body, err = base64.StdEncoding.DecodeString(p.Ciphertext)
	nonce, nonceErr := base64.StdEncoding.DecodeString(p.Nonce)
	return body, nonce, errors.Join(err, nonceErr)
}
