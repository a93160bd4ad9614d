package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"claudemesh/bus"
	"claudemesh/wire"
)

// msgStatusVerb is message status under the reference's flat name.
func msgStatusVerb() verb {
	v := messageStatusVerb()
	v.name, v.hidden = "msg-status", true
	return v
}

func messageStatusVerb() verb {
	return verb{
		name: "status", args: "ID", short: "tell how far a message has come",
		long: `ID is what claudemesh send printed, the broker's own id of the message, or 8 or more of its first characters. Of a message that was sent from
here, every step is known with its time, and those from delivered on are signed by the recipient. What only the broker says is shown as such, and is all that
is known of each recipient of a multicast; it moves no state. claudemesh trace tells the same story step by step.

  accepted → sent (the broker has it) → delivered (the recipient's machine has it) → surfaced (a session was shown it); or failed, with the reason`,
		examples: []string{"claudemesh message status 5d0c1f1e-8c1b-4a53-9d0a-6f3f4b0c2a11", "claudemesh message status SPLO6kO0vSc1 --json"},
		fails:    []string{"3  several messages begin so", "4  the broker cannot be reached", "5  no such message", "7  you neither sent nor received it"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh message status ID"); err != nil {
				return err
			}
			slug, err := c.meshFilter(ctx)
			if err != nil {
				return err
			}
			n, err := c.connect(ctx)
			if err != nil {
				return err
			}
			defer n.Close()
			return c.messageStatus(ctx, n, slug, c.args()[0])
		},
	}
}

type messageStatusJSON struct {
	OK              bool                   `json:"ok"`
	Mesh            string                 `json:"mesh"`
	MessageID       string                 `json:"messageId"`
	BrokerMessageID string                 `json:"brokerMessageId,omitempty"`
	Target          string                 `json:"target"`
	State           string                 `json:"state"`
	AcceptedAt      string                 `json:"acceptedAt,omitempty"`
	SentAt          string                 `json:"sentAt,omitempty"`
	DeliveredAt     string                 `json:"deliveredAt,omitempty"`
	SurfacedAt      string                 `json:"surfacedAt,omitempty"`
	Error           string                 `json:"error,omitempty"`
	Attempts        int                    `json:"attempts,omitempty"`
	Receipts        []bus.Receipt          `json:"receipts,omitempty"`
	Recipients      []wire.RecipientStatus `json:"recipients,omitempty"`
	Omitted         int                    `json:"recipientsOmitted,omitempty"`
	BrokerSays      *brokerSays            `json:"brokerSays,omitempty"`
}

// brokerSays is what nobody but the broker vouches for.
type brokerSays struct {
	Delivered   bool   `json:"delivered"`
	DeliveredAt string `json:"deliveredAt,omitempty"`
}

func (c *call) messageStatus(ctx context.Context, n *conn, slug, id string) error {
	out := messageStatusJSON{OK: true, MessageID: id}
	var item bus.OutboxItem
	err := n.daemon(ctx, bus.OpOutboxGet, bus.OutboxGet{ID: id, Mesh: slug}, &item)
	var api *bus.APIError
	switch {
	case err == nil:
		out.ofOutbox(item)
	case errors.As(err, &api) && api.Code == 404 && brokerID(id):
		if out.Mesh, err = c.mesh(ctx, true); err != nil {
			return err
		}
		out.BrokerMessageID = id
	default:
		return err
	}
	if out.BrokerMessageID != "" {
		var got wire.MessageStatusResult
		asked := n.whenOpen(ctx, c.clock, out.Mesh, func() error {
			return n.broker(ctx, out.Mesh, bus.CallMessageStatus, wire.MessageStatus{MessageID: out.BrokerMessageID}, &got)
		})
		switch {
		case asked == nil:
			out.ofBroker(got, item.ID != "")
		case item.ID == "": // nobody else knows it
			return asked
		}
	}
	return c.ui.result(out, func() error { return c.printMessageStatus(out) })
}

// brokerID reports whether id has the form of a broker's message id, or of the beginning of one.
func brokerID(id string) bool {
	for _, r := range id {
		if (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') {
			return false
		}
	}
	return len(id) >= 8 && len(id) <= 32
}

// ofOutbox enters what this machine knows of a message that it sent.
func (s *messageStatusJSON) ofOutbox(it bus.OutboxItem) {
	s.Mesh, s.MessageID, s.BrokerMessageID, s.Target, s.State = it.Mesh, it.ClientMessageID, it.BrokerMessageID, it.Target, it.State
	s.AcceptedAt, s.SentAt, s.Attempts, s.Receipts = it.EnqueuedAt, it.DeliveredAt, it.Attempts, it.Receipts
	if it.State == bus.StateFailed || it.State == bus.StateAccepted {
		s.Error = it.LastError
	}
	for _, r := range it.Receipts {
		at := wire.Timestamp(time.UnixMilli(r.At))
		switch r.State {
		case bus.StateDelivered:
			s.DeliveredAt = later(s.DeliveredAt, at)
		case bus.StateSurfaced:
			s.SurfacedAt = later(s.SurfacedAt, at)
		}
	}
}

// ofBroker enters what the broker says. That it has a message it can know; that a recipient has it is for the recipient to say, and stays apart.
func (s *messageStatusJSON) ofBroker(got wire.MessageStatusResult, ours bool) {
	s.Recipients, s.Omitted = got.Recipients, got.Omitted
	if got.FullID != "" {
		s.BrokerMessageID = got.FullID
	}
	s.BrokerSays = &brokerSays{Delivered: got.Delivered}
	if got.Delivered && got.DeliveredAt != nil {
		s.BrokerSays.DeliveredAt = *got.DeliveredAt
	}
	if ours {
		return
	}
	s.Target, s.State, s.AcceptedAt = got.TargetSpec, bus.StateSent, got.AcceptedAt
	if got.ClientMessageID != "" {
		s.MessageID = got.ClientMessageID
	}
}

// later is the later of two timestamps of the wire, which sort as text; "" is none.
func later(a, b string) string { return max(a, b) }

func (c *call) printMessageStatus(s messageStatusJSON) error {
	if err := c.ui.print("%s  to %s on %s", c.ui.paint(bold, s.State), cleanLine(s.Target), s.Mesh); err != nil {
		return err
	}
	rows := [][2]string{{"accepted", s.AcceptedAt}, {"sent", s.SentAt}, {"delivered", s.DeliveredAt}, {"surfaced", s.SurfacedAt}, {"id", s.MessageID}, {"broker id", s.BrokerMessageID}}
	if s.Error != "" {
		rows = append(rows, [2]string{"error", s.Error})
	}
	if says := s.BrokerSays; says != nil {
		line := "not delivered to everybody it was for"
		if says.Delivered {
			line = strings.TrimSpace("delivered  " + says.DeliveredAt)
		}
		rows = append(rows, [2]string{"broker", "says: " + line})
	}
	for _, r := range s.Recipients {
		line := fmt.Sprintf("%s  %s…  %s", r.Name, short(r.Pubkey), r.State)
		if r.At != "" {
			line += "  " + r.At
		}
		rows = append(rows, [2]string{"recipient", line})
	}
	if s.Omitted > 0 {
		rows = append(rows, [2]string{"", fmt.Sprintf("and %d more", s.Omitted)})
	}
	for _, row := range rows {
		if row[1] == "" {
			continue
		}
		if err := c.ui.print("  %-10s %s", row[0], cleanLine(row[1])); err != nil {
			return err
		}
	}
	return nil
}
