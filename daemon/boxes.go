package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"claudemesh/bus"
	"claudemesh/daemon/inbox"
	"claudemesh/daemon/outbox"
	"claudemesh/wire"
)

// The requests about messages received (inbox-*) and accepted (outbox-*). A session sees its own rows only; the user sees all.

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
	items, err := d.inbox.List(ctx, inbox.Query{Session: reader(c), Mesh: q.Mesh, Unread: q.Unread, Limit: q.Limit})
	if err != nil {
		return nil, fmt.Errorf("list inbox: %w", err)
	}
	out := d.items(items)
	out.Unread = int(unread)
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
	return d.surface(ctx, c.Actor, ids, via)
}

// items converts newest-first rows to the oldest-first list of the API.
func (d *Daemon) items(items []inbox.Item) bus.InboxList {
	out := bus.InboxList{Items: make([]bus.InboxItem, 0, len(items))}
	for i := len(items) - 1; i >= 0; i-- {
		to := ""
		if m, err := d.mesh(items[i].Mesh); err == nil {
			to = m.addressee(items[i].Message)
		}
		out.Items = append(out.Items, inboxItem(items[i], to))
	}
	return out
}

func inboxItem(it inbox.Item, to string) bus.InboxItem {
	m := it.Message
	out := bus.InboxItem{
		ID: m.ID, ClientMessageID: m.ClientMessageID, BrokerMessageID: m.BrokerMessageID, Mesh: m.Mesh, FromName: m.SenderName, FromKey: m.SenderKey,
		FromMemberKey: m.SenderMemberKey, To: to, ToKey: m.RecipientKey, Topic: m.Topic, Subtype: m.Subtype, Priority: m.Priority, ReplyTo: m.ReplyTo,
		Body: m.Body, ReceivedAt: wire.Timestamp(m.ReceivedAt), Seen: it.Seen, State: it.State,
	}
	if m.Undecryptable {
		out.Body, out.State, out.Reason = "", bus.StateUndecryptable, m.Reason
	}
	return out
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
		if err := d.surface(ctx, c.Actor, req.IDs, req.Via); err != nil {
			return nil, err
		}
	}
	return bus.Count{N: len(req.IDs)}, nil
}

// pendingLimit is how many messages one inbox-pending returns; the shim asks again until it gets fewer.
const pendingLimit = 100

func (d *Daemon) pendingInbox(ctx context.Context, c *bus.Call) (any, error) {
	if c.Actor == bus.User {
		return nil, &bus.APIError{Code: 400, Reason: "no_session", Detail: "only a session has messages pending; the user lists its inbox"}
	}
	msgs, err := d.inbox.Pending(ctx, c.Actor, pendingLimit)
	if err != nil {
		return nil, fmt.Errorf("list pending messages: %w", err)
	}
	out := bus.InboxList{Items: make([]bus.InboxItem, 0, len(msgs)), Unread: len(msgs)}
	ids := make([]string, 0, len(msgs))
	for _, msg := range msgs {
		to := ""
		if m, err := d.mesh(msg.Mesh); err == nil {
			to = m.addressee(msg)
		}
		out.Items = append(out.Items, inboxItem(inbox.Item{Message: msg, State: stateOf(msg)}, to))
		ids = append(ids, msg.ID)
	}
	if len(ids) > 0 {
		if err := d.inbox.Pushed(ctx, c.Actor, ids); err != nil {
			return nil, fmt.Errorf("mark pushed: %w", err)
		}
	}
	return out, nil
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
	return bus.Count{N: len(req.IDs)}, d.surface(ctx, c.Actor, req.IDs, printable(req.Via))
}

// surface closes the session's delivery rows and tells the senders.
func (d *Daemon) surface(ctx context.Context, id string, ids []string, via string) error {
	msgs, err := d.inbox.Surfaced(ctx, id, ids, via)
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

func (d *Daemon) listOutbox(ctx context.Context, c *bus.Call) (any, error) {
	var q bus.OutboxQuery
	if err := c.Decode(&q); err != nil {
		return nil, err
	}
	switch outbox.Status(q.Status) {
	case "", outbox.Pending, outbox.Inflight, outbox.Done, outbox.Dead, outbox.Aborted:
	default:
		return nil, &bus.APIError{Code: 400, Reason: "bad_status", Detail: "status is pending, inflight, done, dead or aborted"}
	}
	f := outbox.Filter{Status: outbox.Status(q.Status), Mesh: q.Mesh, Actor: reader(c), Limit: min(max(q.Limit, 0), 500)}
	if f.Limit == 0 {
		f.Limit = 50
	}
	rows, err := d.outbox.List(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("list outbox: %w", err)
	}
	out := bus.OutboxList{Items: make([]bus.OutboxItem, 0, len(rows))}
	for _, r := range rows {
		out.Items = append(out.Items, d.outboxItem(ctx, r))
	}
	return out, nil
}

func (d *Daemon) getOutbox(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.OutboxGet
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	var row outbox.Row
	var err error
	if req.Mesh != "" {
		var ok bool
		if row, ok, err = d.outbox.Lookup(ctx, req.Mesh, req.ID); err == nil && !ok {
			err = outbox.ErrNotFound
		}
	} else {
		row, err = d.outbox.Get(ctx, req.ID)
	}
	if err == nil && c.Actor != bus.User && row.Actor != c.Actor {
		err = outbox.ErrNotFound
	}
	if err != nil {
		return nil, outboxError(req.ID, err)
	}
	item := d.outboxItem(ctx, row)
	receipts, err := d.outbox.Receipts(ctx, row.ID)
	if err != nil {
		return nil, fmt.Errorf("list receipts: %w", err)
	}
	for _, r := range receipts {
		by := ""
		if m, err := d.mesh(row.Mesh); err == nil {
			by = m.roster.name(r.Recipient)
		}
		item.Receipts = append(item.Receipts, bus.Receipt{
			Mesh: row.Mesh, ClientMessageID: row.ClientMessageID, BrokerMessageID: row.BrokerMessageID, State: r.State, Via: r.Via, By: by,
			Recipient: r.Recipient, At: r.At.UnixMilli(),
		})
	}
	return item, nil
}

func outboxError(id string, err error) error {
	switch {
	case errors.Is(err, outbox.ErrNotFound):
		return &bus.APIError{Code: 404, Reason: "not_found", Detail: "no accepted message has the id " + id}
	case errors.Is(err, outbox.ErrAmbiguous):
		return &bus.APIError{Code: 409, Reason: "id_ambiguous", Detail: "the id " + id + " is used on more than one mesh; use the row id"}
	case errors.Is(err, outbox.ErrNotRequeueable):
		return &bus.APIError{Code: 409, Reason: "not_requeueable", Detail: "the message was sent already, or requeued before; nothing was changed"}
	case errors.Is(err, outbox.ErrIDInUse):
		return &bus.APIError{Code: 409, Reason: "id_in_use", Detail: "the new id is used by another message; nothing was changed"}
	default:
		return fmt.Errorf("outbox: %w", storeError(err))
	}
}

func (d *Daemon) outboxItem(ctx context.Context, r outbox.Row) bus.OutboxItem {
	priority := r.Priority
	if priority == "" {
		priority = wire.PriorityNext
	}
	return bus.OutboxItem{
		ID: r.ID, ClientMessageID: r.ClientMessageID, Mesh: r.Mesh, Target: r.Target, TargetSpec: r.TargetSpec, Priority: priority, Status: string(r.Status),
		State: d.state(ctx, r), Attempts: r.Attempts, EnqueuedAt: stamp(r.EnqueuedAt), NextAttemptAt: stamp(r.NextAttemptAt), DeliveredAt: stamp(r.DeliveredAt),
		BrokerMessageID: r.BrokerMessageID, LastError: r.LastError, AbortedAt: stamp(r.AbortedAt), AbortedBy: r.AbortedBy, SupersededBy: r.SupersededBy,
		PayloadBytes: len(r.Payload),
	}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return wire.Timestamp(t)
}

func (d *Daemon) requeue(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.Requeue
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	old, err := d.outbox.Get(ctx, req.ID)
	if err != nil {
		return nil, outboxError(req.ID, err)
	}
	if req.NewClientMessageID == "" {
		id, err := uuid.NewRandomFromReader(d.opt.Rand)
		if err != nil {
			return nil, fmt.Errorf("make message id: %w", err)
		}
		req.NewClientMessageID = id.String()
	}
	if len(req.NewClientMessageID) > wire.MaxIDBytes {
		return nil, &bus.APIError{Code: 400, Reason: "bad_id", Detail: fmt.Sprintf("an id has at most %d bytes", wire.MaxIDBytes)}
	}
	row, err := d.outbox.Requeue(ctx, old.ID, req.NewClientMessageID, "operator")
	if err != nil {
		return nil, outboxError(req.ID, err)
	}
	if m, err := d.mesh(row.Mesh); err == nil {
		m.signal()
	}
	return bus.Requeued{AbortedRowID: old.ID, NewRowID: row.ID, NewClientMessageID: row.ClientMessageID}, nil
}
