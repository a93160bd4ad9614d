package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"claudemesh/bus"
	"claudemesh/daemon/inbox"
	"claudemesh/daemon/outbox"
	"claudemesh/wire"
)

// The story of one message: what this daemon did, what recipients have signed, and, kept apart from both, what the broker says.

// maxTraceSteps bounds one trace: a broadcast has a few steps for every member.
const maxTraceSteps = 500

func (d *Daemon) trace(ctx context.Context, c *bus.Call) (any, error) {
	var q bus.TraceQuery
	if err := c.Decode(&q); err != nil {
		return nil, err
	}
	if q.Mesh != "" {
		if _, err := d.mesh(q.Mesh); err != nil {
			return nil, err
		}
	}
	if q.ID == "" || len(q.ID) > wire.MaxIDBytes {
		return nil, &bus.APIError{Code: 400, Reason: "bad_id", Detail: fmt.Sprintf("name a message by its id, of at most %d bytes", wire.MaxIDBytes)}
	}
	row, msg, err := d.meant(ctx, q, reader(c))
	if err != nil {
		return nil, err
	}
	t := &tracing{d: d, reader: reader(c), out: bus.Trace{Steps: []bus.TraceStep{}}}
	if row != nil {
		if err := t.sent(ctx, *row); err != nil {
			return nil, err
		}
	}
	if msg != nil {
		if err := t.received(ctx, *msg); err != nil {
			return nil, err
		}
	}
	return t.finish(), nil
}

// meant finds the message in the outbox, in the inbox, or in both when it went from one session of this machine to another.
func (d *Daemon) meant(ctx context.Context, q bus.TraceQuery, reader string) (*outbox.Row, *inbox.Message, error) {
	row, rowErr := d.outbox.Find(ctx, q.ID, reader, q.Mesh)
	msg, msgErr := d.inbox.Find(ctx, q.ID, reader, q.Mesh)
	several := &bus.APIError{Code: 409, Reason: "id_ambiguous", Detail: "several messages have an id that begins with " + q.ID + "; give more of it, or --mesh"}
	noRow, noMsg := errors.Is(rowErr, outbox.ErrNotFound), errors.Is(msgErr, inbox.ErrNotFound)
	switch {
	case errors.Is(rowErr, outbox.ErrAmbiguous), errors.Is(rowErr, outbox.ErrAmbiguousPrefix), errors.Is(msgErr, inbox.ErrAmbiguous):
		return nil, nil, several
	case rowErr != nil && !noRow:
		return nil, nil, fmt.Errorf("trace: %w", rowErr)
	case msgErr != nil && !noMsg:
		return nil, nil, fmt.Errorf("trace: %w", msgErr)
	case noRow && noMsg:
		return nil, nil, &bus.APIError{Code: 404, Reason: "not_found", Detail: "no message with the id " + q.ID + " was sent or received here"}
	case noMsg:
		// Found by an id that only the sender's side has; the other side may be here, too.
		return &row, d.twin(ctx, row, reader), nil
	case noRow:
		if m, err := d.mesh(msg.Mesh); err == nil && msg.SenderMemberKey == m.joined.Pubkey {
			if own, ok, err := d.outbox.Lookup(ctx, msg.Mesh, msg.ClientMessageID); err == nil && ok && (reader == "" || own.Actor == reader) {
				return &own, &msg, nil
			}
		}
		return nil, &msg, nil
	case row.Mesh == msg.Mesh && row.ClientMessageID == msg.ClientMessageID:
		return &row, &msg, nil
	}
	return nil, nil, several
}

// twin is a sent message as it was received on this same machine, nil when it was not.
func (d *Daemon) twin(ctx context.Context, row outbox.Row, reader string) *inbox.Message {
	m, err := d.mesh(row.Mesh)
	if err != nil {
		return nil
	}
	found, err := d.inbox.Meant(ctx, row.ClientMessageID, reader, row.Mesh)
	if err != nil {
		return nil
	}
	for _, msg := range found {
		if msg.SenderMemberKey == m.joined.Pubkey && msg.ClientMessageID == row.ClientMessageID {
			return &msg
		}
	}
	return nil
}

// tracing collects the steps of one message for one reader.
type tracing struct {
	d      *Daemon
	reader string // "" is the user
	out    bus.Trace
}

func (t *tracing) step(s bus.TraceStep) { t.out.Steps = append(t.out.Steps, s) }

// sent tells the sender's side.
func (t *tracing) sent(ctx context.Context, row outbox.Row) error {
	o := &t.out
	o.Sent, o.Mesh, o.ID, o.ClientMessageID, o.BrokerMessageID = true, row.Mesh, row.ID, row.ClientMessageID, row.BrokerMessageID
	o.From, o.To, o.State, o.Attempts = t.d.actorName(ctx, row.Actor), row.Target, t.d.state(ctx, row), row.Attempts
	t.step(bus.TraceStep{State: bus.StateAccepted, At: stamp(row.EnqueuedAt), By: o.From, Key: row.SenderKey, Source: bus.SourceDaemon})
	if row.Status == outbox.Done {
		t.step(bus.TraceStep{State: bus.StateSent, At: stamp(row.DeliveredAt), Source: bus.SourceBroker, Detail: "the broker has it"})
	} else if row.LastError != "" {
		o.Error = row.LastError
	}
	if o.State == bus.StateFailed {
		detail := cmp.Or(row.LastError, "requeued under another id")
		t.step(bus.TraceStep{State: bus.StateFailed, At: stamp(row.AbortedAt), By: row.AbortedBy, Source: bus.SourceDaemon, Detail: detail})
	}
	receipts, err := t.d.outbox.Receipts(ctx, row.ID)
	if err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	m, err := t.d.mesh(row.Mesh)
	if err != nil {
		m = nil // left since; the history is kept
	}
	vouched := map[string]bool{}
	for _, r := range receipts {
		s := bus.TraceStep{State: r.State, At: stamp(r.At), Via: printable(r.Via), By: printable(r.By), Key: r.Recipient, Source: bus.SourceReceipt}
		switch {
		case r.State == bus.StateAnswered:
			s.Source = bus.SourceReply
		case !r.Proven:
			s.Source = bus.SourceBroker
		default:
			vouched[r.Recipient] = true
		}
		if s.By == "" && m != nil {
			s.By = printable(m.roster.name(r.Recipient))
		}
		t.step(s)
	}
	if row.BrokerMessageID != "" && m != nil {
		t.brokersWord(ctx, m, row, vouched)
	}
	return nil
}

// brokersWord adds what the broker says of recipients who have not spoken for themselves.
func (t *tracing) brokersWord(ctx context.Context, m *meshRun, row outbox.Row, vouched map[string]bool) {
	var got wire.MessageStatusResult
	fields, err := wire.Encode(wire.MessageStatus{MessageID: row.BrokerMessageID})
	if err == nil {
		var reply []byte
		if reply, err = m.call(ctx, m.links.Member(), bus.CallMessageStatus, fields); err == nil {
			err = wire.Decode(reply, &got)
		}
	}
	if err != nil {
		t.out.BrokerSilent = err.Error()
		return
	}
	t.out.Omitted += got.Omitted
	for _, r := range got.Recipients {
		if vouched[r.Pubkey] {
			continue
		}
		s := bus.TraceStep{State: bus.StepWaiting, At: brokerTime(r.At), By: printable(cmp.Or(m.roster.name(r.Pubkey), r.Name)), Key: printable(r.Pubkey), Source: bus.SourceBroker, Detail: printable(cmp.Or(r.State, r.Status))}
		if r.Status == wire.RecipientDelivered {
			s.State, s.Detail = bus.StateDelivered, "no receipt came"
		}
		t.step(s)
	}
}

// brokerTime is a time as a broker wrote it, in our form; "" for what is none.
func brokerTime(s string) string {
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return ""
	}
	return stamp(at)
}

// received tells the recipient's side.
func (t *tracing) received(ctx context.Context, msg inbox.Message) error {
	o := &t.out
	o.Received = true
	if !o.Sent {
		o.Mesh, o.ID, o.ClientMessageID, o.BrokerMessageID, o.From, o.State = msg.Mesh, msg.ID, msg.ClientMessageID, msg.BrokerMessageID, msg.SenderName, stateOf(msg)
		if m, err := t.d.mesh(msg.Mesh); err == nil {
			o.To = m.addressee(msg)
		}
		t.step(bus.TraceStep{State: bus.StateSent, At: stamp(msg.CreatedAt), By: msg.SenderName, Key: msg.SenderKey, Source: bus.SourceBroker})
	}
	t.step(bus.TraceStep{State: bus.StepReceived, At: stamp(msg.ReceivedAt), Key: msg.RecipientKey, Source: bus.SourceDaemon, Detail: msg.Reason})
	deliveries, err := t.d.inbox.Deliveries(ctx, msg.ID)
	if err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	for _, v := range deliveries {
		if t.reader != "" && v.SessionID != t.reader {
			continue
		}
		by := t.d.actorName(ctx, v.SessionID)
		if !v.PushedAt.IsZero() {
			t.step(bus.TraceStep{State: bus.StepPushed, At: stamp(v.PushedAt), By: by, Source: bus.SourceDaemon})
		}
		if !v.SurfacedAt.IsZero() {
			t.step(bus.TraceStep{State: bus.StateSurfaced, At: stamp(v.SurfacedAt), Via: printable(v.Via), By: by, Source: bus.SourceDaemon})
			if !o.Sent && !msg.Undecryptable {
				o.State = bus.StateSurfaced
			}
		}
		if !v.SeenAt.IsZero() {
			t.step(bus.TraceStep{State: bus.StepSeen, At: stamp(v.SeenAt), By: by, Source: bus.SourceDaemon})
		}
	}
	if t.reader == "" && !msg.SeenAt.IsZero() {
		t.step(bus.TraceStep{State: bus.StepSeen, At: stamp(msg.SeenAt), By: bus.User, Source: bus.SourceDaemon})
	}
	answers, err := t.d.outbox.Answers(ctx, msg.Mesh, t.reader, msg.ClientMessageID, msg.BrokerMessageID)
	if err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	for _, a := range answers {
		if a.Kind == bus.SendDM && a.TargetSpec != "" && a.TargetSpec != msg.SenderKey && a.TargetSpec != msg.SenderMemberKey {
			continue // of somebody else's message with the same id
		}
		t.step(bus.TraceStep{
			State: bus.StateAnswered, At: stamp(a.EnqueuedAt), By: t.d.actorName(ctx, a.Actor), Key: a.SenderKey, Source: bus.SourceDaemon,
			Detail: "by message " + a.ClientMessageID,
		})
		if !o.Sent {
			o.State = bus.StateAnswered
		}
	}
	return nil
}

// actorName is what people call who sent or got something here.
func (d *Daemon) actorName(ctx context.Context, actor string) string {
	if actor == bus.User {
		return actor
	}
	if s, err := d.session.Get(ctx, actor); err == nil {
		return s.Name
	}
	return actor
}

// finish puts the steps in order. Of those at the same millisecond the earlier state goes first; the order in which they were found keeps the rest.
func (t *tracing) finish() bus.Trace {
	slices.SortStableFunc(t.out.Steps, func(a, b bus.TraceStep) int {
		if (a.At == "") != (b.At == "") {
			if a.At == "" {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(stepOrder(a.State), stepOrder(b.State)))
	})
	if over := len(t.out.Steps) - maxTraceSteps; over > 0 {
		t.out.Steps, t.out.Omitted = t.out.Steps[:maxTraceSteps], t.out.Omitted+over
	}
	return t.out
}

func stepOrder(state string) int {
	return slices.Index([]string{
		bus.StateAccepted, bus.StateSent, bus.StepReceived, bus.StateDelivered, bus.StepWaiting, bus.StepPushed, bus.StateSurfaced, bus.StepSeen, bus.StateAnswered,
	}, state)
}
