package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"claudemesh/bus"
	"claudemesh/daemon/outbox"
	"claudemesh/wire"
)

// The requests about accepted messages (outbox-*). A session sees its own only; the user sees all.

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
		if !r.Proven {
			continue
		}
		by := r.By
		if m, err := d.mesh(row.Mesh); err == nil && by == "" {
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
	if _, err := d.mesh(old.Mesh); err != nil {
		return nil, err // nothing would send it
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
