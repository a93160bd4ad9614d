package httpapi

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"claudemesh/bus"
	"claudemesh/mesh"
)

// The routes about messages: send, inbox, outbox.

// sendBody is POST /v1/send, under the reference's names and, where they differ, the bus's.
type sendBody struct {
	To              string          `json:"to"`
	Message         string          `json:"message"`
	Body            string          `json:"body"`
	Priority        string          `json:"priority"`
	Meta            json.RawMessage `json:"meta"`
	ReplyToID       string          `json:"reply_to_id"`
	ReplyTo         string          `json:"reply_to"`
	ClientMessageID string          `json:"client_message_id"`
	Mesh            string          `json:"mesh"`
}

// sending makes the bus's request of it. The id in the body goes before the header.
func sending(data []byte, header string) (req bus.SendRequest, slug string, err error) {
	var in sendBody
	if err := decodeBody(data, &in); err != nil {
		return req, "", err
	}
	if in.Message != "" && in.Body != "" || in.ReplyToID != "" && in.ReplyTo != "" {
		return req, "", refusal(400, "bad_request", "the same thing is given twice: message is body, reply_to_id is reply_to")
	}
	req = bus.SendRequest{
		To: strings.TrimSpace(in.To), Body: in.Message + in.Body, Priority: in.Priority, ReplyTo: in.ReplyToID + in.ReplyTo, Meta: in.Meta,
		ClientMessageID: strings.TrimSpace(in.ClientMessageID),
	}
	if req.ClientMessageID == "" {
		req.ClientMessageID = strings.TrimSpace(header)
	}
	if isNull(req.Meta) {
		req.Meta = nil
	}
	if req.To == "" {
		return req, "", refusal(400, "missing_to", "to is missing")
	}
	return req, in.Mesh, nil
}

// send accepts a message. Its code is the bus's: 202 accepted, 200 sent before.
func (s *Server) send(ctx context.Context, c *caller, r *request) (int, any, error) {
	req, body, err := sending(r.data, r.Header.Get("Idempotency-Key"))
	if err != nil {
		return 0, nil, err
	}
	slug, err := s.one(c, r, body)
	if err != nil {
		return 0, nil, err
	}
	target, err := mesh.ParseTarget(req.To)
	if err != nil {
		return 0, nil, refusal(400, "bad_target", err.Error())
	}
	raw, err := c.do(ctx, bus.SendSubject(slug, c.actor(), target.SendKind()), req)
	if err != nil {
		return 0, nil, err
	}
	var reply bus.SendReply
	if err := json.Unmarshal(raw, &reply); err != nil {
		return 0, nil, err
	}
	return reply.Code, raw, nil
}

// itemNames are the reference's names of a message's fields.
func itemNames() map[string]string {
	return map[string]string{"sender_pubkey": "from_key", "sender_name": "from_name", "sender_member_pubkey": "from_member_key", "reply_to_id": "reply_to"}
}

// inbox lists messages, newest first. Looking marks nothing as seen.
func (s *Server) inbox(ctx context.Context, c *caller, r *request) (int, any, error) {
	q := r.URL.Query()
	in := bus.InboxQuery{Mesh: q.Get("mesh"), Topic: strings.TrimPrefix(q.Get("topic"), "#"), From: strings.ToLower(q.Get("from"))}
	var err error
	if in.Since, err = moment(q.Get("since")); err != nil {
		return 0, nil, err
	}
	if in.Limit, err = limit(q.Get("limit"), 100, 1000); err != nil {
		return 0, nil, err
	}
	if q.Has("unread") {
		if in.Unread, err = strconv.ParseBool(q.Get("unread")); err != nil {
			return 0, nil, refusal(400, "bad_request", "unread is true or false")
		}
	}
	o, err := c.object(ctx, bus.OpInboxList, in)
	if err != nil {
		return 0, nil, err
	}
	items, err := o.list("items")
	if err != nil {
		return 0, nil, err
	}
	slices.Reverse(items)
	for _, it := range items {
		it.also(itemNames())
	}
	return 0, o.set("items", items), nil
}

func (s *Server) seen(ctx context.Context, c *caller, r *request) (int, any, error) {
	var in bus.MessageIDs
	if err := r.decode(&in); err != nil {
		return 0, nil, err
	}
	if c.grant.Role == bus.RoleSession && in.Via == "" {
		in.Via = bus.ViaInbox
	}
	raw, err := c.daemon(ctx, bus.OpInboxSeen, in)
	return 0, raw, err
}

func (s *Server) outbox(ctx context.Context, c *caller, r *request) (int, any, error) {
	q := r.URL.Query()
	n, err := limit(q.Get("limit"), 50, 500)
	if err != nil {
		return 0, nil, err
	}
	raw, err := c.daemon(ctx, bus.OpOutboxList, bus.OutboxQuery{Status: q.Get("status"), Mesh: q.Get("mesh"), Limit: n})
	return 0, raw, err
}

// requeue makes a new attempt. Who asked is what the row is marked with; aborted_by in the body, a free text of the reference's, says nothing.
func (s *Server) requeue(ctx context.Context, c *caller, r *request) (int, any, error) {
	var in bus.Requeue
	if err := r.decode(&in); err != nil {
		return 0, nil, err
	}
	if in.ID == "" {
		return 0, nil, refusal(400, "missing_id", "id is missing")
	}
	raw, err := c.daemon(ctx, bus.OpOutboxRequeue, in)
	return 0, raw, err
}

// limit reads a number of rows; more than most is most.
func limit(s string, normal, most int) (int, error) {
	if s == "" {
		return normal, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, refusal(400, "bad_limit", "limit is a number from 1")
	}
	return min(n, most), nil
}

// moment reads a time: RFC 3339, a date (UTC), or Unix milliseconds. "" is 0.
func moment(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil && ms > 0 {
		return ms, nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil && t.UnixMilli() > 0 {
			return t.UnixMilli(), nil
		}
	}
	return 0, refusal(400, "bad_since", "since is a time like 2026-01-31T12:00:00Z, a date, or Unix milliseconds")
}
