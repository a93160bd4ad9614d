package broker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// kick closes connections for good: a client that understands 4001 does not come back by itself. A connection that only carries a daemon's traffic is left
// alone: everybody on that machine would lose the mesh with it. To shut a member out is what ban is for.
func (c *conn) kick(data []byte, reqID string) {
	c.expel(data, reqID, wire.TypeKickAck, farewell{wire.CloseKicked, "kicked"}, false)
}

// disconnect closes connections; their clients come back.
func (c *conn) disconnect(data []byte, reqID string) {
	c.expel(data, reqID, wire.TypeDisconnectAck, farewell{websocket.CloseNormalClosure, "disconnected"}, true)
}

func (c *conn) expel(data []byte, reqID, ackType string, bye farewell, controlPlane bool) {
	var f wire.Kick
	if !c.decode(data, reqID, &f) {
		return
	}
	b := c.b
	b.mu.Lock()
	met, no := c.aimAtConns(f)
	if no != nil {
		b.mu.Unlock()
		c.fail(reqID, no.code, no.message)
		return
	}
	if !f.All && f.Stale > 0 {
		bye.reason += "_stale"
	}
	ack := wire.KickAck{Type: ackType, Kicked: []string{}, ReqID: reqID}
	var out []*conn
	for _, o := range met {
		if !controlPlane && !o.isSession && o.sessionKey == "" {
			ack.SkippedControlPlane = append(ack.SkippedControlPlane, o.name)
			continue
		}
		out = append(out, o)
		ack.Kicked = append(ack.Kicked, o.name)
	}
	ack.Affected = ack.Kicked
	unroute(out)
	b.mu.Unlock()
	c.replyThen(ack, func() { b.seeOff(out, bye) })
}

// aimAtConns lists the connections that a kick means, oldest first. all and stale are never about the caller's own member, nor about those it may not
// moderate. Called under the lock.
func (c *conn) aimAtConns(f wire.Kick) (met []*conn, no *refusal) {
	mine := c.mesh.roleOf(c.member)
	if f.All || f.Stale > 0 {
		since := c.b.now().Add(-time.Duration(f.Stale) * time.Millisecond).UnixMilli()
		for o := range c.mesh.conns {
			if o.member != c.member && outranks(mine, c.mesh.roleOf(o.member)) && (f.All || o.heard.Load() < since) {
				met = append(met, o)
			}
		}
	} else {
		who, conns, no := c.mesh.aim(f.Target)
		if no != nil {
			return nil, no
		}
		if who != nil && who != c.member && !outranks(mine, c.mesh.roleOf(who)) {
			return nil, notBelow(who, c.mesh.roleOf(who))
		}
		met = conns
	}
	slices.SortFunc(met, func(a, b *conn) int {
		return cmp.Or(a.since.Compare(b.since), strings.Compare(a.presenceID, b.presenceID))
	})
	return met, nil
}

// aim finds the one member that a moderation target means, and which of its connections: all of them, or those of that session key or display name. A
// whole key means nobody else; names and beginnings of keys that fit several members mean none. who is nil when nobody fits. Called under the lock.
func (m *meshState) aim(target string) (who *member, conns []*conn, no *refusal) {
	prefix := len(target) >= wire.MinKeyPrefix && isHex(target)
	whole := map[*member]bool{}
	single := map[*member][]*conn{}
	for key, o := range m.members {
		if o.RevokedAt != 0 {
			continue
		}
		if key == target {
			return o, m.connsOf(o), nil
		}
		if prefix && strings.HasPrefix(key, target) {
			whole[o] = true
		}
	}
	for o := range m.conns {
		switch key := o.routingKey(); {
		case key == target:
			return o.member, []*conn{o}, nil
		case o.name == target, prefix && strings.HasPrefix(key, target):
			single[o.member] = append(single[o.member], o)
		}
	}
	for _, o := range m.members {
		if o.RevokedAt == 0 && o.Name == target && single[o] == nil {
			whole[o] = true
		}
	}
	all := map[*member]bool{}
	for o := range whole {
		all[o] = true
	}
	for o := range single {
		all[o] = true
	}
	if len(all) > 1 {
		return nil, nil, ambiguous(target, all)
	}
	for o := range all {
		if who = o; whole[o] {
			return who, m.connsOf(who), nil
		}
	}
	return who, single[who], nil
}

func (m *meshState) connsOf(who *member) (all []*conn) {
	for c := range m.conns {
		if c.member == who {
			all = append(all, c)
		}
	}
	return all
}

// ambiguous refuses a target that means several members, and names them as they can be told apart.
func ambiguous(target string, all map[*member]bool) *refusal {
	var names []string
	for o := range all {
		names = append(names, fmt.Sprintf("%s (%q)", o.Pubkey[:16], o.Name))
	}
	slices.Sort(names)
	more := ""
	if n := len(names) - 8; n > 0 {
		names, more = names[:8], fmt.Sprintf(" and %d more", n)
	}
	return refused(wire.CodeAmbiguous, fmt.Sprintf("%.64q means %d members, use a key: %s%s", target, len(all), strings.Join(names, ", "), more))
}

func isHex(s string) bool {
	return len(s) <= 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// unroute takes connections out of their mesh, before they are closed: nothing is delivered to them any more. Called under the lock.
func unroute(out []*conn) {
	for _, o := range out {
		if o.mesh.leave(o) {
			o.remain()
		}
	}
}

// seeOff closes connections that unroute took out, and tells the others.
func (b *Broker) seeOff(out []*conn, bye farewell) {
	for _, o := range out {
		b.saveMember(o.mesh, o.member)
		if o.isSession {
			b.saveSession(o.mesh, o, nil)
		}
		b.left(o)
	}
	closeAll(out, bye)
}

// replyThen answers, and does what the answer announces once it is on the socket, or nobody waits for it any more: what follows from a request is then
// never heard before its answer.
func (c *conn) replyThen(v any, then func()) {
	sent := make(chan struct{})
	data, err := wire.Encode(v)
	if err != nil {
		c.log.Error("answer not sent", "err", err)
		close(sent)
	} else {
		c.push(frame{data: data, sent: func() { close(sent) }})
	}
	c.b.conns.Go(func() {
		select {
		case <-sent:
		case <-c.ctx.Done():
		}
		then()
	})
}

// memberByKey is the member behind a member's or session's key, nil when nobody known is. Called under the lock.
func (m *meshState) memberByKey(key string) *member {
	if !mesh.ValidKey(key) {
		return nil
	}
	return m.members[m.ownerOf(key)]
}
