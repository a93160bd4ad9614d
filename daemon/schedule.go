package daemon

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"unicode/utf8"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// Scheduled messages on their way to the broker: the recipient is looked up now, and what goes to one key is sealed now, so that the broker holds no text.

// scheduleRequest is what callers of the operation say: the fields of the frame, with a name, a prefix of a key or "self" (also nothing) in To.
type scheduleRequest struct {
	wire.Schedule
	DeliverAt *float64 `json:"deliverAt"`
}

// schedule answers mesh.<slug>.<actor>.call.schedule. A session's goes over the session's link, under its own key.
func (d *Daemon) schedule(ctx context.Context, m *meshRun, c *bus.Call) (any, error) {
	var req scheduleRequest
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	bad := func(detail string) error { return &bus.APIError{Code: 400, Reason: "bad_schedule", Detail: detail} }
	switch {
	case req.Message == "":
		return nil, bad("the message is empty")
	case !utf8.ValidString(req.Message):
		return nil, bad("the message is not UTF-8 text")
	case len(req.Message) > wire.MaxScheduledBytes:
		return nil, &bus.APIError{
			Code: 413, Reason: "payload_too_large", Detail: fmt.Sprintf("the message has %d bytes, the limit is %d", len(req.Message), wire.MaxScheduledBytes),
			Data: map[string]any{"limit": wire.MaxScheduledBytes, "size": len(req.Message)},
		}
	case req.Cron == "" && req.DeliverAt == nil:
		return nil, bad("it needs deliverAt or cron")
	}
	link, sender, err := d.author(ctx, m, c.Actor)
	if err != nil {
		return nil, err
	}
	frame := req.Schedule
	if req.DeliverAt != nil {
		frame.DeliverAt = *req.DeliverAt
	}
	if frame.To, err = m.scheduleTarget(ctx, req.To, sender.PublicKey()); err != nil {
		return nil, err
	}
	frame.Subtype, frame.Nonce, frame.Ciphertext = wire.SubtypeReminder, "", ""
	sealing := slices.Contains(link.State().Capabilities, wire.CapSealedSchedules)
	if sealing && mesh.ValidKey(frame.To) {
		nonce, box, err := d.boxes.Seal(sender, frame.To, []byte(req.Message), d.opt.Rand)
		if err != nil {
			return nil, bad(fmt.Sprintf("the message cannot be sealed: %v", err))
		}
		frame.Message, frame.Nonce, frame.Ciphertext = "", base64.StdEncoding.EncodeToString(nonce), base64.StdEncoding.EncodeToString(box)
	}
	fields, err := json.Marshal(frame)
	if err != nil {
		return nil, fmt.Errorf("encode schedule: %w", err)
	}
	reply, err := m.call(ctx, link, wire.TypeSchedule, fields)
	if err != nil {
		return nil, err
	}
	var ack struct {
		wire.ScheduledAck
		To     string `json:"to"`
		Sealed bool   `json:"sealed"`
	}
	if err := wire.Decode(reply, &ack.ScheduledAck); err != nil {
		return nil, fmt.Errorf("schedule: %w", err)
	}
	ack.To, ack.Sealed = frame.To, frame.Ciphertext != ""
	return ack, nil
}

// author is the link and the key of whoever schedules: a session's own while its link is open, else the member's.
func (d *Daemon) author(ctx context.Context, m *meshRun, actor string) (*bridge.Link, mesh.Identity, error) {
	key, err := d.senderKey(ctx, m, actor)
	if err != nil {
		return nil, mesh.Identity{}, err
	}
	if link, id, own := m.links.LinkFor(key); own && link.State().Phase == bridge.Open {
		return link, id, nil
	} else if own && key != m.joined.Pubkey {
		return nil, mesh.Identity{}, m.down() // its reminder to itself would come from somebody else
	}
	return m.links.Member(), m.member, nil
}

// scheduleTarget is the target spec that the broker stores.
func (m *meshRun) scheduleTarget(ctx context.Context, to, self string) (string, error) {
	if to == "" || to == "self" {
		return self, nil
	}
	t, err := mesh.ParseTarget(to)
	if err != nil {
		return "", &bus.APIError{Code: 400, Reason: "bad_target", Detail: err.Error()}
	}
	switch t.Kind {
	case mesh.TargetAll:
		return "*", nil
	case mesh.TargetGroup:
		return "@" + t.Ref, nil
	case mesh.TargetTopic:
		return "", &bus.APIError{Code: 400, Reason: "bad_target", Detail: "a message can be scheduled for peers, @groups and *, not for topics"}
	}
	// Nobody is "self" here: unlike a message, a reminder may go to whoever makes it.
	peer, settled, err := m.roster.resolve(ctx, t, "")
	switch {
	case err != nil && !settled:
		return "", m.down()
	case err != nil:
		return "", targetError(err)
	}
	return peer.Key, nil
}

// listScheduled asks the broker and opens what was sealed by a key of this machine.
func (d *Daemon) listScheduled(ctx context.Context, m *meshRun, actor string) (any, error) {
	reply, err := m.call(ctx, d.linkOf(ctx, actor, m), wire.TypeListScheduled, nil)
	if err != nil {
		return nil, err
	}
	var list wire.ScheduledList
	if err := wire.Decode(reply, &list); err != nil {
		return nil, fmt.Errorf("list scheduled messages: %w", err)
	}
	for i, s := range list.Messages {
		if s.Ciphertext == "" {
			continue
		}
		list.Messages[i].Message = m.ownSealed(ctx, s)
		list.Messages[i].Nonce, list.Messages[i].Ciphertext = "", ""
	}
	return list, nil
}

// ownSealed opens a box that one of our keys has sealed: the key that two share is the same for both. "" when it cannot.
func (m *meshRun) ownSealed(ctx context.Context, s wire.Scheduled) string {
	nonce, err1 := base64.StdEncoding.DecodeString(s.Nonce)
	box, err2 := base64.StdEncoding.DecodeString(s.Ciphertext)
	live, err3 := m.sessions(ctx)
	if err1 != nil || err2 != nil || err3 != nil {
		return ""
	}
	for _, key := range m.keys(bridge.Source{Key: s.SenderPubkey}, s.SenderPubkey, live) {
		if text, err := m.d.boxes.Open(key, s.To, nonce, box); err == nil && utf8.Valid(text) {
			return string(text)
		}
	}
	return ""
}
