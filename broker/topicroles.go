package broker

import (
	"cmp"
	"slices"
	"strings"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// Who belongs to a topic, and as what. Every function here is called under Broker.mu.

// topicRef finds a topic by id, then by name, for a member; one that it may not know of is not found.
func (m *meshState) topicRef(ref string, who *member) *topic {
	t := m.topics[ref]
	if t == nil {
		t = m.topicNamed(ref)
	}
	if t == nil || !m.mayKnow(t, who) {
		return nil
	}
	return t
}

// mayKnow reports whether a member may know that a topic exists.
func (m *meshState) mayKnow(t *topic, who *member) bool {
	return t.Visibility == wire.TopicPublic || m.topicRole(t, who) != "" || m.roleOf(who) >= roleAdmin
}

// topicRole is what a member is in a topic, "" when it does not belong to it.
func (m *meshState) topicRole(t *topic, who *member) string {
	if who == nil || who.RevokedAt != 0 {
		return ""
	}
	rec, known := t.members[who.Pubkey]
	switch {
	case known && rec.LeftAt != 0:
		return ""
	case known:
		return rec.Role
	case !t.Everyone:
		return ""
	case who.Pubkey == m.rec.OwnerPubkey:
		return wire.TopicLead
	}
	return wire.TopicMember
}

// topicMembers lists who belongs to a topic, by the time of joining.
func (m *meshState) topicMembers(t *topic) []topicMemberRecord {
	var all []topicMemberRecord
	add := func(who *member) {
		role := m.topicRole(t, who)
		if role == "" {
			return
		}
		rec, known := t.members[who.Pubkey]
		if !known {
			rec = topicMemberRecord{Pubkey: who.Pubkey, JoinedAt: max(who.JoinedAt, t.CreatedAt)}
		}
		rec.Role = role
		all = append(all, rec)
	}
	if t.Everyone {
		for _, who := range m.members {
			add(who)
		}
	} else {
		for pubkey := range t.members {
			add(m.members[pubkey])
		}
	}
	slices.SortFunc(all, func(a, b topicMemberRecord) int {
		return cmp.Or(cmp.Compare(a.JoinedAt, b.JoinedAt), strings.Compare(a.Pubkey, b.Pubkey))
	})
	return all
}

// leads lists the leads of a topic. When all have gone, the member that has been there longest is lead: somebody must be able to make a new key.
func (m *meshState) leads(t *topic) []string {
	var leads []string
	all := m.topicMembers(t)
	for _, rec := range all {
		if rec.Role == wire.TopicLead {
			leads = append(leads, rec.Pubkey)
		}
	}
	if len(leads) == 0 && len(all) > 0 {
		leads = []string{all[0].Pubkey}
	}
	return leads
}

func (m *meshState) isLead(t *topic, who *member) bool {
	return m.topicRole(t, who) != "" && slices.Contains(m.leads(t), who.Pubkey)
}

// waiting lists the members for whom the newest key is not sealed.
func (m *meshState) waiting(t *topic) []*member {
	if t.Generation == 0 {
		return nil
	}
	var all []*member
	for _, rec := range m.topicMembers(t) {
		if !t.sealed[rec.Pubkey] {
			all = append(all, m.members[rec.Pubkey])
		}
	}
	return all
}

// rotationDue reports whether somebody has the newest key who does not belong to the topic any more.
func (m *meshState) rotationDue(t *topic) bool {
	for pubkey := range t.sealed {
		if m.topicRole(t, m.members[pubkey]) == "" {
			return true
		}
	}
	return false
}

// audience lists the mailboxes of a post: all members' whose grants take the sender's broadcasts, the sender's own only if one of its connections asked
// for that.
func (m *meshState) audience(t *topic, sender *member) []string {
	own := false
	for c := range m.conns {
		own = own || c.member == sender && c.ownMulticast
	}
	to := []string{}
	for _, rec := range m.topicMembers(t) {
		if (rec.Pubkey != sender.Pubkey || own) && m.members[rec.Pubkey].admits(sender.Pubkey, mesh.CapBroadcast) {
			to = append(to, rec.Pubkey)
		}
	}
	slices.Sort(to)
	return to
}

// memberRef finds a member by id or public key.
func (m *meshState) memberRef(ref string) *member {
	if mesh.ValidKey(ref) {
		return m.active(ref)
	}
	for _, who := range m.members {
		if who.ID == ref && who.RevokedAt == 0 {
			return who
		}
	}
	return nil
}
