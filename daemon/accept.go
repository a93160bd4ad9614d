package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/google/uuid"

	"claudemesh/bus"
	"claudemesh/daemon/outbox"
	"claudemesh/daemon/spans"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// accept answers mesh.<slug>.<actor>.send.<kind>. The order is the contract: what is wrong with the request itself, then whether this id was used before
// (so that a repeat gets the same answer whoever is online), then whom it is for, then whether its session floods the
// peer, then the commit. A refusal before the commit leaves the id free.
func (d *Daemon) accept(ctx context.Context, c *bus.Call) (any, error) {
	begin := d.opt.Clock.Now()
	var req bus.SendRequest
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	m, err := d.mesh(c.Slug)
	if err != nil {
		return nil, err
	}
	target, err := checkSend(&req, c.Op)
	if err != nil {
		return nil, err
	}
	sender, err := d.senderKey(ctx, m, c.Actor)
	if err != nil {
		return nil, err
	}
	if req.ReplyTo, err = d.replyID(ctx, c.Slug, req.ReplyTo, target); err != nil {
		return nil, err
	}
	print, err := mesh.FingerprintOf(target.Typed, req.Body, req.Priority, req.ReplyTo, req.Meta)
	if err != nil {
		return nil, &bus.APIError{Code: 400, Reason: "bad_request", Detail: err.Error()}
	}
	if req.ClientMessageID == "" {
		id, err := uuid.NewRandomFromReader(d.opt.Rand)
		if err != nil {
			return nil, fmt.Errorf("make message id: %w", err)
		}
		req.ClientMessageID = id.String()
	} else if row, ok, err := d.outbox.Lookup(ctx, c.Slug, req.ClientMessageID); err != nil {
		return nil, fmt.Errorf("look up message id: %w", err)
	} else if ok {
		return d.repeat(ctx, m, row, row.Fingerprint == print && row.SenderKey == sender, print)
	}

	row := outbox.NewRow{
		ClientMessageID: req.ClientMessageID, Mesh: c.Slug, Actor: c.Actor, SenderKey: sender, Kind: c.Op, Target: target.Typed,
		Priority: req.Priority, ReplyTo: req.ReplyTo, Meta: req.Meta, Payload: []byte(req.Body), Fingerprint: print,
	}
	reply := bus.SendReply{ClientMessageID: row.ClientMessageID, Code: 202, Status: "queued", State: bus.StateAccepted, Mesh: c.Slug, Target: target.Typed, Online: "unknown"}
	if err := m.address(ctx, target, sender, &row, &reply); err != nil {
		return nil, err
	}
	if c.Actor != bus.User {
		if err := d.guard.admit(c.Actor, c.Slug+" "+cmp.Or(row.TargetSpec, target.Typed), req.ReplyTo != "", d.opt.Clock.Now()); err != nil {
			return nil, err
		}
	}
	verdict, err := m.commit(ctx, row)
	if err != nil {
		return nil, fmt.Errorf("accept message: %w", storeError(err))
	}
	if verdict.Existing { // another request with this id was faster
		return d.repeat(ctx, m, verdict.Row, verdict.Match, print)
	}
	d.figures.reached(bus.StateAccepted)
	m.step(spans.Span{Name: spans.Accept, ID: row.ClientMessageID, Begin: begin, Parent: c.Trace, Attributes: map[string]string{"claudemesh.kind": row.Kind}})
	m.signal()
	if !m.online() {
		reply.Note = "mesh " + c.Slug + " cannot be reached now; the message is kept and goes out when it is back"
	}
	return reply, nil
}

// commit accepts a row, unless the mesh was left meanwhile: nothing would ever send it.
func (m *meshRun) commit(ctx context.Context, row outbox.NewRow) (outbox.Verdict, error) {
	m.gate.RLock()
	defer m.gate.RUnlock()
	if m.left {
		return outbox.Verdict{}, m.d.notJoined(row.Mesh)
	}
	return m.d.outbox.Accept(ctx, row)
}

// checkSend judges what can be judged without any state, and returns the parsed target.
func checkSend(req *bus.SendRequest, kind string) (mesh.Target, error) {
	bad := func(reason, detail string) error { return &bus.APIError{Code: 400, Reason: reason, Detail: detail} }
	target, err := mesh.ParseTarget(req.To)
	switch {
	case err != nil:
		return target, bad("bad_target", err.Error())
	case target.SendKind() != kind:
		return target, bad("bad_target", fmt.Sprintf("target %q is of kind %s, the subject says %s", target.Typed, target.SendKind(), kind))
	case req.Body == "":
		return target, bad("empty_message", "the message is empty")
	case len(req.Body) > mesh.MaxBody:
		return target, &bus.APIError{
			Code: 413, Reason: "payload_too_large", Detail: fmt.Sprintf("the message has %d bytes, the limit is %d", len(req.Body), mesh.MaxBody),
			Data: map[string]any{"limit": mesh.MaxBody, "size": len(req.Body)},
		}
	case !utf8.ValidString(req.Body):
		return target, bad("bad_text", "the message is not UTF-8 text")
	case req.Priority != "" && !wire.ValidPriority(req.Priority):
		return target, bad("bad_priority", "priority is now, next or low")
	case len(req.ClientMessageID) > wire.MaxIDBytes || len(req.ReplyTo) > wire.MaxIDBytes:
		return target, bad("bad_id", fmt.Sprintf("an id has at most %d bytes", wire.MaxIDBytes))
	case !utf8.ValidString(req.ClientMessageID) || !utf8.ValidString(req.ReplyTo):
		return target, bad("bad_id", "an id is UTF-8 text")
	}
	return target, nil
}

// senderKey is the key a message goes out under: the session's own in the session's mesh, else the member's.
func (d *Daemon) senderKey(ctx context.Context, m *meshRun, actor string) (string, error) {
	if actor == bus.User {
		return m.joined.Pubkey, nil
	}
	s, err := d.session.Get(ctx, actor)
	if err != nil || !s.EndedAt.IsZero() {
		return "", &bus.APIError{Code: 401, Reason: "no_session", Detail: "this session is not registered any more"}
	}
	if s.Mesh == m.joined.Slug {
		return s.PublicKey, nil
	}
	return m.joined.Pubkey, nil
}

// replyID turns the id of a message received here, whether ours, the broker's or the sender's, into the one that its sender knows or, in a topic, that everybody
// knows; any other id is passed on as it is.
func (d *Daemon) replyID(ctx context.Context, slug, id string, to mesh.Target) (string, error) {
	if id == "" {
		return "", nil
	}
	found, err := d.inbox.Meant(ctx, id, "", slug)
	if err != nil {
		return "", fmt.Errorf("look up answered message: %w", err)
	}
	switch {
	case len(found) == 0:
		return id, nil
	case to.Kind == mesh.TargetTopic:
		return found[0].BrokerMessageID, nil
	}
	return found[0].ClientMessageID, nil // of several that their senders gave one id, the newest
}

// address fills in whom the row is for. A name that cannot be looked up now, because the mesh is down, is left to the drain.
func (m *meshRun) address(ctx context.Context, t mesh.Target, self string, row *outbox.NewRow, reply *bus.SendReply) error {
	switch t.Kind {
	case mesh.TargetAll:
		row.TargetSpec = t.Typed
		return nil
	case mesh.TargetGroup:
		row.TargetSpec = "@" + t.Ref
		return nil
	case mesh.TargetTopic:
		return m.topics.address(ctx, t.Ref, row, reply)
	}
	peer, settled, err := m.roster.resolve(ctx, t, self)
	switch {
	case err == nil:
		row.TargetSpec = peer.Key
		reply.RecipientKey, reply.RecipientName, reply.Online = peer.Key, peer.Name, "unknown"
		reply.Warning = m.chosen(ctx, t, peer)
		if m.online() {
			reply.Online = "no"
			if peer.Online {
				reply.Online = "yes"
			}
		}
		return nil
	case !settled:
		return nil
	default:
		return targetError(err)
	}
}

// targetError turns a failed resolution into an answer that lists the choices.
func targetError(err error) error {
	var unknown *mesh.ErrNotFound
	var ambiguous *mesh.ErrAmbiguous
	switch {
	case errors.As(err, &unknown):
		return &bus.APIError{Code: 404, Reason: "peer_not_found", Detail: err.Error(), Data: map[string]any{"candidates": choices(unknown.Candidates)}}
	case errors.As(err, &ambiguous):
		return &bus.APIError{Code: 409, Reason: "peer_ambiguous", Detail: err.Error(), Data: map[string]any{"candidates": choices(ambiguous.Candidates)}}
	case errors.Is(err, mesh.ErrSelf):
		return &bus.APIError{Code: 400, Reason: "self", Detail: "that is you: a session does not send to itself"}
	default:
		return fmt.Errorf("resolve target: %w", err)
	}
}

type choice struct {
	Name      string `json:"name"`
	Pubkey    string `json:"pubkey"`
	MemberKey string `json:"memberPubkey,omitempty"`
	Online    bool   `json:"online"`
}

// maxChoices bounds the candidates an error carries.
const maxChoices = 50

func choices(cs []mesh.Candidate) []choice {
	out := make([]choice, 0, min(len(cs), maxChoices))
	for _, c := range cs[:min(len(cs), maxChoices)] {
		out = append(out, choice{Name: c.Name, Pubkey: c.Key, MemberKey: c.MemberKey, Online: c.Online})
	}
	return out
}

// repeat answers a request whose id was used before: the eleven cases of the duplicate table. It never changes the row.
func (d *Daemon) repeat(ctx context.Context, m *meshRun, row outbox.Row, match bool, print [32]byte) (any, error) {
	a := outbox.Decide(row.Status, match)
	if a.Code == 409 {
		return nil, &bus.APIError{
			Code: 409, Reason: "idempotency_key_reused", Detail: repeatDetail(row, match),
			Data: map[string]any{"conflict": a.Conflict, "daemon_fingerprint_prefix": fmt.Sprintf("%x", print[:8]), "broker_message_id": nilIfEmpty(row.BrokerMessageID)},
		}
	}
	m.signal()
	return bus.SendReply{
		ClientMessageID: row.ClientMessageID, Code: a.Code, Status: a.Status, State: d.state(ctx, row), Duplicate: true, BrokerMessageID: row.BrokerMessageID,
		Mesh: row.Mesh, Target: row.Target, Online: "unknown",
	}, nil
}

func repeatDetail(row outbox.Row, match bool) string {
	switch {
	case !match:
		return "this idempotency key was used for another message; nothing was sent, use a new key"
	case row.Status == outbox.Dead:
		return "this message was refused before (" + row.LastError + "); requeue it with: claudemesh daemon outbox requeue " + row.ID
	default:
		return "this message was requeued under another id; nothing was sent"
	}
}

func nilIfEmpty(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// state is how far a row of ours is known to have come.
func (d *Daemon) state(ctx context.Context, row outbox.Row) string {
	switch row.Status {
	case outbox.Dead, outbox.Aborted:
		return bus.StateFailed
	case outbox.Done:
	default:
		return bus.StateAccepted
	}
	state := bus.StateSent
	receipts, err := d.outbox.Receipts(ctx, row.ID)
	if err != nil {
		return state
	}
	for _, r := range receipts {
		if r.Proven && rank(r.State) > rank(state) {
			state = r.State
		}
	}
	return state
}

func rank(state string) int {
	for i, s := range []string{bus.StateAccepted, bus.StateSent, bus.StateDelivered, bus.StateSurfaced, bus.StateAnswered} {
		if s == state {
			return i
		}
	}
	return -1
}
