package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/broker/fts"
	"claudemesh/wire"
)

// The memory of a mesh: texts of its members, found by their words through the search view. The records in the bucket are the truth; the view only yields
// ids.

// memoryKind is the kind of their documents in the view.
const memoryKind = "memory"

// memoryRecord is a memory as it is stored. ByKey is the public key of its author.
type memoryRecord struct {
	Content string   `json:"content"`
	Tags    []string `json:"tags"`
	By      string   `json:"by"`
	ByKey   string   `json:"by_key"`
	At      int64    `json:"at"`
}

func (m memoryRecord) row(id string) wire.Memory {
	return wire.Memory{ID: id, Content: m.Content, Tags: m.Tags, RememberedBy: m.By, RememberedAt: wire.Timestamp(unixMilli(m.At))}
}

// memoryDocs reads an entry of the bucket for the search view. One that cannot be read is passed over: it must not stop those behind it.
func memoryDocs(msg *jetstream.RawStreamMsg) (put, drop []fts.Doc) {
	_, meshID, id := splitKey(strings.TrimPrefix(msg.Subject, dataPrefix))
	doc := fts.Doc{Mesh: meshID, Kind: memoryKind, ID: id}
	if msg.Header.Get(kvOperation) != "" {
		return nil, []fts.Doc{doc}
	}
	var m memoryRecord
	if json.Unmarshal(msg.Data, &m) != nil {
		return nil, nil
	}
	doc.Text = m.Content
	return []fts.Doc{doc}, nil
}

func (c *conn) memoryKey(id string) string { return recordKey(familyMemory, c.mesh.rec.ID, id) }

func (c *conn) remember(data []byte, reqID string) {
	var f wire.Remember
	if !c.decode(data, reqID, &f) {
		return
	}
	id, err := newID(c.b.cfg.Rand)
	if err != nil {
		c.storeFailed(reqID, wire.TypeRemember, err)
		return
	}
	m := memoryRecord{Content: f.Content, Tags: append([]string{}, f.Tags...), By: c.author(), ByKey: c.member.Pubkey, At: c.b.now().UnixMilli()}
	if c.tooBig(reqID, m.row(id)) {
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	s, err := c.b.hold(ctx, familyMemory, c.mesh.rec.ID)
	if err != nil {
		c.storeFailed(reqID, wire.TypeRemember, err)
		return
	}
	defer s.done()
	if s.n >= c.b.lim.MemoriesPerMesh {
		c.fail(reqID, wire.CodeLimit, fmt.Sprintf("the mesh remembers %d things already", s.n))
		return
	}
	if err := s.add(ctx, c.b.store, c.memoryKey(id), m); err != nil {
		c.storeFailed(reqID, wire.TypeRemember, err)
		return
	}
	c.reply(wire.MemoryStored{Type: wire.TypeMemoryStored, ID: id, ReqID: reqID})
}

func (c *conn) recall(data []byte, reqID string) {
	var f wire.Recall
	if !c.decode(data, reqID, &f) {
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	hits, err := c.b.memories.search(ctx, c.mesh.rec.ID, memoryKind, f.Query, wire.MaxRecall)
	if err != nil {
		c.storeFailed(reqID, wire.TypeRecall, err)
		return
	}
	answer := wire.MemoryResults{Type: wire.TypeMemoryResults, Memories: []wire.Memory{}, ReqID: reqID}
	var p page
	for _, h := range hits {
		r, err := getRecord[memoryRecord](ctx, c.b.store, c.memoryKey(h.ID))
		if errors.Is(err, errNoRecord) {
			continue // forgotten since
		}
		if err != nil {
			c.storeFailed(reqID, wire.TypeRecall, err)
			return
		}
		row := r.Value.row(h.ID)
		fits, err := p.takes(row)
		if err != nil {
			c.storeFailed(reqID, wire.TypeRecall, err)
			return
		}
		if !fits {
			answer.More = true
			break
		}
		answer.Memories = append(answer.Memories, row)
	}
	c.reply(answer)
}

// forget is answered as the reference does, also when there was nothing.
func (c *conn) forget(data []byte, reqID string) {
	var f wire.Forget
	if !c.decode(data, reqID, &f) {
		return
	}
	answer := wire.Ack{Type: wire.TypeAck, ID: f.MemoryID, MessageID: f.MemoryID, ReqID: reqID}
	if !validID(f.MemoryID) { // none has it, and it may be no token of a key
		answer.Code = wire.CodeNotFound
		c.reply(answer)
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	s, err := c.b.hold(ctx, familyMemory, c.mesh.rec.ID)
	if err != nil {
		c.storeFailed(reqID, wire.TypeForget, err)
		return
	}
	defer s.done()
	r, err := getRecord[memoryRecord](ctx, c.b.store, c.memoryKey(f.MemoryID))
	switch {
	case errors.Is(err, errNoRecord):
		answer.Code = wire.CodeNotFound
	case err != nil:
		c.storeFailed(reqID, wire.TypeForget, err)
		return
	default:
		if no := c.mayTouch(wire.TypeForget, r.Value.ByKey == c.member.Pubkey); no != nil {
			c.fail(reqID, no.code, no.message)
			return
		}
		if err := s.remove(ctx, c.b.store, c.memoryKey(f.MemoryID)); err != nil {
			c.storeFailed(reqID, wire.TypeForget, err)
			return
		}
	}
	c.reply(answer)
}
