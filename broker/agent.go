package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"claudemesh/wire"
)

// agent stands for a member that makes requests by HTTP: a connection without a socket, in no list and with no mailbox. What it may and what happens is thus
// decided where it is for everybody.
type agent struct{ *conn }

func (b *Broker) agentOf(who keyCaller) agent {
	ctx, halt := context.WithCancel(context.Background())
	return agent{&conn{b: b, mesh: who.mesh, member: who.member, name: b.nameOf(who.member), log: b.log, ctx: ctx, halt: halt, out: make(chan frame, 16)}}
}

// agentReqID marks an agent's request; without one some operations would not answer.
const agentReqID = "http"

// ask makes one request and reads the answer into out. The error is a *refusal, or that the answer cannot be read.
func (a agent) ask(op string, fields map[string]any, out any) error {
	defer a.halt()
	all := map[string]any{"type": op, "_reqId": agentReqID}
	for k, v := range fields {
		all[k] = v
	}
	data, err := wire.Encode(all)
	if err != nil {
		return refused(wire.CodeInvalid, err.Error())
	}
	if no := a.authorize(op); no != nil {
		return no
	}
	ops[op](a.conn, data, agentReqID)
	var f frame
	select {
	case f = <-a.out:
	default:
		return fmt.Errorf("no answer to %s", op)
	}
	if f.sent != nil {
		f.sent()
	}
	var e wire.Error
	if err := json.Unmarshal(f.data, &e); err != nil {
		return fmt.Errorf("read answer to %s: %w", op, err)
	}
	if e.Type == wire.TypeError {
		return refused(e.Code, e.Message)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(f.data, out); err != nil {
		return fmt.Errorf("read answer to %s: %w", op, err)
	}
	return nil
}

// post sends one message and waits until it is accepted, or is not.
func (a agent) post(f wire.Send) (*accepted, *refusal) {
	defer a.halt()
	if err := f.Validate(); err != nil {
		return nil, refused(wire.AckInvalid, "invalid: "+err.Error())
	}
	var p pendingSend
	if p.rec, p.first, p.no = a.compose(f); p.no == nil && p.first == nil {
		p.future, p.no = a.b.accept(p.rec)
	}
	if p.no == nil {
		p.no = a.outcome(&p)
	}
	if p.no != nil {
		return nil, p.no
	}
	a.b.fan.poke()
	if p.first != nil {
		return p.first, nil
	}
	return p.rec, nil
}

// v1Fail answers a request of the REST API that was refused, as the reference does where it has words for it.
func (b *Broker) v1Fail(w http.ResponseWriter, r *http.Request, err error) {
	var no *refusal
	if !errors.As(err, &no) {
		b.log.Error("request not served", "path", r.URL.Path, "err", err)
		b.refuseKey(w, r, &keyRefusal{http.StatusInternalServerError, "error.internal", "internal error"})
		return
	}
	status := map[string]int{
		wire.CodeNotFound: http.StatusNotFound, wire.CodeForbidden: http.StatusForbidden, wire.CodeInvalid: http.StatusBadRequest, wire.CodeLimit: http.StatusConflict,
		wire.CodeTopicNotFound: http.StatusNotFound, wire.CodeKeyNotSealed: http.StatusNotFound, wire.CodeTopicUnencrypted: http.StatusConflict,
		wire.AckPayloadTooLarge: http.StatusRequestEntityTooLarge, wire.AckIDReused: http.StatusConflict,
		wire.AckRateLimited: http.StatusTooManyRequests, wire.CodeUnavailable: http.StatusServiceUnavailable,
	}[no.code]
	switch no.code {
	case wire.CodeTopicNotFound:
		answer(w, status, map[string]any{"error": no.code, "topic": r.PathValue("name")})
	case wire.CodeKeyNotSealed:
		answer(w, status, map[string]any{"error": "key_not_sealed_for_member", "topic": r.PathValue("name")})
	case wire.CodeTopicUnencrypted:
		answer(w, status, map[string]any{"error": "topic_unencrypted", "topic": r.PathValue("name")})
	default:
		if status == 0 {
			status = http.StatusInternalServerError
		}
		b.refuseKey(w, r, &keyRefusal{status, "error." + no.code, no.message})
	}
}
