package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"claudemesh/wire"
)

// Shared state: one JSON value a key, seen and written by every member. Values appear in no log.

// stateValue is a value as it is stored. By is the display name of who wrote it, ByKey the member's public key.
type stateValue struct {
	Value json.RawMessage `json:"value"`
	By    string          `json:"by"`
	ByKey string          `json:"by_key"`
	At    int64           `json:"at"`
}

func (v stateValue) entry(key string) wire.StateEntry {
	return wire.StateEntry{Key: key, Value: v.Value, UpdatedBy: v.By, UpdatedAt: wire.Timestamp(unixMilli(v.At))}
}

func (c *conn) valueKey(key string) string {
	return recordKey(familyState, c.mesh.rec.ID, recordName(key))
}

// setState stores a value and tells the others.
func (c *conn) setState(data []byte, reqID string) {
	var f wire.SetState
	if !c.decode(data, reqID, &f) {
		return
	}
	v := stateValue{Value: f.Value, By: c.author(), ByKey: c.member.Pubkey, At: c.b.now().UnixMilli()}
	if c.tooBig(reqID, v.entry(f.Key)) {
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	s, err := c.b.hold(ctx, familyState, c.mesh.rec.ID)
	if err != nil {
		c.storeFailed(reqID, wire.TypeSetState, err)
		return
	}
	defer s.done()
	_, err = getRecord[stateValue](ctx, c.b.store, c.valueKey(f.Key))
	switch {
	case errors.Is(err, errNoRecord) && s.n >= c.b.lim.StateKeys:
		c.fail(reqID, wire.CodeLimit, fmt.Sprintf("the mesh holds %d keys already", s.n))
		return
	case errors.Is(err, errNoRecord):
		err = s.add(ctx, c.b.store, c.valueKey(f.Key), v)
	case err == nil:
		err = c.b.store.putRecord(ctx, c.valueKey(f.Key), v)
	}
	if err != nil {
		c.storeFailed(reqID, wire.TypeSetState, err)
		return
	}
	c.news(wire.StateChange{Type: wire.TypeStateChange, Key: f.Key, Value: f.Value, UpdatedBy: v.By}, false)
	c.done(reqID)
}

func (c *conn) getState(data []byte, reqID string) {
	var f wire.GetState
	if !c.decode(data, reqID, &f) {
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	r, err := getRecord[stateValue](ctx, c.b.store, c.valueKey(f.Key))
	answer := wire.StateResult{Type: wire.TypeStateResult, StateEntry: r.Value.entry(f.Key), ReqID: reqID}
	switch {
	case errors.Is(err, errNoRecord):
		answer.StateEntry = wire.StateEntry{Key: f.Key}
	case err != nil:
		c.storeFailed(reqID, wire.TypeGetState, err)
		return
	}
	c.reply(answer)
}

// deleteState removes a key and tells the others, who hear of the value null.
func (c *conn) deleteState(data []byte, reqID string) {
	var f wire.DeleteState
	if !c.decode(data, reqID, &f) {
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	s, err := c.b.hold(ctx, familyState, c.mesh.rec.ID)
	if err != nil {
		c.storeFailed(reqID, wire.TypeDeleteState, err)
		return
	}
	defer s.done()
	answer := wire.StateAck{Type: wire.TypeStateAck, Key: f.Key, Action: wire.ActionDeleted, ReqID: reqID}
	_, err = getRecord[stateValue](ctx, c.b.store, c.valueKey(f.Key))
	if errors.Is(err, errNoRecord) {
		answer.Action = wire.ActionNotFound
		c.reply(answer)
		return
	}
	if err == nil {
		err = s.remove(ctx, c.b.store, c.valueKey(f.Key))
	}
	if err != nil {
		c.storeFailed(reqID, wire.TypeDeleteState, err)
		return
	}
	c.news(wire.StateChange{Type: wire.TypeStateChange, Key: f.Key, UpdatedBy: c.author(), Deleted: true}, false)
	c.reply(answer)
}

func (c *conn) listState(data []byte, reqID string) {
	var f wire.ListState
	if !c.decode(data, reqID, &f) {
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	entries := []wire.StateEntry{}
	more, err := listNamed(ctx, c.b.store, familyState, c.mesh.rec.ID, f.After, func(key string, v stateValue) (any, bool) {
		entries = append(entries, v.entry(key))
		return entries[len(entries)-1], true
	})
	switch {
	case err != nil:
		c.storeFailed(reqID, wire.TypeListState, err)
		return
	case more && !f.Paged:
		c.tooMuch(reqID, "values")
		return
	case more:
		entries = entries[:len(entries)-1]
	}
	c.reply(wire.StateList{Type: wire.TypeStateList, Entries: entries, More: more, ReqID: reqID})
}

// listNamed calls row with the records of a family that are stored by name, in the order of the names, behind after. It reads one record at a time, and no
// more when the rows have become more than one answer holds: more is true then, and the last row was one too many. row returns what it made of a record, or
// false to pass over it.
func listNamed[T any](ctx context.Context, s *store, family, meshID, after string, row func(name string, v T) (any, bool)) (more bool, err error) {
	keys, err := s.recordKeys(ctx, family, meshID)
	if err != nil {
		return false, err
	}
	names := make([]string, len(keys))
	for i, key := range keys {
		if names[i], err = nameOf(key[strings.LastIndexByte(key, '.')+1:]); err != nil {
			return false, err
		}
	}
	slices.Sort(names)
	var p page
	for _, name := range names {
		if name <= after {
			continue
		}
		r, err := getRecord[T](ctx, s, recordKey(family, meshID, recordName(name)))
		if errors.Is(err, errNoRecord) {
			continue // deleted since
		}
		if err != nil {
			return false, err
		}
		out, keep := row(name, r.Value)
		if !keep {
			continue
		}
		if fits, err := p.takes(out); err != nil || !fits {
			return !fits, err
		}
	}
	return false, nil
}
