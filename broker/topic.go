package broker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// Topics: what this process knows of them. A topic has members, checked for every post, page and key; posts, kept in its history; and, unless only clients
// of the reference use it, a key that its members make and seal for one another. The broker keeps sealed keys and can open none.

const (
	maxTopicsPerMesh = 1024
	maxTopicHistory  = 10_000 // posts of one topic

	// generalTopic is the topic that every mesh has, to which everybody belongs who has not left it.
	generalTopic = "general"
)

// topicRecord is a topic as it lies in the store. Generation counts its keys.
type topicRecord struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Visibility  string `json:"visibility"`
	Everyone    bool   `json:"everyone,omitempty"` // every member of the mesh belongs to it
	CreatedAt   int64  `json:"created_at"`
	Generation  int    `json:"generation,omitempty"`
}

// topicMemberRecord is one membership. In a topic of everyone it exists only where there is something to remember, for instance that a member has left.
type topicMemberRecord struct {
	Pubkey     string `json:"pubkey"`
	Role       string `json:"role"`
	JoinedAt   int64  `json:"joined_at"`
	LastReadAt int64  `json:"last_read_at,omitempty"`
	LeftAt     int64  `json:"left_at,omitempty"`
}

// topicKeyRecord is one generation of a topic's key, sealed for members by their public keys.
type topicKeyRecord struct {
	At     int64                    `json:"at"`
	Sealed map[string]sealedForThem `json:"sealed"`
}

type sealedForThem struct {
	wire.SealedKey
	By string `json:"by"` // public key of the member who sealed it
}

// topic is a topic in memory. Broker.mu guards it.
type topic struct {
	topicRecord
	members map[string]topicMemberRecord // by public key
	sealed  map[string]bool              // for whom the newest key is sealed, by public key
}

func topicKey(meshID, id string) string { return recordKey(topicFamily, meshID, id) }

func topicMemberKey(meshID, id, pubkey string) string {
	return recordKey(topicMemberFamily, meshID, id, pubkey)
}

func topicKeyKey(meshID, id string, generation int) string {
	return recordKey(topicKeyFamily, meshID, id, strconv.Itoa(generation))
}

// loadTopics fills the meshes' topics from the store, and gives every mesh its general one.
func (b *Broker) loadTopics(ctx context.Context) error {
	topics, err := listRecords[topicRecord](ctx, b.store, topicFamily)
	if err != nil {
		return err
	}
	for _, r := range topics {
		meshID, _ := topicOfKey(r.Key)
		if m := b.meshes[meshID]; m != nil {
			m.topics[r.Value.ID] = newTopic(r.Value)
		}
	}
	members, err := listRecords[topicMemberRecord](ctx, b.store, topicMemberFamily)
	if err != nil {
		return err
	}
	for _, r := range members {
		meshID, id := topicOfKey(r.Key)
		if m := b.meshes[meshID]; m != nil && m.topics[id] != nil {
			m.topics[id].members[r.Value.Pubkey] = r.Value
		}
	}
	for _, m := range b.meshes {
		for _, t := range m.topics {
			if t.Generation == 0 {
				continue
			}
			keys, err := getRecord[topicKeyRecord](ctx, b.store, topicKeyKey(m.rec.ID, t.ID, t.Generation))
			if err != nil && !errors.Is(err, errNoRecord) {
				return err
			}
			for pubkey := range keys.Value.Sealed {
				t.sealed[pubkey] = true
			}
		}
		if err := b.ensureGeneral(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// topicOfKey reads mesh and topic out of a record's key.
func topicOfKey(key string) (meshID, id string) {
	tokens := append(strings.Split(key, "."), "", "", "")
	return tokens[1], tokens[2]
}

func newTopic(rec topicRecord) *topic {
	return &topic{topicRecord: rec, members: map[string]topicMemberRecord{}, sealed: map[string]bool{}}
}

// ensureGeneral makes a mesh's general topic. It has no key until a member gives it one: clients of the reference post in clear.
func (b *Broker) ensureGeneral(ctx context.Context, m *meshState) error {
	b.mu.RLock()
	has := m.topicNamed(generalTopic) != nil
	b.mu.RUnlock()
	if has {
		return nil
	}
	id, err := newID(b.cfg.Rand)
	if err != nil {
		return err
	}
	rec := topicRecord{ID: id, Name: generalTopic, Visibility: wire.TopicPublic, Everyone: true, CreatedAt: b.now().UnixMilli()}
	if err := b.store.createRecord(ctx, topicKey(m.rec.ID, id), rec); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	m.topics[id] = newTopic(rec)
	return nil
}

func (m *meshState) topicNamed(name string) *topic {
	for _, t := range m.topics {
		if t.Name == name {
			return t
		}
	}
	return nil
}

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

// tellTopic sends an event about a topic to the member connections of those meant that know what to do with it.
func (b *Broker) tellTopic(m *meshState, t *topic, event string, about *member, meant func(pubkey string) bool) {
	b.mu.RLock()
	var to []*conn
	for c := range m.conns {
		if c.topicEvents && meant(c.member.Pubkey) {
			to = append(to, c)
		}
	}
	data := wire.TopicEvent{TopicID: t.ID, Topic: t.Name, Generation: t.Generation}
	b.mu.RUnlock()
	if about != nil {
		data.MemberID = about.ID
	}
	if len(to) > 0 {
		b.tell(to, m.rec.ID, event, data)
	}
}

// gone tells the leads of a topic that somebody left it with its key.
func (b *Broker) gone(m *meshState, t *topic, who *member) {
	b.mu.RLock()
	due, leads := t.Generation > 0 && m.rotationDue(t), m.leads(t)
	b.mu.RUnlock()
	if due {
		b.tellTopic(m, t, wire.EventTopicRotateNeeded, who, func(pubkey string) bool { return slices.Contains(leads, pubkey) })
	}
}

// goneFromAll is gone for all topics: who is no member of the mesh any more.
func (b *Broker) goneFromAll(m *meshState, who *member) {
	b.mu.RLock()
	var left []*topic
	for _, t := range m.topics {
		if t.sealed[who.Pubkey] {
			left = append(left, t)
		}
	}
	b.mu.RUnlock()
	for _, t := range left {
		b.gone(m, t, who)
	}
}

// routePost fills in the mailboxes of a post, after checking that its sender may make it.
func (c *conn) routePost(ctx context.Context, rec *accepted) *refusal {
	ref := rec.Target[1:]
	c.b.mu.RLock()
	t := c.mesh.topicRef(ref, c.member)
	if t == nil {
		c.b.mu.RUnlock()
		return refused(wire.AckNotFound, fmt.Sprintf("not_found: no topic %.64q", ref))
	}
	role, name, to := c.mesh.topicRole(t, c.member), c.member.Name, c.mesh.audience(t, c.member)
	rec.Topic, rec.TopicID = t.Name, t.ID
	c.b.mu.RUnlock()
	switch {
	case role == "":
		return refused(wire.AckForbidden, fmt.Sprintf("forbidden: not a member of topic %.64q", rec.Topic))
	case role == wire.TopicObserver:
		return refused(wire.AckForbidden, fmt.Sprintf("forbidden: an observer of topic %.64q does not post to it", rec.Topic))
	case rec.BodyVersion < 0 || rec.BodyVersion > wire.BodySealed:
		return refused(wire.AckInvalid, "invalid: bodyVersion must be 1 or 2")
	}
	rec.Target, rec.MemberName, rec.BodyVersion, rec.Multicast = "#"+rec.TopicID, name, max(rec.BodyVersion, wire.BodyPlain), true
	if rec.ReplyTo != "" && !c.b.isPost(ctx, rec.Mesh, rec.TopicID, rec.ReplyTo) {
		rec.ReplyTo = "" // as the reference does with what is no post of this topic
	}
	depth := c.b.lim.MailboxDepth
	rec.To = slices.DeleteFunc(to, func(key string) bool { return c.b.store.full(ctx, mailSubject(rec.Mesh, key), depth) })
	return nil
}

// isPost reports whether a topic has that post. One that was accepted just now may not be in the history yet, an old one is there only.
func (b *Broker) isPost(ctx context.Context, meshID, topicID, id string) bool {
	if !validID(id) {
		return false
	}
	if rec, err := b.store.recordByID(ctx, meshID, id); err == nil {
		return rec.TopicID == topicID
	}
	return b.history.has(ctx, meshID, topicID, id)
}

// encodePost is a post as it lies in the history: without its mailboxes.
func encodePost(rec *accepted) ([]byte, error) {
	post := *rec
	post.To = nil
	data, err := json.Marshal(post)
	if err != nil {
		return nil, fmt.Errorf("encode post: %w", err)
	}
	return data, nil
}
