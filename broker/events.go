package broker

import (
	"encoding/json"

	"github.com/google/uuid"

	"claudemesh/mesh"
	"claudemesh/wire"
)

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
