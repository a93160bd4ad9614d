package broker

import (
	"slices"
	"sync"

	"github.com/gorilla/websocket"

	"claudemesh/wire"
)

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
			c.presenceID, c.since, c.presence = o.presenceID, o.since, o.presence
			c.busy.Store(c.status != wire.StatusIdle)
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
	if st.Hidden = !c.visible; !c.mesh.present(c.member) {
		st.Groups = slices.Clone(c.groups) // a short-lived connection's groups are not to replace those of one that stays
	}
	st.Profile = c.profile
	if c.summary != nil {
		st.Summary = *c.summary
	}
	if c.stats != nil {
		st.Stats = *c.stats
		st.Stats.Uptime = 0
	}
}

// depart is the end of every socket.
func (b *Broker) depart(c *conn) {
	b.mu.Lock()
	delete(b.sockets, c)
	if c.mesh == nil {
		b.greeting--
		b.spoken(c)
		b.mu.Unlock()
		return
	}
	was := c.mesh.leave(c)
	if was {
		c.remain()
	}
	closing := b.closed
	b.mu.Unlock()
	b.withdraw(c)
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

// closeAll closes connections side by side: each may take a moment if its socket is stuck.
func closeAll(all []*conn, f farewell) {
	var wg sync.WaitGroup
	for _, c := range all {
		wg.Go(func() { c.close(f.code, f.reason) })
	}
	wg.Wait()
}
