package broker

import (
	"context"
	"errors"
	"fmt"

	"claudemesh/wire"
)

// The keys of topics. A member makes one, seals it for each member, and the broker hands each its own. Whoever has the newest one may seal it for those who
// wait; only a lead makes a new one. Old generations stay with those they were sealed for, so that they can read the posts of their time.

const maxPending = 50 // rows of one topic_pending_seals_response, as the reference has it

func (c *conn) topicKey(data []byte, reqID string) {
	var f wire.TopicRequest
	if !c.decode(data, reqID, &f) {
		return
	}
	t, ok := c.memberOf(wire.TypeTopicKey, f.Topic, reqID)
	if !ok {
		return
	}
	c.b.mu.RLock()
	newest, id := t.Generation, t.ID
	c.b.mu.RUnlock()
	if newest == 0 {
		c.fail(reqID, wire.CodeTopicUnencrypted, fmt.Sprintf("topic %q has no key", t.Name))
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	reply := wire.TopicKey{Type: wire.TypeTopicKeyReply, Topic: f.Topic, TopicID: id, ReqID: reqID}
	for generation := newest; generation > max(0, newest-wire.MaxTopicGenerations); generation-- {
		keys, err := getRecord[topicKeyRecord](ctx, c.b.store, topicKeyKey(c.mesh.rec.ID, id, generation))
		if errors.Is(err, errNoRecord) {
			continue
		}
		if err != nil {
			c.storeFailed(reqID, wire.TypeTopicKey, err)
			return
		}
		own, has := keys.Value.Sealed[c.member.Pubkey]
		switch {
		case !has:
		case reply.Generation == 0:
			reply.Generation, reply.EncryptedKey, reply.Nonce, reply.SenderPubkey = generation, own.EncryptedKey, own.Nonce, own.By
			reply.CreatedAt = wire.Timestamp(unixMilli(keys.Value.At))
		default:
			reply.Older = append(reply.Older, wire.TopicKeyOfPast{Generation: generation, EncryptedKey: own.EncryptedKey, Nonce: own.Nonce})
		}
	}
	if reply.Generation == 0 {
		c.fail(reqID, wire.CodeKeyNotSealed, fmt.Sprintf("nobody has sealed the key of topic %q for you yet", t.Name))
		return
	}
	c.reply(reply)
}

// topicSeal takes the newest key sealed for a member. One that is there already stays: it cannot be known which of two is right, and a lead who doubts makes
// a new key.
func (c *conn) topicSeal(data []byte, reqID string) {
	var f wire.TopicSeal
	if !c.decode(data, reqID, &f) {
		return
	}
	c.b.topicWork.Lock()
	defer c.b.topicWork.Unlock()
	t, ok := c.memberOf(wire.TypeTopicSeal, f.Topic, reqID)
	if !ok {
		return
	}
	c.b.mu.RLock()
	who := c.mesh.memberRef(f.MemberID)
	in, holds, generation, full := c.mesh.topicRole(t, who) != "", t.sealed[c.member.Pubkey], t.Generation, len(t.sealed) >= wire.MaxTopicKeys
	c.b.mu.RUnlock()
	switch no := c.mayTouch(wire.TypeTopicSeal, holds); {
	case generation == 0:
		c.fail(reqID, wire.CodeTopicUnencrypted, fmt.Sprintf("topic %q has no key", t.Name))
		return
	case no != nil:
		c.fail(reqID, no.code, fmt.Sprintf("the newest key of topic %q is not sealed for you: you cannot pass it on", t.Name))
		return
	case f.Generation != 0 && f.Generation != generation:
		c.fail(reqID, wire.CodeTopicKeyMoved, fmt.Sprintf("the newest key of topic %q is that of generation %d", t.Name, generation))
		return
	case !in:
		c.fail(reqID, wire.CodeNotInTopic, "that is no member of the topic")
		return
	case full:
		c.fail(reqID, wire.CodeLimit, fmt.Sprintf("the key of a topic is sealed for at most %d members", wire.MaxTopicKeys))
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	key := topicKeyKey(c.mesh.rec.ID, t.ID, generation)
	keys, err := getRecord[topicKeyRecord](ctx, c.b.store, key)
	if err == nil && keys.Value.Sealed[who.Pubkey].EncryptedKey == "" {
		keys.Value.Sealed[who.Pubkey] = sealedForThem{SealedKey: f.SealedKey, By: c.member.Pubkey}
		err = c.b.store.updateRecord(ctx, key, keys.Value, keys.Revision)
	}
	if err != nil {
		c.storeFailed(reqID, wire.TypeTopicSeal, err)
		return
	}
	c.b.mu.Lock()
	t.sealed[who.Pubkey] = true
	c.b.mu.Unlock()
	c.reply(wire.TopicSealed{
		Type: wire.TypeTopicSealed, Topic: f.Topic, TopicID: t.ID, MemberID: who.ID, Generation: generation, SealedAt: wire.Timestamp(c.b.now()), ReqID: reqID,
	})
	c.b.tellTopic(c.mesh, t, wire.EventTopicChanged, who, func(pubkey string) bool { return pubkey == who.Pubkey })
}

func (c *conn) topicPendingSeals(data []byte, reqID string) {
	var f wire.TopicRequest
	if !c.decode(data, reqID, &f) {
		return
	}
	t, ok := c.memberOf(wire.TypeTopicPendingSeals, f.Topic, reqID)
	if !ok {
		return
	}
	c.b.mu.RLock()
	reply := wire.TopicPending{Type: wire.TypeTopicPendingReply, Topic: f.Topic, TopicID: t.ID, Generation: t.Generation, Pending: []wire.TopicPendingMember{}, ReqID: reqID}
	for _, who := range c.mesh.waiting(t) {
		if len(reply.Pending) < maxPending {
			reply.Pending = append(reply.Pending, wire.TopicPendingMember{MemberID: who.ID, Pubkey: who.Pubkey, DisplayName: who.Name})
		}
	}
	c.b.mu.RUnlock()
	c.reply(reply)
}

// topicRotate gives a topic its next key. The first one may be given by any member who posts, the others by leads. Keys sealed for who is no member are
// left out; members that are left out wait for somebody to seal it for them.
func (c *conn) topicRotate(data []byte, reqID string) {
	var f wire.TopicRotate
	if !c.decode(data, reqID, &f) {
		return
	}
	c.b.topicWork.Lock()
	defer c.b.topicWork.Unlock()
	t, ok := c.memberOf(wire.TypeTopicRotate, f.Topic, reqID)
	if !ok {
		return
	}
	c.b.mu.RLock()
	rec, lead, posts := t.topicRecord, c.mesh.isLead(t, c.member), c.mesh.topicRole(t, c.member) != wire.TopicObserver
	byID := map[string]string{}
	for _, m := range c.mesh.topicMembers(t) {
		byID[c.mesh.members[m.Pubkey].ID] = m.Pubkey
	}
	c.b.mu.RUnlock()
	switch no := c.mayTouch(wire.TypeTopicRotate, lead || rec.Generation == 0 && posts); {
	case no != nil:
		c.fail(reqID, no.code, fmt.Sprintf("only a lead of topic %q may make a new key", rec.Name))
		return
	case f.Generation != rec.Generation+1:
		c.fail(reqID, wire.CodeTopicKeyMoved, fmt.Sprintf("the newest key of topic %q is that of generation %d", rec.Name, rec.Generation))
		return
	}
	keys := topicKeyRecord{At: c.b.now().UnixMilli(), Sealed: map[string]sealedForThem{}}
	for _, k := range f.Keys {
		if pubkey, in := byID[k.MemberID]; in {
			keys.Sealed[pubkey] = sealedForThem{SealedKey: k.SealedKey, By: c.member.Pubkey}
		}
	}
	if _, own := keys.Sealed[c.member.Pubkey]; !own {
		c.fail(reqID, wire.CodeInvalid, "a new key must be sealed for its maker, too: nobody else could pass it on")
		return
	}
	rec.Generation = f.Generation
	ctx, cancel := c.b.deadline()
	defer cancel()
	if err := c.b.renew(ctx, c.mesh, t, rec, keys); err != nil {
		c.storeFailed(reqID, wire.TypeTopicRotate, err)
		return
	}
	c.reply(wire.TopicRotated{Type: wire.TypeTopicRotated, Topic: f.Topic, TopicID: rec.ID, Generation: rec.Generation, ReqID: reqID})
	c.b.tellTopic(c.mesh, t, wire.EventTopicChanged, nil, func(pubkey string) bool { return keys.Sealed[pubkey].EncryptedKey != "" })
}

// renew stores a topic's next key. The topic's record comes second and is what makes the key count; what a crash between the two leaves behind is
// overwritten by the next attempt. topicWork is held.
func (b *Broker) renew(ctx context.Context, m *meshState, t *topic, rec topicRecord, keys topicKeyRecord) error {
	if err := b.store.putRecord(ctx, topicKeyKey(m.rec.ID, rec.ID, rec.Generation), keys); err != nil {
		return err
	}
	had, err := getRecord[topicRecord](ctx, b.store, topicKey(m.rec.ID, rec.ID))
	if err != nil {
		return err
	}
	if had.Value.Generation != rec.Generation-1 {
		return errRecordMoved
	}
	if err := b.store.updateRecord(ctx, had.Key, rec, had.Revision); err != nil {
		return err
	}
	b.mu.Lock()
	t.Generation, t.sealed = rec.Generation, map[string]bool{}
	for pubkey := range keys.Sealed {
		t.sealed[pubkey] = true
	}
	b.mu.Unlock()
	if old := rec.Generation - wire.MaxTopicGenerations; old > 0 {
		if err := b.store.deleteRecord(ctx, topicKeyKey(m.rec.ID, rec.ID, old)); err != nil {
			b.log.Warn("old topic key not removed", "err", err)
		}
	}
	return nil
}
