package broker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"claudemesh/wire"
)

// Coming, going and reading.

func (c *conn) topicJoin(data []byte, reqID string) {
	var f wire.TopicJoin
	if !c.decode(data, reqID, &f) {
		return
	}
	c.b.topicWork.Lock()
	defer c.b.topicWork.Unlock()
	t := c.look(f.Topic, reqID)
	if t == nil {
		return
	}
	who := c.member
	c.b.mu.RLock()
	if f.MemberID != "" {
		who = c.mesh.memberRef(f.MemberID)
	}
	lead, role := c.mesh.isLead(t, c.member), c.mesh.topicRole(t, who)
	c.b.mu.RUnlock()
	free := who == c.member && t.Visibility == wire.TopicPublic && f.Role != wire.TopicLead
	switch no := c.mayTouch(wire.TypeTopicJoin, free || lead); {
	case role != "" && (f.Role == "" || f.Role == role || who == c.member && !lead): // a member already; its role is a lead's to change
		c.done(reqID)
		return
	case no != nil:
		c.fail(reqID, no.code, fmt.Sprintf("only a lead of topic %q may invite, or name leads", t.Name))
		return
	case who == nil:
		c.fail(reqID, wire.CodeNotFound, "no such member in this mesh")
		return
	}
	if err := c.enterTopic(t, who, cmp.Or(f.Role, wire.TopicMember)); err != nil {
		c.storeFailed(reqID, wire.TypeTopicJoin, err)
		return
	}
	c.done(reqID)
}

// enterTopic makes who a member of t, or changes its role there, and asks those who have the key to seal it. topicWork is held.
func (c *conn) enterTopic(t *topic, who *member, role string) error {
	c.b.mu.RLock()
	rec, known := t.members[who.Pubkey]
	c.b.mu.RUnlock()
	if !known || rec.LeftAt != 0 {
		rec = topicMemberRecord{Pubkey: who.Pubkey, JoinedAt: c.b.now().UnixMilli(), LastReadAt: rec.LastReadAt}
	}
	rec.Role = role
	if err := c.keepMembership(t, rec); err != nil {
		return err
	}
	c.b.mu.RLock()
	waits := t.Generation > 0 && !t.sealed[who.Pubkey]
	holders := make(map[string]bool, len(t.sealed))
	for pubkey := range t.sealed {
		holders[pubkey] = c.mesh.topicRole(t, c.mesh.members[pubkey]) != ""
	}
	c.b.mu.RUnlock()
	if waits {
		c.b.tellTopic(c.mesh, t, wire.EventTopicSealNeeded, who, func(pubkey string) bool { return holders[pubkey] })
	}
	c.b.tellTopic(c.mesh, t, wire.EventTopicChanged, who, func(pubkey string) bool { return pubkey == who.Pubkey })
	return nil
}

// keepMembership stores a membership, then believes it.
func (c *conn) keepMembership(t *topic, rec topicMemberRecord) error {
	ctx, cancel := c.b.deadline()
	defer cancel()
	if err := c.b.store.putRecord(ctx, topicMemberKey(c.mesh.rec.ID, t.ID, rec.Pubkey), rec); err != nil {
		return err
	}
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	t.members[rec.Pubkey] = rec
	return nil
}

// topicLeave ends the caller's membership, or, for a lead, that of another member.
func (c *conn) topicLeave(data []byte, reqID string) {
	var f wire.TopicLeave
	if !c.decode(data, reqID, &f) {
		return
	}
	c.b.topicWork.Lock()
	defer c.b.topicWork.Unlock()
	t := c.look(f.Topic, reqID)
	if t == nil {
		return
	}
	who := c.member
	c.b.mu.RLock()
	if f.MemberID != "" {
		who = c.mesh.memberRef(f.MemberID)
	}
	mine := who == c.member || c.mesh.isLead(t, c.member)
	in := c.mesh.topicRole(t, who) != ""
	c.b.mu.RUnlock()
	if no := c.mayTouch(wire.TypeTopicLeave, mine); no != nil {
		c.fail(reqID, no.code, fmt.Sprintf("only a lead of topic %q may remove others", t.Name))
		return
	}
	if !in {
		c.done(reqID)
		return
	}
	// Remembered as left: where everyone belongs, no record would mean a member.
	c.b.mu.RLock()
	rec := t.members[who.Pubkey]
	c.b.mu.RUnlock()
	rec.Pubkey, rec.LeftAt = who.Pubkey, c.b.now().UnixMilli()
	if err := c.keepMembership(t, rec); err != nil {
		c.storeFailed(reqID, wire.TypeTopicLeave, err)
		return
	}
	c.done(reqID)
	c.b.tellTopic(c.mesh, t, wire.EventTopicChanged, who, func(pubkey string) bool { return pubkey == who.Pubkey })
	c.b.vacated(c.mesh, t, who)
}

// topicMembers answers with the members of a topic: to everybody of a public one, of the others to its members and the mesh's admins.
func (c *conn) topicMembers(data []byte, reqID string) {
	var f wire.TopicRequest
	if !c.decode(data, reqID, &f) {
		return
	}
	t := c.look(f.Topic, reqID)
	if t == nil {
		return
	}
	reply := wire.TopicMembers{Type: wire.TypeTopicMembersReply, Topic: f.Topic, Members: []wire.TopicMembership{}, ReqID: reqID}
	c.b.mu.RLock()
	in := t.Visibility == wire.TopicPublic || c.mesh.topicRole(t, c.member) != ""
	for _, rec := range c.mesh.topicMembers(t) {
		who := c.mesh.members[rec.Pubkey]
		row := wire.TopicMembership{MemberID: who.ID, Pubkey: rec.Pubkey, DisplayName: who.Name, Role: rec.Role, JoinedAt: wire.Timestamp(unixMilli(rec.JoinedAt))}
		if rec.LastReadAt != 0 {
			at := wire.Timestamp(unixMilli(rec.LastReadAt))
			row.LastReadAt = &at
		}
		reply.Members = append(reply.Members, row)
	}
	c.b.mu.RUnlock()
	if no := c.mayTouch(wire.TypeTopicMembers, in); no != nil {
		c.fail(reqID, no.code, no.message)
		return
	}
	slices.SortStableFunc(reply.Members, func(a, b wire.TopicMembership) int { return strings.Compare(a.DisplayName, b.DisplayName) })
	c.reply(reply)
}

func (c *conn) topicMarkRead(data []byte, reqID string) {
	var f wire.TopicRequest
	if !c.decode(data, reqID, &f) {
		return
	}
	c.b.topicWork.Lock()
	defer c.b.topicWork.Unlock()
	t, ok := c.memberOf(wire.TypeTopicMarkRead, f.Topic, reqID)
	if !ok {
		return
	}
	c.b.mu.RLock()
	rec, known := t.members[c.member.Pubkey]
	if !known {
		rec = topicMemberRecord{Pubkey: c.member.Pubkey, Role: c.mesh.topicRole(t, c.member), JoinedAt: max(c.member.JoinedAt, t.CreatedAt)}
	}
	c.b.mu.RUnlock()
	rec.LastReadAt = c.b.now().UnixMilli()
	if err := c.keepMembership(t, rec); err != nil {
		c.storeFailed(reqID, wire.TypeTopicMarkRead, err)
		return
	}
	c.done(reqID)
}
