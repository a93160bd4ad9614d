package daemon

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// The keys of topics: fetched, opened, sealed for others, made new.

// fetch reads the keys that are sealed for this member.
func (t *topics) fetch(ctx context.Context, row wire.Topic) error {
	var reply wire.TopicKey
	if err := t.ask(ctx, wire.TypeTopicKey, wire.TopicRequest{Topic: row.ID}, &reply); err != nil {
		return err
	}
	all := append([]wire.TopicKeyOfPast{{Generation: reply.Generation, EncryptedKey: reply.EncryptedKey, Nonce: reply.Nonce}}, reply.Older...)
	for _, sealed := range all {
		if key, err := t.opened(sealed.EncryptedKey, sealed.Nonce); err == nil {
			t.remember(row.ID, sealed.Generation, key)
		} else {
			t.m.d.opt.Log.Warn("topic_key_not_opened", "mesh", t.m.joined.Slug, "topic", row.ID, "generation", sealed.Generation)
		}
	}
	t.m.wakeRows()
	return nil
}

// opened opens a sealed topic key with the member's own.
func (t *topics) opened(encryptedKey, nonce string) (mesh.TopicKey, error) {
	box, err := base64.StdEncoding.DecodeString(encryptedKey)
	if err != nil {
		return mesh.TopicKey{}, mesh.ErrUndecryptable
	}
	n, err := base64.StdEncoding.DecodeString(nonce)
	if err != nil {
		return mesh.TopicKey{}, mesh.ErrUndecryptable
	}
	return mesh.OpenTopicKey(t.m.member, n, box)
}

func (t *topics) remember(id string, generation int, key mesh.TopicKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.keys[id] == nil {
		t.keys[id] = map[int]mesh.TopicKey{}
	}
	t.keys[id][generation] = key
}

func (t *topics) key(id string, generation int) (mesh.TopicKey, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key, ok := t.keys[id][generation]
	return key, ok
}

// open opens a post with whichever key of its topic fits, the newest first.
func (t *topics) open(id string, nonce, box []byte) ([]byte, error) {
	t.mu.Lock()
	generations := make([]int, 0, len(t.keys[id]))
	for g := range t.keys[id] {
		generations = append(generations, g)
	}
	t.mu.Unlock()
	slices.Sort(generations)
	for _, g := range slices.Backward(generations) {
		if key, ok := t.key(id, g); ok {
			if text, err := key.OpenPost(nonce, box); err == nil {
				return text, nil
			}
		}
	}
	return nil, mesh.ErrUndecryptable
}

// sealed seals a key for a member, as the frames carry it.
func (t *topics) sealed(key mesh.TopicKey, pubkey string) (wire.SealedKey, error) {
	nonce, box, err := key.SealFor(t.m.member, pubkey, t.m.d.opt.Rand)
	if err != nil {
		return wire.SealedKey{}, err
	}
	return wire.SealedKey{EncryptedKey: base64.StdEncoding.EncodeToString(box), Nonce: base64.StdEncoding.EncodeToString(nonce)}, nil
}

// sealForWaiting seals the newest key for the members that wait for it. Of several who do so at once the first counts.
func (t *topics) sealForWaiting(ctx context.Context, row wire.Topic, key mesh.TopicKey) error {
	var pending wire.TopicPending
	if err := t.ask(ctx, wire.TypeTopicPendingSeals, wire.TopicRequest{Topic: row.ID}, &pending); err != nil {
		return err
	}
	if pending.Generation != row.Generation {
		t.refresh()
		return nil
	}
	for _, who := range pending.Pending {
		sealed, err := t.sealed(key, who.Pubkey)
		if errors.Is(err, mesh.ErrWeakKey) {
			continue // nobody can seal anything for that key
		}
		if err != nil {
			return err
		}
		if err := t.ask(ctx, wire.TypeTopicSeal, wire.TopicSeal{Topic: row.ID, MemberID: who.MemberID, Generation: row.Generation, SealedKey: sealed}, nil); err != nil {
			return err
		}
		t.m.d.opt.Log.Info("topic_key_sealed", "mesh", t.m.joined.Slug, "topic", row.ID, "member", who.MemberID)
	}
	if row.PendingSeals > len(pending.Pending) {
		t.refresh()
	}
	return nil
}

// renew gives a topic its next key, or the first one, sealed for all its members. looking is held.
func (t *topics) renew(ctx context.Context, row wire.Topic) (sealedFor int, err error) {
	var members wire.TopicMembers
	if err := t.ask(ctx, wire.TypeTopicMembers, wire.TopicRequest{Topic: row.ID}, &members); err != nil {
		return 0, err
	}
	key, err := mesh.NewTopicKey(t.m.d.opt.Rand)
	if err != nil {
		return 0, err
	}
	next := wire.TopicRotate{Topic: row.ID, Generation: row.Generation + 1}
	for _, who := range members.Members {
		sealed, err := t.sealed(key, who.Pubkey)
		if errors.Is(err, mesh.ErrWeakKey) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if len(next.Keys) < wire.MaxTopicKeys || who.Pubkey == t.m.joined.Pubkey {
			next.Keys = append(next.Keys, wire.SealedKeyFor{MemberID: who.MemberID, SealedKey: sealed})
		}
	}
	if n := len(next.Keys); n > wire.MaxTopicKeys {
		next.Keys = next.Keys[n-wire.MaxTopicKeys:] // our own came last
	}
	if err := t.ask(ctx, wire.TypeTopicRotate, next, nil); err != nil {
		return 0, err
	}
	t.remember(row.ID, next.Generation, key)
	t.m.d.opt.Log.Info("topic_key_made", "mesh", t.m.joined.Slug, "topic", row.ID, "generation", next.Generation, "members", len(next.Keys))
	t.refresh()
	return len(next.Keys), nil
}
