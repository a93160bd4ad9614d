package daemon

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// Sending on the cold path: one message, one answer of the broker, nothing kept.

// send hands one message to the broker and waits for its word.
func (c *Cold) send(ctx context.Context, s bus.Subject, data []byte) (any, error) {
	var req bus.SendRequest
	if err := json.Unmarshal(data, &req); err != nil {
		return nil, fmt.Errorf("decode request: %w", err)
	}
	j, err := c.joined(s.Slug)
	if err != nil {
		return nil, err
	}
	target, err := checkSend(&req, s.Name)
	switch {
	case err != nil:
		return nil, err
	case target.Kind == mesh.TargetTopic:
		return nil, needsDaemon("the keys of topics are with it")
	case req.ReplyTo != "":
		return nil, needsDaemon("the message that is answered is in its inbox")
	}
	print, err := mesh.FingerprintOf(target.Typed, req.Body, req.Priority, req.ReplyTo, req.Meta)
	if err != nil {
		return nil, &bus.APIError{Code: 400, Reason: "bad_request", Detail: err.Error()}
	}
	if req.ClientMessageID == "" {
		id, err := uuid.NewRandomFromReader(c.opt.Rand)
		if err != nil {
			return nil, fmt.Errorf("make message id: %w", err)
		}
		req.ClientMessageID = id.String()
	}
	reply := bus.SendReply{ClientMessageID: req.ClientMessageID, Code: 200, Status: "done", State: bus.StateSent, Mesh: j.Slug, Target: target.Typed, Online: "unknown"}
	spec, err := c.address(ctx, j, target, &reply)
	if err != nil {
		return nil, err
	}
	frame := wire.Send{
		Type: wire.TypeSend, ID: req.ClientMessageID, ClientMessageID: req.ClientMessageID, RequestFingerprint: fmt.Sprintf("%x", print), TargetSpec: spec,
		Priority: req.Priority,
	}
	if frame.Priority == "" {
		frame.Priority = wire.PriorityNext
	}
	if err := c.seal(j, target, spec, req.Body, &frame); err != nil {
		return nil, err
	}
	link, err := c.open(ctx, j)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, coldAck)
	defer cancel()
	ack, err := link.Send(ctx, frame)
	if err != nil || !ack.Queued {
		return nil, coldRefused(j.Slug, ack, err)
	}
	reply.BrokerMessageID, reply.Duplicate = ack.MessageID, ack.Duplicate
	return reply, nil
}

// address says whom the broker is to give a message to.
func (c *Cold) address(ctx context.Context, j mesh.Joined, t mesh.Target, reply *bus.SendReply) (string, error) {
	switch t.Kind {
	case mesh.TargetAll:
		return t.Typed, nil
	case mesh.TargetGroup:
		return "@" + t.Ref, nil
	}
	all, err := c.candidates(ctx, j)
	if err != nil {
		return "", err
	}
	peer, err := mesh.Resolve(t, all)
	if err != nil {
		return "", targetError(err)
	}
	reply.RecipientKey, reply.RecipientName, reply.Online = peer.Key, peer.Name, "no"
	if peer.Online {
		reply.Online = "yes"
	}
	return peer.Key, nil
}

// seal closes the text as the drain does: a direct message for its recipient, everything else readable by the broker.
func (c *Cold) seal(j mesh.Joined, t mesh.Target, spec, body string, frame *wire.Send) error {
	nonce, box := make([]byte, 24), []byte(body)
	if _, err := c.opt.Rand.Read(nonce); err != nil {
		return fmt.Errorf("make nonce: %w", err)
	}
	if t.SendKind() == bus.SendDM {
		member, err := j.Identity()
		if err != nil {
			return err
		}
		if nonce, box, err = mesh.NewBoxes(1).Seal(member, spec, box, c.opt.Rand); err != nil {
			return &bus.APIError{Code: 400, Reason: "bad_target", Detail: errUnsealable.Error()}
		}
	}
	frame.Nonce, frame.Ciphertext = base64.StdEncoding.EncodeToString(nonce), base64.StdEncoding.EncodeToString(box)
	return nil
}

// coldRefused says what became of a message that the broker did not take. Nothing tries it again later: nobody keeps it.
func coldRefused(slug string, ack wire.Ack, err error) error {
	switch {
	case errors.Is(err, bridge.ErrNotOpen):
		return coldDown(slug, err.Error()+"; the message is not kept")
	case errors.Is(err, bridge.ErrLost), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: the broker of mesh %s did not say whether it has the message", bus.ErrInterrupted, slug)
	}
	verdict, reason := judge(ack, err)
	switch {
	case ack.Code == wire.AckIDReused:
		return &bus.APIError{Code: 409, Reason: "idempotency_key_reused", Detail: "this idempotency key was used for another message; nothing was sent, use a new key"}
	case verdict == limited:
		return &bus.APIError{Code: 429, Reason: "rate_limited", Detail: reason, Data: map[string]any{"retry_after_ms": ack.RetryAfterMS}}
	case err != nil:
		return fmt.Errorf("send: %w", err)
	}
	return &bus.APIError{Code: 502, Reason: "broker_refused", Detail: "the broker did not take the message, which is not kept: " + reason, Data: map[string]any{"broker_code": ack.Code}}
}
