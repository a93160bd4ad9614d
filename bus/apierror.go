package bus

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Errors of the client, for callers that decide by them.
var (
	// ErrNoDaemon means that no daemon answers: none runs, or the running one does not offer the operation.
	ErrNoDaemon = errors.New("no daemon is running")
	// ErrDenied means that the credential does not allow the subject.
	ErrDenied = errors.New("not permitted")
	// ErrUnauthorized means that the daemon does not accept the token: unknown, expired or revoked.
	ErrUnauthorized = errors.New("the daemon does not accept this token")
	// ErrInterrupted means that the connection broke while a request was under way: it may have been carried out or not.
	ErrInterrupted = errors.New("the connection to the daemon was interrupted")
)

// Reasons of refusals that say what the caller's session lacks, with their fields in Data.
const (
	ReasonCapability = "capability_missing" // Lack.Capability: the session may not do this kind of thing
	ReasonOnlyMesh   = "only_mesh"          // Lack.Mesh: the session may use that mesh only
)

// Lack is what a session lacks, and what it has.
type Lack struct {
	Capability string   `json:"capability,omitempty"`
	Has        []string `json:"allowed_caps,omitempty"`
	Mesh       string   `json:"only_mesh,omitempty"`
}

// MissingCapability is the refusal of what a limited session asks for: what is the thing in words, "" when the caller knows.
func MissingCapability(capability, what string, has []string) *APIError {
	detail := "this session lacks the capability " + capability
	if what != "" {
		detail += " that " + what + " needs"
	}
	return &APIError{Code: 403, Reason: ReasonCapability, Detail: detail, Data: Lack{Capability: capability, Has: has}}
}

// OtherMesh is the refusal of a session that is bound to its mesh and asks for another.
func OtherMesh(own string) *APIError {
	return &APIError{Code: 403, Reason: ReasonOnlyMesh, Detail: fmt.Sprintf("this session may use mesh %s only", own), Data: Lack{Mesh: own}}
}

// APIError is a refusal by a handler. It travels as a NATS micro error: header Nats-Service-Error-Code holds Code, the body is a JSON object with
// "error" (Reason), "detail" (Detail) and the fields of Data.
type APIError struct {
	Code   int    // HTTP-like, 400 to 599
	Reason string // machine code, [a-z0-9_]+
	Detail string // for people; may be empty
	Data   any    // further fields, a value that marshals to a JSON object; at the client a json.RawMessage of the whole body
}

func (e *APIError) Error() string {
	if e.Detail == "" {
		return fmt.Sprintf("%d %s", e.Code, e.Reason)
	}
	return fmt.Sprintf("%d %s: %s", e.Code, e.Reason, e.Detail)
}

// Is makes errors.Is match another APIError by Reason, so that a caller may ask without knowing the detail.
func (e *APIError) Is(target error) bool {
	t, ok := target.(*APIError)
	return ok && t.Reason == e.Reason && (t.Code == 0 || t.Code == e.Code)
}

// DecodeData reads the further fields into v.
func (e *APIError) DecodeData(v any) error {
	b, err := json.Marshal(e.Data)
	if err != nil {
		return fmt.Errorf("encode error data: %w", err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("decode error data: %w", err)
	}
	return nil
}

// Body is the JSON of the reply. Data that is no object is left out: a refusal must reach the caller all the same.
func (e *APIError) Body() []byte {
	fields := map[string]any{}
	if e.Data != nil {
		if b, err := json.Marshal(e.Data); err == nil {
			var more map[string]json.RawMessage
			if json.Unmarshal(b, &more) == nil {
				for k, v := range more {
					fields[k] = v
				}
			}
		}
	}
	fields["error"] = e.Reason
	if e.Detail != "" {
		fields["detail"] = e.Detail
	}
	b, err := json.Marshal(fields)
	if err != nil {
		return []byte(`{"error":"internal"}`)
	}
	return b
}

func parseAPIError(code int, reason string, body []byte) *APIError {
	e := &APIError{Code: code, Reason: reason}
	var fields struct {
		Error  string `json:"error"`
		Detail string `json:"detail"`
	}
	if json.Unmarshal(body, &fields) == nil {
		if fields.Error != "" {
			e.Reason = fields.Error
		}
		e.Detail = fields.Detail
		e.Data = json.RawMessage(body)
	}
	return e
}

// validReason keeps a reason usable as a header value and as a machine code.
func validReason(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '_') {
			return false
		}
	}
	return s != ""
}
