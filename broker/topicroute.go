package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"claudemesh/wire"
)

// Posts on their way in.

// routePost fills in the mailboxes of a post, after checking that its sender may make it.
func (c *conn) routePost(ctx context.Context, rec *accepted) *refusal {
	ref := rec.Target[1:]
	c.b.mu.RLock()
	t := c.mesh.topicRef(ref, c.member)
	if t == nil {
		c.b.mu.RUnlock()
		return refused(wire.AckNotFound, fmt.Sprintf("not_found: no topic %.64q", ref))
	}
	role, name, to := c.mesh.topicRole(t, c.member), c.member.Name, c.mesh.audience(t, c.member)
	rec.Topic, rec.TopicID = t.Name, t.ID
	c.b.mu.RUnlock()
	switch {
	case role == "":
		return refused(wire.AckForbidden, fmt.Sprintf("forbidden: not a member of topic %.64q", rec.Topic))
	case role == wire.TopicObserver:
		return refused(wire.AckForbidden, fmt.Sprintf("forbidden: an observer of topic %.64q does not post to it", rec.Topic))
	case rec.BodyVersion < 0 || rec.BodyVersion > wire.BodySealed:
		return refused(wire.AckInvalid, "invalid: bodyVersion must be 1 or 2")
	}
	rec.Target, rec.MemberName, rec.BodyVersion, rec.Multicast = "#"+rec.TopicID, name, max(rec.BodyVersion, wire.BodyPlain), true
	if rec.ReplyTo != "" && !c.b.isPost(ctx, rec.Mesh, rec.TopicID, rec.ReplyTo) {
		rec.ReplyTo = "" // as the reference does with what is no post of this topic
	}
	depth := c.b.lim.MailboxDepth
	rec.To = slices.DeleteFunc(to, func(key string) bool { return c.b.store.full(ctx, mailSubject(rec.Mesh, key), depth) })
	return nil
}

// isPost reports whether a topic has that post. One that was accepted just now may not be in the history yet, an old one is there only.
func (b *Broker) isPost(ctx context.Context, meshID, topicID, id string) bool {
	if !validID(id) {
		return false
	}
	if rec, err := b.store.recordByID(ctx, meshID, id); err == nil {
		return rec.TopicID == topicID
	}
	return b.history.has(ctx, meshID, topicID, id)
}

// encodePost is a post as it lies in the history: without its mailboxes.
func encodePost(rec *accepted) ([]byte, error) {
	data, err := json.Marshal(struct {
		*accepted
		To []string `json:"to,omitempty"` // hides the record's own
	}{accepted: rec})
	if err != nil {
		return nil, fmt.Errorf("encode post: %w", err)
	}
	return data, nil
}
