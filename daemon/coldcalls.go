package daemon

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/google/uuid"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// What the cold path can do, and how.

// coldRefusals are the operations of a broker that mean something only while a daemon runs, with the reason.
func coldRefusals(op string) string {
	_, topic := topicCalls[op]
	switch {
	case ownPresence[op]:
		return "it belongs to a connection, and that would end with this command"
	case topic:
		return "the keys of topics are with it"
	}
	switch op {
	case wire.TypeSchedule, wire.TypeListScheduled:
		return "what is scheduled is sealed and opened there"
	case wire.TypeMCPRegister, wire.TypeMCPUnregister, wire.TypeMCPCallResponse:
		return "a service is offered over its connection"
	case wire.TypeGetFile:
		return "files are decrypted there"
	}
	return ""
}

// call carries a broker operation.
func (c *Cold) call(ctx context.Context, s bus.Subject, data []byte) (any, error) {
	j, err := c.joined(s.Slug)
	if err != nil {
		return nil, err
	}
	if !opName.MatchString(s.Name) || notCallable[s.Name] {
		return nil, &bus.APIError{Code: 400, Reason: "bad_operation", Detail: fmt.Sprintf("%q is no operation of the broker", s.Name)}
	}
	if why := coldRefusals(s.Name); why != "" {
		return nil, needsDaemon(why)
	}
	ask := c.ask(j)
	switch s.Name {
	case wire.TypeListPeers:
		list, err := listPeers(ctx, ask)
		if err != nil {
			return nil, err
		}
		out := bus.PeersReply{Mesh: j.Slug, Peers: make([]bus.Peer, 0, len(list))}
		for _, p := range list {
			out.Peers = append(out.Peers, peerRow(p, j, j.Pubkey))
		}
		return out, nil
	case bus.CallResolve:
		return c.resolve(ctx, j, data)
	}
	reply, err := ask(ctx, s.Name, data)
	if err != nil {
		return nil, err
	}
	return json.RawMessage(reply), nil
}

// resolve answers peer_resolve.
func (c *Cold) resolve(ctx context.Context, j mesh.Joined, data []byte) (any, error) {
	var req bus.PeerRef
	if err := json.Unmarshal(data, &req); err != nil {
		return nil, fmt.Errorf("decode request: %w", err)
	}
	target, err := mesh.ParseTarget(req.Peer)
	if err != nil {
		return nil, &bus.APIError{Code: 400, Reason: "bad_target", Detail: err.Error()}
	}
	all, err := c.candidates(ctx, j)
	if err != nil {
		return nil, err
	}
	found, err := mesh.ResolveMember(target, all)
	if errors.Is(err, mesh.ErrBadTarget) {
		return nil, &bus.APIError{Code: 400, Reason: "bad_target", Detail: err.Error()}
	}
	if err != nil {
		return nil, targetError(err)
	}
	return bus.PeerMember{Mesh: j.Slug, Pubkey: found.Key, Name: printable(found.Name), Online: found.Online, IsSelf: found.Key == j.Pubkey}, nil
}

// candidates are who can be meant: the peers that are there, and the members that are not. The directory of sessions seen before is the daemon's.
func (c *Cold) candidates(ctx context.Context, j mesh.Joined) ([]mesh.Candidate, error) {
	list, err := listPeers(ctx, c.ask(j))
	if err != nil {
		return nil, err
	}
	var all []mesh.Candidate
	for _, p := range list {
		all = append(all, mesh.Candidate{
			Key: p.Pubkey, MemberKey: p.MemberPubkey, Name: p.DisplayName, Online: true, Session: p.Pubkey != p.MemberPubkey, Self: p.Pubkey == j.Pubkey,
		})
	}
	// A broker that cannot list members, as the reference cannot, leaves it at that.
	if more, err := listMembers(ctx, c.ask(j)); err == nil {
		for _, m := range more {
			m.Self = m.Key == j.Pubkey
			all = append(all, m)
		}
	}
	return all, nil
}

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

// self answers what is asked of the daemon itself, as far as it can be known without one.
func (c *Cold) self(op string) (any, error) {
	switch op {
	case bus.OpVersion:
		return bus.Version{Version: c.opt.Version, API: apiVersion, PID: os.Getpid()}, nil
	case bus.OpStatus:
		return bus.Status{Version: c.opt.Version, Dir: c.opt.Dir, Meshes: c.statuses()}, nil
	case bus.OpMeshList:
		return bus.MeshList{Meshes: c.statuses()}, nil
	}
	return nil, needsDaemon("it keeps what this is about")
}

// statuses tell how the links are that were needed so far; none is opened for the answer.
func (c *Cold) statuses() []bus.MeshStatus {
	out := []bus.MeshStatus{}
	for _, j := range c.config.Meshes {
		s := bus.MeshStatus{
			Mesh: j.Slug, Name: j.Name, MeshID: j.MeshID, MemberID: j.MemberID, Pubkey: j.Pubkey, BrokerURL: j.BrokerURL, Link: string(bridge.Closed), Outbox: map[string]int{},
		}
		c.mu.Lock()
		if l := c.links[j.Slug]; l != nil {
			st := l.State()
			s.Link, s.Error, s.Since = string(st.Phase), st.Err, st.Since.UnixMilli()
		}
		c.mu.Unlock()
		out = append(out, s)
	}
	return out
}
