package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/broker/fts"
	"claudemesh/wire"
)

// Removing a mesh, or a member, with all that the store holds of it. The decision is one write, the gravestone of the mesh or the end of the member's record;
// the data go after it, in the background, when the last connection that could still write has ended. A removal that a crash interrupts is finished at the
// next start.

// goneRecord is the gravestone of a deleted mesh: it lets the broker tell members why they are turned away.
type goneRecord struct {
	Slug   string `json:"slug"`
	At     int64  `json:"at"`
	Purged bool   `json:"purged,omitempty"` // nothing of the mesh is left in the store
}

// deleteMesh deletes a mesh. asker is the connection that asked for it, if one did: it is closed by its own answer.
func (b *Broker) deleteMesh(ctx context.Context, m *meshState, asker *conn) error {
	b.joining.Lock() // nobody joins or renames it meanwhile
	defer b.joining.Unlock()
	id := m.rec.ID
	b.mu.RLock()
	stone, gone := goneRecord{Slug: m.rec.Slug, At: b.now().UnixMilli()}, b.meshes[id] != m
	b.mu.RUnlock()
	if gone {
		return nil
	}
	if err := b.store.put(ctx, goneKey(id), stone); err != nil {
		return fmt.Errorf("delete mesh: %w", err)
	}
	b.mu.Lock()
	delete(b.meshes, id)
	b.gone[id] = stone
	maps.DeleteFunc(b.codes, func(_ string, at codeOf) bool { return at.meshID == id })
	for _, who := range m.members {
		who.RevokedAt = stone.At // requests that are under way find that they may not
	}
	ends := b.connsOf(m, nil)
	if !b.closed {
		b.workers.Go(func() { b.purge(b.run, id, ends) })
	}
	b.mu.Unlock()
	b.log.Info("mesh deleted", "mesh", stone.Slug, "id", id)
	closeAll(slices.DeleteFunc(slices.Clone(ends), func(c *conn) bool { return c == asker }), farewell{wire.CloseBanned, wire.CodeMeshDeleted})
	return nil
}

// connsOf lists the sockets that said hello to m, those that were replaced and still finish included; of one member, or of all. Called under the lock.
func (b *Broker) connsOf(m *meshState, who *member) (all []*conn) {
	for c := range b.sockets {
		if c.mesh == m && (who == nil || c.member == who) {
			all = append(all, c)
		}
	}
	return all
}

// allEnded waits until the connections have ended; false when ctx did first.
func allEnded(ctx context.Context, all []*conn) bool {
	for _, c := range all {
		select {
		case <-c.over:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// purge removes what the store holds of a deleted mesh. When it fails, the next start of the broker does it.
func (b *Broker) purge(ctx context.Context, meshID string, conns []*conn) {
	if !allEnded(ctx, conns) {
		return
	}
	err := b.purgeAll(ctx, meshID)
	if err == nil {
		b.mu.Lock()
		stone := b.gone[meshID]
		stone.Purged = true
		b.gone[meshID] = stone
		b.mu.Unlock()
		err = b.store.put(ctx, goneKey(meshID), stone)
	}
	if err != nil && ctx.Err() == nil {
		b.log.Error("data of a deleted mesh not removed, the next start tries again", "id", meshID, "err", err)
	}
}

func (b *Broker) purgeAll(ctx context.Context, meshID string) error {
	// What works by itself ends first, so that it writes nothing behind the purge.
	b.timers.forgetMesh(meshID)
	b.watches.forgetMesh(meshID)
	b.mu.Lock()
	maps.DeleteFunc(b.apiKeys, func(_ string, k *apiKey) bool { return k.mesh == meshID })
	b.mu.Unlock()
	// Accepted messages first: once the fan-out has passed what was there, it makes no new references.
	if err := b.store.accept.Purge(ctx, jetstream.WithPurgeSubject(acceptSubject(meshID, "*"))); err != nil {
		return fmt.Errorf("purge %s: %w", acceptStream, err)
	}
	if err := b.fan.barrier(ctx); err != nil {
		return err
	}
	names := b.store.js.StreamNames(ctx)
	var errs []error
	for name := range names.Name() {
		errs = append(errs, b.purgeStream(ctx, name, meshID))
	}
	b.store.depth.forget("." + meshID + ".")
	b.shelves.forget(meshID)
	return errors.Join(append(errs, names.Err(), b.forgetSearch(ctx, meshID))...)
}

// forgetSearch removes a mesh from the search view. Its source is empty by now; what an index was just reading of it is written before.
func (b *Broker) forgetSearch(ctx context.Context, meshID string) error {
	if err := b.memories.update(ctx); err != nil {
		return err
	}
	b.view.mu.RLock()
	defer b.view.mu.RUnlock()
	if err := b.view.DeleteMesh(ctx, meshID); err != nil && !errors.Is(err, fts.ErrDamaged) { // a damaged view is made anew, of what is there then
		return fmt.Errorf("forget mesh in search view: %w", err)
	}
	return nil
}

// purgeStream removes what one stream holds of a mesh. By convention the mesh's id is the second token of every subject and of every key of a bucket, and one
// of the parts of an object's name, which "/" or "." separate.
func (b *Broker) purgeStream(ctx context.Context, name, meshID string) error {
	if bucket, ok := strings.CutPrefix(name, "OBJ_"); ok {
		return b.purgeObjects(ctx, bucket, meshID)
	}
	stream, err := b.store.js.Stream(ctx, name)
	if err != nil {
		return fmt.Errorf("open stream %s: %w", name, err)
	}
	prefix := "*."
	if bucket, ok := strings.CutPrefix(name, "KV_"); ok {
		prefix = "$KV." + bucket + ".*."
	}
	for _, filter := range []string{prefix + meshID, prefix + meshID + ".>"} {
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(filter)); err != nil {
			return fmt.Errorf("purge %s: %w", name, err)
		}
	}
	return nil
}

func (b *Broker) purgeObjects(ctx context.Context, bucket, meshID string) error {
	objects, err := b.store.js.ObjectStore(ctx, bucket)
	if err != nil {
		return fmt.Errorf("open object store %s: %w", bucket, err)
	}
	list, err := objects.List(ctx)
	if err != nil && !errors.Is(err, jetstream.ErrNoObjectsFound) {
		return fmt.Errorf("list objects of %s: %w", bucket, err)
	}
	for _, info := range list {
		parts := strings.FieldsFunc(info.Name, func(r rune) bool { return r == '/' || r == '.' })
		if !slices.Contains(parts, meshID) {
			continue
		}
		if err := objects.Delete(ctx, info.Name); err != nil {
			return fmt.Errorf("delete object of %s: %w", bucket, err)
		}
	}
	return nil
}

// dropMember removes a member that wants to go: membership, saved presence, session keys, mail. What it shared with the mesh stays. asker is as in deleteMesh.
func (b *Broker) dropMember(ctx context.Context, m *meshState, who *member, asker *conn) error {
	b.joining.Lock()
	defer b.joining.Unlock()
	b.editing.Lock() // no edit of the member brings its record back
	defer b.editing.Unlock()
	key := who.Pubkey
	if err := b.store.meta.Purge(ctx, memberKey(m.rec.ID, key)); err != nil {
		return fmt.Errorf("remove member: %w", err)
	}
	b.mu.Lock()
	who.RevokedAt = b.now().UnixMilli() // for requests that are under way
	delete(m.members, key)
	keys := []string{key}
	for k, s := range m.sessions {
		if s.Member == key {
			keys = append(keys, k)
			delete(m.sessions, k)
		}
	}
	ends := b.connsOf(m, who)
	if !b.closed {
		b.workers.Go(func() { b.purgeMember(b.run, m, who.ID, key, keys, ends) })
	}
	b.mu.Unlock()
	b.goneFromAll(m, who) // the topics it had the key of get another one
	closeAll(slices.DeleteFunc(slices.Clone(ends), func(c *conn) bool { return c == asker }), farewell{wire.CloseBanned, wire.CodeLeft})
	return nil
}

// leaveTopics ends the memberships of a key in topics, so that it does not find them again if it joins again.
func (b *Broker) leaveTopics(ctx context.Context, m *meshState, pubkey string) error {
	b.topicWork.Lock()
	defer b.topicWork.Unlock()
	b.mu.Lock()
	var in []string
	for id, t := range m.topics {
		if _, known := t.members[pubkey]; known {
			in = append(in, id)
			delete(t.members, pubkey)
		}
	}
	b.mu.Unlock()
	var errs []error
	for _, id := range in {
		errs = append(errs, b.store.deleteRecord(ctx, topicMemberKey(m.rec.ID, id, pubkey)))
	}
	return errors.Join(errs...)
}

// purgeMember removes what is left of a member that has gone. Its watches and webhooks end by themselves, because they look for their member. keys are its mailboxes, its own first.
func (b *Broker) purgeMember(ctx context.Context, m *meshState, memberID, pubkey string, keys []string, conns []*conn) {
	if !allEnded(ctx, conns) {
		return
	}
	meshID := m.rec.ID
	errs := []error{b.leaveTopics(ctx, m, pubkey), b.revokeKeysOf(ctx, m, pubkey)}
	for _, rec := range b.timers.list(meshID, memberID) {
		_, err := b.timers.cancel(meshID, rec.ID)
		errs = append(errs, err)
	}
	b.saving.Lock() // after the last save of presence
	errs = append(errs, b.store.meta.Purge(ctx, stateKey(meshID, pubkey)))
	for _, k := range keys[1:] {
		errs = append(errs, b.store.meta.Purge(ctx, sessionKeyKey(meshID, k)))
	}
	b.saving.Unlock()
	errs = append(errs, b.store.rcpt.Purge(ctx, jetstream.WithPurgeSubject(receiptSubject(meshID, pubkey))))
	for _, k := range keys {
		errs = append(errs, b.store.mail.Purge(ctx, jetstream.WithPurgeSubject(mailSubject(meshID, k))))
		b.store.depth.forget("." + meshID + "." + k)
	}
	if err := errors.Join(errs...); err != nil && ctx.Err() == nil {
		b.log.Warn("mail of a member that left not removed, it expires by itself", "err", err)
	}
}
