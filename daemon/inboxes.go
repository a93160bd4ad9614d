package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"claudemesh/bus"
	"claudemesh/daemon/inbox"
	"claudemesh/wire"
)

// The requests about received messages (inbox-*). A session sees its own only; the user sees all.

func reader(c *bus.Call) string {
	if c.Actor == bus.User {
		return ""
	}
	return c.Actor
}

func (d *Daemon) listInbox(ctx context.Context, c *bus.Call) (any, error) {
	var q bus.InboxQuery
	if err := c.Decode(&q); err != nil {
		return nil, err
	}
	switch {
	case q.Limit <= 0:
		q.Limit = 100
	case q.Limit > 1000:
		q.Limit = 1000
	}
	if q.Mesh != "" {
		if _, err := d.mesh(q.Mesh); err != nil {
			return nil, err
		}
	}
	unread, err := d.inbox.CountUnread(ctx, reader(c), q.Mesh)
	if err != nil {
		return nil, fmt.Errorf("count unread messages: %w", err)
	}
	wanted := inbox.Query{Session: reader(c), Mesh: q.Mesh, Unread: q.Unread, Topic: q.Topic, From: q.From, Limit: q.Limit}
	if q.Since > 0 {
		wanted.Since = time.UnixMilli(q.Since)
	}
	items, err := d.inbox.List(ctx, wanted)
	if err != nil {
		return nil, fmt.Errorf("list inbox: %w", err)
	}
	list := d.items(items)
	list = list[:fitting(list)]
	slices.Reverse(list)
	out := bus.InboxList{Items: list, Unread: int(unread)}
	if q.MarkSeen {
		if err := d.see(ctx, c, out.Items, q.Via); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// see marks listed messages as seen. For a session that is also one way of being handed over, and the sender hears of it.
func (d *Daemon) see(ctx context.Context, c *bus.Call, items []bus.InboxItem, via string) error {
	ids := make([]string, 0, len(items))
	for _, it := range items {
		ids = append(ids, it.ID)
	}
	if len(ids) == 0 {
		return nil
	}
	if err := d.inbox.MarkSeen(ctx, reader(c), ids); err != nil {
		return fmt.Errorf("mark seen: %w", err)
	}
	if c.Actor == bus.User {
		return nil
	}
	if via == "" {
		via = bus.ViaInbox
	}
	return d.surface(ctx, c.Actor, ids, via, inbox.EvidenceRead)
}

// items converts rows of the inbox, in their order.
func (d *Daemon) items(rows []inbox.Item) []bus.InboxItem {
	out := make([]bus.InboxItem, 0, len(rows))
	for _, row := range rows {
		if m, err := d.mesh(row.Mesh); err == nil {
			out = append(out, m.item(d.ctx, row))
			continue
		}
		out = append(out, inboxItem(row, ""))
	}
	return out
}

// maxListBytes bounds the messages of one reply, which as a whole has to stay under bus.MaxPayload. One message, escaped as badly as can be, has 300 KB.
const maxListBytes = bus.MaxPayload * 3 / 4

// fitting is how many of the first items fit into one reply. Callers ask again for the rest.
func fitting(items []bus.InboxItem) int {
	size := 0
	for i, it := range items {
		b, err := json.Marshal(it)
		if size += len(b) + 1; err != nil || size > maxListBytes {
			return max(i, 1)
		}
	}
	return len(items)
}

func inboxItem(it inbox.Item, to string) bus.InboxItem {
	m := it.Message
	out := bus.InboxItem{
		ID: m.ID, ClientMessageID: m.ClientMessageID, BrokerMessageID: m.BrokerMessageID, Mesh: m.Mesh, FromName: m.SenderName, FromKey: m.SenderKey,
		FromMemberKey: m.SenderMemberKey, To: to, ToKey: m.RecipientKey, Topic: m.Topic, Subtype: m.Subtype, Priority: m.Priority, ReplyTo: m.ReplyTo,
		Body: m.Body, ReceivedAt: wire.Timestamp(m.ReceivedAt), Seen: it.Seen, State: it.State,
	}
	if it.State == inbox.StateSurfaced {
		out.SurfacedAt, out.SurfacedVia = stamp(it.SurfacedAt), it.Via
	}
	if m.ToKind == inbox.ToTopic {
		out.TopicID = strings.TrimPrefix(m.TargetSpec, "#")
	}
	out.Kind = kindOf(m)
	if m.Undecryptable {
		out.Body, out.State, out.Reason = "", bus.StateUndecryptable, m.Reason
	}
	return out
}

// kindOf is how a message was addressed, or what it is when the broker itself speaks.
func kindOf(m inbox.Message) string {
	switch {
	case m.Subtype == wire.SubtypeReminder:
		return "reminder"
	case m.Subtype != "":
		return "event"
	}
	switch m.ToKind {
	case inbox.ToGroup, inbox.ToTopic:
		return m.ToKind
	case inbox.ToAll:
		return "broadcast"
	}
	return "dm"
}

func (d *Daemon) markSeen(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.MessageIDs
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	if err := d.inbox.MarkSeen(ctx, reader(c), req.IDs); err != nil {
		return nil, fmt.Errorf("mark seen: %w", err)
	}
	if c.Actor != bus.User && req.Via != "" {
		if err := d.surface(ctx, c.Actor, req.IDs, req.Via, inbox.EvidenceRead); err != nil {
			return nil, err
		}
	}
	return bus.Count{N: len(req.IDs)}, nil
}

func (d *Daemon) markSurfaced(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.MessageIDs
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	if c.Actor == bus.User {
		return nil, &bus.APIError{Code: 400, Reason: "no_session", Detail: "only a session can surface a message"}
	}
	if req.Via == "" {
		return nil, &bus.APIError{Code: 400, Reason: "no_way", Detail: "say by which way the messages were handed over"}
	}
	return bus.Count{N: len(req.IDs)}, d.surface(ctx, c.Actor, req.IDs, printable(req.Via), inbox.EvidenceRead)
}

// surface closes the session's delivery rows and tells the senders.
func (d *Daemon) surface(ctx context.Context, id string, ids []string, via, evidence string) error {
	msgs, err := d.inbox.Surfaced(ctx, id, ids, via, evidence)
	if err != nil {
		return fmt.Errorf("mark surfaced: %w", err)
	}
	name := id
	if s, err := d.session.Get(ctx, id); err == nil {
		name = s.Name
	}
	for _, msg := range msgs {
		// What could not be opened was never handed over as a message: the sender is not told that it was read.
		if m, err := d.mesh(msg.Mesh); err == nil && !msg.Undecryptable {
			m.reportSurfaced(msg, via, name)
		}
	}
	return nil
}
