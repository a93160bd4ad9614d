package broker

import (
	"fmt"
	"slices"

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

// register makes an authenticated connection a presence and greets it. memberID is "" when the hello named none.
func (b *Broker) register(c *conn, meshID, memberPubkey, memberID, name string, groups []mesh.Group, explicit bool) *refusal {
	id, err := newID(b.cfg.Rand)
	if err != nil {
		c.log.Error("hello refused", "err", err)
		return refused(wire.CodeInternal, "internal error")
	}
	b.mu.Lock()
	m, who, no := b.admit(c, meshID, memberPubkey, memberID)
	if no != nil {
		b.mu.Unlock()
		return no
	}
	now, saved := b.now(), who.state
	c.member, c.presenceID, c.since, c.name = who, id, now, name
	if !validName(name) {
		c.name = who.Name
	}
	c.log = c.log.With("mesh", m.rec.Slug, "member", who.ID)
	c.presence = presence{visible: c.isSession || !saved.Hidden}
	c.become(wire.StatusIdle, byDefault, now)
	c.groups = slices.Clone(groups)
	if !c.isSession {
		c.profile = saved.Profile
	}
	c.keys = []string{c.routingKey()}
	if !c.isSession && c.sessionKey != "" {
		c.keys = append(c.keys, who.Pubkey)
	}
	restored := !c.isSession && !explicit && len(saved.Groups) > 0
	switch {
	case restored:
		c.groups = slices.Clone(saved.Groups)
	case !explicit:
		c.groups = slices.Clone(who.Groups)
	}
	c.hear()
	m.applyHook(c, now)
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
	if !c.isSession && !m.present(who) {
		who.state.Groups = slices.Clone(c.groups)
	}
	tell := m.others(c, c.isSession)
	m.enter(c)
	c.mesh = m
	b.greeting--
	b.spoken(c)
	b.mu.Unlock()

	b.figures.hellos.Inc()
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
	c.draining.Store(c.pump)
	if !silent {
		b.joined(c, saved, tell)
	}
	return nil
}

// admit does the last checks of a hello, under the lock under which the connection is then registered.
func (b *Broker) admit(c *conn, meshID, memberPubkey, memberID string) (*meshState, *member, *refusal) {
	parent := ""
	if c.isSession {
		parent = "parent "
	}
	m := b.meshes[meshID]
	if stone, gone := b.gone[meshID]; gone {
		return nil, nil, refused(wire.CodeMeshDeleted, fmt.Sprintf("The mesh %q was deleted by its owner.", stone.Slug))
	}
	if m == nil || m.members[memberPubkey] == nil {
		return nil, nil, refused(wire.CodeUnauthorized, parent+"pubkey not found in mesh")
	}
	who := m.members[memberPubkey]
	if who.RevokedAt != 0 {
		return nil, nil, refused(wire.CodeRevoked, fmt.Sprintf("You've been removed from %q. Contact the mesh owner to rejoin.", m.rec.Name))
	}
	if memberID != "" && memberID != who.ID {
		if !c.isSession {
			return nil, nil, refused(wire.CodeUnauthorized, "memberId is not that of pubkey")
		}
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
