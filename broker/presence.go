package broker

import (
	"slices"
	"strings"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// listPeers answers with every connection of the mesh, oldest first; those that are invisible only if they are the requester's own.
func (c *conn) listPeers(reqID string) {
	c.b.mu.RLock()
	var all []*conn
	for o := range c.mesh.conns {
		if o.visible || o.member == c.member {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b *conn) int {
		if d := a.since.Compare(b.since); d != 0 {
			return d
		}
		return strings.Compare(a.presenceID, b.presenceID)
	})
	peers := make([]wire.Peer, len(all))
	for i, o := range all {
		peers[i] = o.peer()
	}
	c.b.mu.RUnlock()
	c.reply(wire.PeersList{Type: wire.TypePeersList, Peers: peers, ReqID: reqID})
}

func (c *conn) peer() wire.Peer {
	role := wire.RoleControlPlane
	if c.isSession {
		role = wire.RoleSession
	}
	var caps *[]string
	if c.caps != nil {
		caps = &c.caps // read-only after the hello
	}
	return wire.Peer{
		Pubkey: c.routingKey(), MemberPubkey: c.member.Pubkey, DisplayName: c.name, Status: c.status, Summary: c.summary,
		Groups: append([]mesh.Group{}, c.groups...), SessionID: c.sessionID, ConnectedAt: wire.Timestamp(c.since), Cwd: c.place.cwd,
		Hostname: c.place.hostname, PeerType: c.place.peerType, Channel: c.place.channel, Model: c.place.model, Stats: c.stats, Visible: c.visible,
		Profile: c.profile, PeerRole: role, Role: c.job, AllowedCaps: caps,
	}
}

func (c *conn) setStatus(data []byte, reqID string) {
	var f wire.SetStatus
	if !c.decode(data, reqID, &f) {
		return
	}
	c.b.mu.Lock()
	c.become(f.Status, byHand, c.b.now())
	c.b.mu.Unlock()
	c.drain()
	c.done(reqID)
}

func (c *conn) setSummary(data []byte, reqID string) {
	var f wire.SetSummary
	if !c.decode(data, reqID, &f) {
		return
	}
	c.b.mu.Lock()
	c.summary = &f.Summary
	c.b.mu.Unlock()
	c.done(reqID)
}

// setVisible is answered as the reference does: always, with the request id in both places.
func (c *conn) setVisible(data []byte, reqID string) {
	var f struct {
		Visible *bool `json:"visible"`
	}
	if !c.decode(data, reqID, &f) {
		return
	}
	if f.Visible == nil {
		c.fail(reqID, wire.CodeInvalid, "invalid frame: visible missing")
		return
	}
	c.b.mu.Lock()
	c.visible = *f.Visible
	c.b.mu.Unlock()
	event := "peer_hidden"
	if *f.Visible {
		event = "peer_visible"
	}
	c.b.broadcast(c, event, wire.PeerEvent{Name: c.name, Pubkey: c.routingKey()}, true)
	c.reply(wire.Ack{Type: wire.TypeAck, ID: reqID, ReqID: reqID})
}

// setProfile is answered like setVisible.
func (c *conn) setProfile(data []byte, reqID string) {
	var f wire.SetProfile
	if !c.decode(data, reqID, &f) {
		return
	}
	c.b.mu.Lock()
	c.profile = f.Apply(c.profile)
	c.b.mu.Unlock()
	c.reply(wire.Ack{Type: wire.TypeAck, ID: reqID, ReqID: reqID})
}

func (c *conn) setStats(data []byte, reqID string) {
	var f struct {
		Stats wire.Stats `json:"stats"`
	}
	if !c.decode(data, reqID, &f) {
		return
	}
	c.b.mu.Lock()
	c.stats = &f.Stats
	c.b.mu.Unlock()
	c.done(reqID)
}

func (c *conn) joinGroup(data []byte, reqID string) {
	var f wire.JoinGroup
	if !c.decode(data, reqID, &f) {
		return
	}
	ok := c.regroup(func(gs []mesh.Group) []mesh.Group {
		g := mesh.Group{Name: f.Name, Role: f.Role}
		if i := slices.IndexFunc(gs, func(o mesh.Group) bool { return o.Name == f.Name }); i >= 0 {
			gs[i] = g
			return gs
		}
		return append(gs, g)
	})
	if !ok {
		c.fail(reqID, wire.CodeInvalid, "invalid frame: too many groups")
		return
	}
	c.done(reqID)
}

func (c *conn) leaveGroup(data []byte, reqID string) {
	var f wire.LeaveGroup
	if !c.decode(data, reqID, &f) {
		return
	}
	c.regroup(func(gs []mesh.Group) []mesh.Group {
		return slices.DeleteFunc(gs, func(g mesh.Group) bool { return g.Name == f.Name })
	})
	c.done(reqID)
}

// regroup edits the connection's groups and saves them, so that the group reaches its members while they are offline. False: there would be too many.
func (c *conn) regroup(edit func([]mesh.Group) []mesh.Group) bool {
	c.b.mu.Lock()
	gs := edit(slices.Clone(c.groups))
	if len(gs) > wire.MaxGroups {
		c.b.mu.Unlock()
		return false
	}
	c.groups = gs
	if c.isSession {
		if s := c.mesh.sessions[c.sessionKey]; s != nil {
			s.Groups = gs
		}
	} else {
		c.member.state.Groups = slices.Clone(gs)
	}
	c.b.mu.Unlock()
	if c.isSession {
		c.b.saveSession(c.mesh, c, nil)
	} else {
		c.b.saveMember(c.mesh, c.member)
	}
	return true
}
