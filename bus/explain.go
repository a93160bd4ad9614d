package bus

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"claudemesh/mesh"
)

// DeniedError is ErrDenied of a request by a session, with what the session lacks. It also is the *APIError that a handler would have answered, so that a
// caller need not know who refused.
type DeniedError struct {
	Subject string
	Reason  *APIError
}

func (e *DeniedError) Error() string { return e.Reason.Detail }

// Unwrap makes it both.
func (e *DeniedError) Unwrap() []error { return []error{ErrDenied, e.Reason} }

// denied says why the server refused a subject. The server does not tell, so the daemon is asked what this session is; when it does not answer, the plain
// ErrDenied must do.
func (c *Client) denied(ctx context.Context, subject string) error {
	plain := fmt.Errorf("%w: %s", ErrDenied, subject)
	slug, op, isCall := meshRequest(subject, c.actor)
	if slug == "" || c.actor == User {
		return plain
	}
	var me SessionInfo
	if err := c.Do(ctx, DaemonSubject(c.actor, OpSessionMe), nil, &me); err != nil {
		return plain
	}
	switch need, what := needs(op, isCall); {
	case me.OnlyMesh && me.Mesh != slug:
		return &DeniedError{subject, OtherMesh(me.Mesh)}
	case me.Caps == nil || need != "" && slices.Contains(*me.Caps, need):
		return plain
	case need == "":
		return &DeniedError{subject, &APIError{Code: 403, Reason: "forbidden", Detail: "no capability lets a limited session do this: " + op}}
	default:
		return &DeniedError{subject, MissingCapability(need, what, *me.Caps)}
	}
}

// meshRequest takes the subject of one of actor's own sends or calls apart; slug is empty for any other.
func meshRequest(subject, actor string) (slug, op string, isCall bool) {
	t := strings.Split(subject, ".")
	if len(t) != 5 || t[0] != "mesh" || t[2] != actor || t[3] != "send" && t[3] != "call" {
		return "", "", false
	}
	return t[1], t[4], t[3] == "call"
}

// needs is the capability for a call or a kind of send, "" when there is none, and what to call the request.
func needs(op string, isCall bool) (capability, what string) {
	if isCall {
		capability, _ = mesh.OpCapability(op)
		return capability, op
	}
	for _, c := range mesh.Capabilities() {
		if slices.Contains(capSends(c), op) {
			return c, "a message to " + map[string]string{SendDM: "one peer", SendGroup: "a group", SendTopic: "a topic", SendAll: "everybody"}[op]
		}
	}
	return "", op
}
