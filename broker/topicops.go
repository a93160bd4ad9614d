package broker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"claudemesh/wire"
)

// noTopic answers a request for a topic that does not exist for the asker. The reference puts the request's id into id by mistake; here it is in both.
func (c *conn) noTopic(ref, reqID string) {
	c.reply(wire.Error{Type: wire.TypeError, Code: wire.CodeTopicNotFound, Message: fmt.Sprintf("topic %q not found", ref), ID: reqID, ReqID: reqID})
}

// look finds a topic, answering for itself when there is none.
func (c *conn) look(ref, reqID string) *topic {
	c.b.mu.RLock()
	t := c.mesh.topicRef(ref, c.member)
	c.b.mu.RUnlock()
	if t == nil {
		c.noTopic(ref, reqID)
	}
	return t
}

// memberOf finds a topic for an operation that is its members' only (see rules), answering for itself when it refuses.
func (c *conn) memberOf(op, ref, reqID string) (*topic, bool) {
	t := c.look(ref, reqID)
	if t == nil {
		return nil, false
	}
	c.b.mu.RLock()
	in := c.mesh.topicRole(t, c.member) != ""
	c.b.mu.RUnlock()
	if no := c.mayTouch(op, in); no != nil {
		c.fail(reqID, no.code, fmt.Sprintf("not a member of topic %q", t.Name))
		return nil, false
	}
	return t, true
}

func (c *conn) topicCreate(data []byte, reqID string) {
	var f wire.TopicCreate
	if !c.decode(data, reqID, &f) {
		return
	}
	c.b.topicWork.Lock()
	defer c.b.topicWork.Unlock()
	c.b.mu.RLock()
	t, full := c.mesh.topicNamed(f.Name), len(c.mesh.topics) >= maxTopicsPerMesh
	c.b.mu.RUnlock()
	switch {
	case t != nil:
		c.topicExists(t, reqID)
	case full:
		c.fail(reqID, wire.CodeLimit, fmt.Sprintf("a mesh has at most %d topics", maxTopicsPerMesh))
	default:
		c.makeTopic(f, reqID)
	}
}

// topicExists answers topic_create for a name in use: the caller joins, as an ordinary member and only where anybody may.
func (c *conn) topicExists(t *topic, reqID string) {
	c.b.mu.RLock()
	in, public := c.mesh.topicRole(t, c.member) != "", t.Visibility == wire.TopicPublic
	c.b.mu.RUnlock()
	switch {
	case !in && !public:
		c.fail(reqID, wire.CodeForbidden, fmt.Sprintf("topic %q is private: a lead of it can invite you", t.Name))
		return
	case !in:
		if err := c.enterTopic(t, c.member, wire.TopicMember); err != nil {
			c.storeFailed(reqID, wire.TypeTopicCreate, err)
			return
		}
	}
	c.b.mu.RLock()
	ref := wire.TopicRef{ID: t.ID, Name: t.Name, Visibility: t.Visibility, Generation: t.Generation}
	c.b.mu.RUnlock()
	c.reply(wire.TopicCreated{Type: wire.TypeTopicCreated, Topic: ref, ReqID: reqID})
}

func (c *conn) makeTopic(f wire.TopicCreate, reqID string) {
	id, err := newID(c.b.cfg.Rand)
	if err != nil {
		c.storeFailed(reqID, wire.TypeTopicCreate, err)
		return
	}
	now, meshID := c.b.now().UnixMilli(), c.mesh.rec.ID
	t := newTopic(topicRecord{ID: id, Name: f.Name, Description: f.Description, Visibility: cmp.Or(f.Visibility, wire.TopicPublic), CreatedAt: now})
	lead := topicMemberRecord{Pubkey: c.member.Pubkey, Role: wire.TopicLead, JoinedAt: now}
	t.members[lead.Pubkey] = lead
	ctx, cancel := c.b.deadline()
	defer cancel()
	// The topic's own record last: without it the others mean nothing.
	if f.Key != nil {
		t.Generation, t.sealed[lead.Pubkey] = 1, true
		keys := topicKeyRecord{At: now, Sealed: map[string]sealedForThem{lead.Pubkey: {SealedKey: *f.Key, By: lead.Pubkey}}}
		err = c.b.store.putRecord(ctx, topicKeyKey(meshID, id, 1), keys)
	}
	if err == nil {
		err = c.b.store.putRecord(ctx, topicMemberKey(meshID, id, lead.Pubkey), lead)
	}
	if err == nil {
		err = c.b.store.createRecord(ctx, topicKey(meshID, id), t.topicRecord)
	}
	if err != nil {
		c.storeFailed(reqID, wire.TypeTopicCreate, err)
		return
	}
	c.b.mu.Lock()
	c.mesh.topics[id] = t
	c.b.mu.Unlock()
	c.reply(wire.TopicCreated{
		Type: wire.TypeTopicCreated, Topic: wire.TopicRef{ID: id, Name: t.Name, Visibility: t.Visibility, Generation: t.Generation}, Created: true, ReqID: reqID,
	})
	c.b.tellTopic(c.mesh, t, wire.EventTopicChanged, c.member, func(pubkey string) bool { return pubkey == lead.Pubkey })
}

// topicList answers with the topics that the member may know of.
func (c *conn) topicList(reqID string) {
	reply := wire.TopicList{Type: wire.TypeTopicListReply, Topics: []wire.Topic{}, ReqID: reqID}
	c.b.mu.RLock()
	for _, t := range c.mesh.topics {
		if c.mesh.mayKnow(t, c.member) {
			reply.Topics = append(reply.Topics, c.topicRow(t))
		}
	}
	c.b.mu.RUnlock()
	slices.SortFunc(reply.Topics, func(a, b wire.Topic) int { return strings.Compare(a.Name, b.Name) })
	c.reply(reply)
}

// topicRow describes a topic to c's member. Called under the lock.
func (c *conn) topicRow(t *topic) wire.Topic {
	row := wire.Topic{
		ID: t.ID, Name: t.Name, Visibility: t.Visibility, MemberCount: len(c.mesh.topicMembers(t)), CreatedAt: wire.Timestamp(unixMilli(t.CreatedAt)),
		Role: c.mesh.topicRole(t, c.member), Generation: t.Generation,
	}
	if t.Description != "" {
		text := t.Description
		row.Description = &text
	}
	if row.Role == "" || t.Generation == 0 {
		return row
	}
	if c.mesh.isLead(t, c.member) {
		row.Role, row.RotationDue = wire.TopicLead, c.mesh.rotationDue(t)
	}
	if row.HasKey = t.sealed[c.member.Pubkey]; row.HasKey {
		row.PendingSeals = len(c.mesh.waiting(t))
	}
	return row
}
