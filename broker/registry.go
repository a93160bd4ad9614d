package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// atCapacity reports whether c's mesh has no room for it. A connection that will take another's place needs none.
func (b *Broker) atCapacity(meshID string, c *conn, memberPubkey string) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	m := b.meshes[meshID]
	return m != nil && len(m.conns) >= b.lim.ConnsPerMesh && len(m.replacedBy(c, memberPubkey)) == 0
}

// replacedBy lists the connections that c takes the place of: a session's own earlier one (same key, or same session id among the member's sessions), and
// among the member connections of one member that with the same session id. Another member's session id is nobody's business.
func (m *meshState) replacedBy(c *conn, memberPubkey string) (old []*conn) {
	for o := range m.conns {
		if o.member.Pubkey != memberPubkey || o.isSession != c.isSession {
			continue
		}
		if o.sessionID == c.sessionID || c.isSession && o.sessionKey == c.sessionKey {
			old = append(old, o)
		}
	}
	return old
}

// register makes an authenticated connection a presence and greets it. parentMemberID is "" when the hello named none.
func (b *Broker) register(c *conn, meshID, memberPubkey, parentMemberID, name string, groups []mesh.Group, explicit bool) *refusal {
	id, err := newID(b.cfg.Rand)
	if err != nil {
		c.log.Error("hello refused", "err", err)
		return refused(wire.CodeInternal, "internal error")
	}
	b.mu.Lock()
	m, who, no := b.admit(c, meshID, memberPubkey, parentMemberID)
	if no != nil {
		b.mu.Unlock()
		return no
	}
	now, saved := b.now(), who.state
	c.member, c.presenceID, c.since, c.name = who, id, now, name
	if name == "" {
		c.name = who.Name
	}
	c.log = c.log.With("mesh", m.rec.Slug, "member", who.ID)
	c.status, c.visible, c.groups = wire.StatusIdle, c.isSession || !saved.Hidden, slices.Clone(groups)
	c.keys = []string{c.routingKey()}
	if !c.isSession && c.sessionKey != "" {
		c.keys = append(c.keys, who.Pubkey)
	}
	restored := !c.isSession && !explicit && len(saved.Groups) > 0
	if restored {
		c.groups = slices.Clone(saved.Groups)
	}
	silent, told, bye := c.takeOver(m, m.replacedBy(c, memberPubkey), explicit)
	var forget []string
	if c.sessionKey != "" {
		s := session{sessionRecord{Member: who.Pubkey, Seen: now.UnixMilli()}, c.isSession}
		if c.isSession {
			s.Groups = c.groups
		}
		if before := m.sessions[c.sessionKey]; before != nil && before.proven {
			s.proven = true
		}
		forget = m.remember(c.sessionKey, s, b.lim.SessionsPerMember)
	}
	who.state.Receipts = who.state.Receipts || c.receipts
	if !c.isSession {
		who.state.Groups = slices.Clone(c.groups)
	}
	tell := m.others(c, c.isSession)
	m.enter(c)
	c.mesh = m
	b.greeting--
	b.mu.Unlock()

	for o, f := range bye {
		b.conns.Go(func() { o.close(f.code, f.reason) })
	}
	for _, o := range told {
		b.left(o)
	}
	b.saveMember(m, who)
	b.saveSession(m, c, forget)
	c.ws.SetReadLimit(wire.MaxFrameBytes)
	c.greet(saved, restored)
	c.pump = startPump(c)
	if !silent {
		b.joined(c, saved, tell)
	}
	return nil
}

// admit does the last checks of a hello, under the lock under which the connection is then registered.
func (b *Broker) admit(c *conn, meshID, memberPubkey, parentMemberID string) (*meshState, *member, *refusal) {
	parent := ""
	if c.isSession {
		parent = "parent "
	}
	m := b.meshes[meshID]
	if m == nil || m.members[memberPubkey] == nil {
		return nil, nil, refused(wire.CodeUnauthorized, parent+"pubkey not found in mesh")
	}
	who := m.members[memberPubkey]
	if who.RevokedAt != 0 {
		return nil, nil, refused(wire.CodeRevoked, fmt.Sprintf("You've been removed from %q. Contact the mesh owner to rejoin.", m.rec.Name))
	}
	if parentMemberID != "" && parentMemberID != who.ID {
		return nil, nil, refused(wire.CodeParentMemberID, "parentMemberId does not match parentMemberPubkey")
	}
	if c.sessionKey == who.Pubkey && !c.isSession {
		c.sessionKey = ""
	}
	// A session key names a mailbox. A hello only claims one, so the first owner keeps it; a session_hello proves it and wins over a mere claim.
	if s := m.sessions[c.sessionKey]; s != nil && s.Member != memberPubkey && (s.proven || !c.isSession) || c.sessionKey != "" && m.members[c.sessionKey] != nil {
		return nil, nil, refused(wire.CodeBadSessionPubkey, "sessionPubkey belongs to another peer")
	}
	if b.closed {
		return nil, nil, refused(wire.CodeInternal, "shutting down")
	}
	if len(m.conns) >= b.lim.ConnsPerMesh && len(m.replacedBy(c, memberPubkey)) == 0 {
		return nil, nil, refused(wire.CodeCapacity, "mesh at connection capacity")
	}
	return m, who, nil
}

// takeOver removes the connections that c replaces. When one had c's routing key, c continues it silently: same presence, nobody is told anything.
// told lists the others, which left; bye says how to close each. Called under the lock.
func (c *conn) takeOver(m *meshState, old []*conn, explicitGroups bool) (silent bool, told []*conn, bye map[*conn]farewell) {
	bye = map[*conn]farewell{}
	if s := m.sessions[c.sessionKey]; c.isSession && s != nil && s.Member != c.member.Pubkey {
		for o := range m.readers[c.sessionKey] { // it only claimed the key that c has proven
			m.leave(o)
			told = append(told, o)
			bye[o] = farewell{websocket.ClosePolicyViolation, wire.CodeBadSessionPubkey}
		}
	}
	for _, o := range old {
		m.leave(o)
		if o.routingKey() == c.routingKey() {
			silent = true
			c.presenceID, c.since, c.status, c.summary, c.visible, c.stats = o.presenceID, o.since, o.status, o.summary, o.visible, o.stats
			if !explicitGroups {
				c.groups = o.groups
			}
		} else {
			o.remain()
			told = append(told, o)
		}
		bye[o] = farewell{websocket.CloseNormalClosure, reasonReplaced}
	}
	return silent, told, bye
}

// remain writes what outlives a connection into its member's state. Called under the lock, when the connection leaves.
func (c *conn) remain() {
	st := &c.member.state
	st.LastSeen = c.b.now().UnixMilli()
	if c.isSession {
		if s := c.mesh.sessions[c.sessionKey]; s != nil {
			s.Seen = st.LastSeen
		}
		return
	}
	st.Groups, st.Hidden = slices.Clone(c.groups), !c.visible
	if c.summary != nil {
		st.Summary = *c.summary
	}
	if c.stats != nil {
		st.Stats = *c.stats
	}
}

// depart is the end of every socket.
func (b *Broker) depart(c *conn) {
	b.mu.Lock()
	delete(b.sockets, c)
	if c.mesh == nil {
		b.greeting--
		b.mu.Unlock()
		return
	}
	was := c.mesh.leave(c)
	if was {
		c.remain()
	}
	closing := b.closed
	b.mu.Unlock()
	if !was {
		return
	}
	b.saveMember(c.mesh, c.member)
	if c.isSession {
		b.saveSession(c.mesh, c, nil)
	}
	if !closing {
		b.left(c)
	}
}

// saveMember stores a member's state. Saves are one after the other, so that the last state is what stays.
func (b *Broker) saveMember(m *meshState, who *member) {
	b.saving.Lock()
	defer b.saving.Unlock()
	b.mu.RLock()
	st := who.state
	st.Groups = slices.Clone(st.Groups)
	b.mu.RUnlock()
	b.saveAny(stateKey(m.rec.ID, who.Pubkey), st)
}

// saveSession stores c's session key, if it has proven it, and forgets others.
func (b *Broker) saveSession(m *meshState, c *conn, forget []string) {
	if c.sessionKey == "" {
		return
	}
	b.saving.Lock()
	defer b.saving.Unlock()
	b.mu.RLock()
	var rec *sessionRecord
	if s := m.sessions[c.sessionKey]; s != nil && s.proven {
		clone := s.sessionRecord
		rec = &clone
	}
	b.mu.RUnlock()
	if rec != nil {
		b.saveAny(sessionKeyKey(m.rec.ID, c.sessionKey), rec)
	}
	ctx, cancel := b.deadline()
	defer cancel()
	for _, key := range forget {
		if err := b.store.meta.Purge(ctx, sessionKeyKey(m.rec.ID, key)); err != nil {
			b.log.Warn("session key not forgotten", "err", err)
		}
	}
}

func (b *Broker) saveAny(key string, v any) {
	ctx, cancel := b.deadline()
	defer cancel()
	if err := b.store.put(ctx, key, v); err != nil {
		b.log.Warn("presence not saved", "err", err)
	}
}

// RevokeMember removes a member for good: its connections are closed with 4002 "banned", its hellos refused, its key cannot join again.
// Errors wrap ErrNotFound, or are the store's.
func (b *Broker) RevokeMember(ctx context.Context, meshID, memberPubkey string) error {
	b.mu.Lock()
	m := b.meshes[meshID]
	if m == nil || m.members[memberPubkey] == nil {
		b.mu.Unlock()
		return fmt.Errorf("revoke member: %w", ErrNotFound)
	}
	who := m.members[memberPubkey]
	rec := who.memberRecord
	if rec.RevokedAt == 0 {
		rec.RevokedAt = b.now().UnixMilli()
	}
	b.mu.Unlock()
	if err := b.store.put(ctx, memberKey(meshID, memberPubkey), rec); err != nil {
		return fmt.Errorf("revoke member: %w", err)
	}
	b.mu.Lock()
	who.RevokedAt = rec.RevokedAt
	var out []*conn
	for c := range m.conns {
		if c.member == who {
			out = append(out, c)
		}
	}
	b.mu.Unlock()
	for _, c := range out {
		c.close(wire.CloseBanned, "banned")
	}
	return nil
}

// joinedData is the eventData of peer_joined and peer_returned; unlike wire.PeerEvent it always has groups, which reference clients iterate over.
type joinedData struct {
	Name       string       `json:"name"`
	Pubkey     string       `json:"pubkey"`
	Groups     []mesh.Group `json:"groups"`
	LastSeenAt string       `json:"lastSeenAt,omitempty"`
	Summary    string       `json:"summary,omitempty"`
}

// joined tells of a new presence those who were there when it came.
func (b *Broker) joined(c *conn, saved stateRecord, tell []*conn) {
	b.mu.RLock()
	data := joinedData{Name: c.name, Pubkey: c.routingKey(), Groups: append([]mesh.Group{}, c.groups...)}
	b.mu.RUnlock()
	event := wire.EventPeerJoined
	if !c.isSession && saved.LastSeen != 0 {
		event, data.Summary = wire.EventPeerReturned, saved.Summary
		data.LastSeenAt = wire.Timestamp(unixMilli(saved.LastSeen))
	}
	b.tell(tell, c.mesh.rec.ID, event, data)
}

// left tells the mesh that a presence ended.
func (b *Broker) left(c *conn) {
	b.broadcast(c, wire.EventPeerLeft, wire.PeerEvent{Name: c.name, Pubkey: c.routingKey()}, c.isSession)
}

// others lists the connections beside c; without siblings, those of other members only. A member connection's comings and goings are no news to its own
// member, a session's are.
func (m *meshState) others(c *conn, siblings bool) (all []*conn) {
	for o := range m.conns {
		if o != c && (siblings || o.member != c.member) {
			all = append(all, o)
		}
	}
	return all
}

// broadcast sends a system event about c to the others that are there now.
func (b *Broker) broadcast(c *conn, event string, data any, siblings bool) {
	b.mu.RLock()
	all := c.mesh.others(c, siblings)
	b.mu.RUnlock()
	b.tell(all, c.mesh.rec.ID, event, data)
}

// tell sends a system event.
func (b *Broker) tell(to []*conn, meshID, event string, data any) {
	id, err := uuid.NewRandomFromReader(b.cfg.Rand)
	if err != nil {
		b.log.Error("event not sent", "err", err)
		return
	}
	raw, err := json.Marshal(data)
	if err != nil {
		b.log.Error("event not sent", "err", err)
		return
	}
	frame, err := wire.Encode(wire.Push{
		Type: wire.TypePush, Subtype: wire.SubtypeSystem, Event: event, EventData: raw, MessageID: id.String(), MeshID: meshID,
		SenderPubkey: "system", Priority: wire.PriorityLow, CreatedAt: wire.Timestamp(b.now()),
	})
	if err != nil {
		b.log.Error("event not sent", "err", err)
		return
	}
	for _, o := range to {
		o.event(frame)
	}
}

// isMulticast reports whether a target addresses more than one key, and which group it means.
func isMulticast(target string) (group string, all, ok bool) {
	if target == "*" || target == "@all" {
		return "", true, true
	}
	group, ok = strings.CutPrefix(target, "@")
	return group, false, ok && group != ""
}
