package broker

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// meshState is one mesh as this process knows it. Broker.mu guards it.
type meshState struct {
	rec      meshRecord
	members  map[string]*member            // by public key
	sessions map[string]*session           // by public key
	conns    map[*conn]struct{}            // registered connections
	readers  map[string]map[*conn]struct{} // registered connections by mailbox key
	hooks    []hookStatus                  // statuses that came before their connections
	topics   map[string]*topic             // by id
	services map[string]*service           // by name
}

// member is a member and what outlives its connections.
type member struct {
	memberRecord
	state  stateRecord
	sends  sendLimiter
	grants wire.Grants // never changed in place
}

// session is a known session key. An unproven one was only named in a hello; it is remembered to keep others off it, and nothing can be addressed to it
// while it is offline, because the reference makes a new one for every process.
type session struct {
	sessionRecord
	proven bool
}

// sessionGroupsFor is how long the groups of an offline session still count: the longest life of an attestation.
const sessionGroupsFor = mesh.MaxAttestationTTL

func newMeshState(rec meshRecord) *meshState {
	return &meshState{
		rec: rec, members: map[string]*member{}, sessions: map[string]*session{}, conns: map[*conn]struct{}{}, readers: map[string]map[*conn]struct{}{},
		topics: map[string]*topic{}, services: map[string]*service{},
	}
}

// load takes one entry of the bucket. Entries of members that are gone are passed over.
func (m *meshState) load(kind, key string, value []byte) error {
	switch kind {
	case "member":
		var rec memberRecord
		if err := json.Unmarshal(value, &rec); err != nil {
			return err
		}
		m.members[key] = &member{memberRecord: rec}
	case "state":
		if who := m.members[key]; who != nil {
			return json.Unmarshal(value, &who.state)
		}
	case "session":
		s := &session{proven: true}
		if err := json.Unmarshal(value, &s.sessionRecord); err != nil {
			return err
		}
		if m.members[s.Member] != nil {
			m.sessions[key] = s
		}
	default:
		return fmt.Errorf("unknown kind %q", kind)
	}
	return nil
}

// active returns the member with that key, unless it is revoked.
func (m *meshState) active(pubkey string) *member {
	if who := m.members[pubkey]; who != nil && who.RevokedAt == 0 {
		return who
	}
	return nil
}

// enter registers c and its mailboxes; leave takes it out and reports whether it was in.
func (m *meshState) enter(c *conn) {
	m.conns[c] = struct{}{}
	for _, key := range c.keys {
		if m.readers[key] == nil {
			m.readers[key] = map[*conn]struct{}{}
		}
		m.readers[key][c] = struct{}{}
	}
}

func (m *meshState) leave(c *conn) bool {
	if _, in := m.conns[c]; !in {
		return false
	}
	delete(m.conns, c)
	for _, key := range c.keys {
		if delete(m.readers[key], c); len(m.readers[key]) == 0 {
			delete(m.readers, key)
		}
	}
	return true
}

// present reports whether a member connection of who is registered.
func (m *meshState) present(who *member) bool {
	for c := range m.conns {
		if c.member == who && !c.isSession {
			return true
		}
	}
	return false
}

// addressable reports whether mail to that key can ever be read: an active member's key, a proven session key of one, or a key in use right now.
func (m *meshState) addressable(key string) bool {
	if m.active(key) != nil || len(m.readers[key]) > 0 {
		return true
	}
	s := m.sessions[key]
	return s != nil && s.proven && m.active(s.Member) != nil
}

// ownerOf returns the public key of the member behind a mailbox key, "" when nobody is.
func (m *meshState) ownerOf(key string) string {
	if m.members[key] != nil {
		return key
	}
	if s := m.sessions[key]; s != nil {
		return s.Member
	}
	for c := range m.readers[key] {
		return c.member.Pubkey
	}
	return ""
}

// multicast returns the keys of the members that a "*", "@all" or "@group" of sender reaches, in a fixed order. A member whose connections are all
// invisible is left out, and one whose grants do not take the sender's broadcasts; one that is offline is not. The sender's member is in only if one of its
// connections asked for that.
func (m *meshState) multicast(sender *member, group string, all bool, now time.Time) []string {
	type view struct{ conns, hidden, in, own int }
	seen := map[string]*view{}
	for c := range m.conns {
		v := seen[c.member.Pubkey]
		if v == nil {
			v = &view{}
			seen[c.member.Pubkey] = v
		}
		v.conns++
		if !c.visible {
			v.hidden++
		}
		if hasGroup(c.groups, group) {
			v.in++
		}
		if c.ownMulticast {
			v.own++
		}
	}
	inGroup := map[string]bool{}
	if !all {
		for _, s := range m.sessions {
			if s.Seen > now.Add(-sessionGroupsFor).UnixMilli() && hasGroup(s.Groups, group) {
				inGroup[s.Member] = true
			}
		}
	}
	to := []string{}
	for key, who := range m.members {
		v := seen[key]
		if v == nil {
			v = &view{}
		}
		switch {
		case who.RevokedAt != 0, v.conns > 0 && v.hidden == v.conns, who == sender && v.own == 0, !who.admits(sender.Pubkey, mesh.CapBroadcast):
		case all, v.in > 0, inGroup[key], hasGroup(who.state.Groups, group):
			to = append(to, key)
		}
	}
	slices.Sort(to)
	return to
}

// isMulticast reports whether a target addresses more than one key, and which group it means.
func isMulticast(target string) (group string, all, ok bool) {
	if target == "*" || target == "@all" {
		return "", true, true
	}
	group, ok = strings.CutPrefix(target, "@")
	return group, false, ok && group != ""
}

// hasGroup reports whether a message to a group reaches somebody who is in these.
func hasGroup(gs []mesh.Group, name string) bool {
	return slices.ContainsFunc(gs, func(g mesh.Group) bool { return mesh.GroupReaches(name, g.Name) })
}

// remember notes who uses a session key, and returns the keys to forget because the member has too many.
func (m *meshState) remember(key string, s session, limit int) (forget []string) {
	m.sessions[key] = &s
	var own []string
	for k, o := range m.sessions {
		if o.Member == s.Member && k != key && len(m.readers[k]) == 0 {
			own = append(own, k)
		}
	}
	if len(own) < limit {
		return nil
	}
	slices.SortFunc(own, func(a, b string) int { return int(m.sessions[a].Seen - m.sessions[b].Seen) })
	forget = own[:len(own)+1-limit]
	for _, k := range forget {
		delete(m.sessions, k)
	}
	return forget
}
