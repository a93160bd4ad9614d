package broker

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

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

// vacated tells the leads of a topic that somebody left it with its key.
func (b *Broker) vacated(m *meshState, t *topic, who *member) {
	b.mu.RLock()
	due, leads := t.Generation > 0 && m.rotationDue(t), m.leads(t)
	b.mu.RUnlock()
	if due {
		b.tellTopic(m, t, wire.EventTopicRotateNeeded, who, func(pubkey string) bool { return slices.Contains(leads, pubkey) })
	}
}

// goneFromAll is vacated for all topics: who is no member of the mesh any more.
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
		b.vacated(m, t, who)
	}
}
