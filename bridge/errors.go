package bridge

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	// ErrKicked ends Link.Run: the broker closed with 4001. Reconnecting by itself would undo what an administrator did.
	ErrKicked = errors.New("kicked from the mesh")
	// ErrBanned ends Link.Run: the broker closed with 4002 or refused with code revoked. The member is no longer part of the mesh.
	ErrBanned = errors.New("removed from the mesh")
	// ErrMeshDeleted ends Link.Run: the owner has deleted the mesh.
	ErrMeshDeleted = errors.New("the mesh was deleted by its owner")
	// ErrLeft ends Link.Run: the member has left the mesh, by another connection.
	ErrLeft = errors.New("this member has left the mesh")
	// ErrNotOpen is returned at once when the link has no open connection. Nothing was sent.
	ErrNotOpen = errors.New("broker link is not open")
	// ErrLost is returned when the connection ended before the answer. The outcome is unknown: repeat under the same id.
	ErrLost = errors.New("broker connection lost before the answer")
	// ErrInFlight refuses a Send whose id is already waiting for its ack on this link.
	ErrInFlight = errors.New("message id is already in flight")
	// ErrNoID refuses a Send without an id: its ack could not be recognised.
	ErrNoID = errors.New("message has no id")
	// ErrBadOp refuses a Call whose operation is not a plain lower-case name, or is a frame that only the link itself may send.
	ErrBadOp = errors.New("not a broker operation")
	// ErrRunning refuses a second Run of the same Link or Mesh.
	ErrRunning = errors.New("already run")
	// ErrSessionExists refuses a session whose id or key has a link already.
	ErrSessionExists = errors.New("session already has a link")
	// ErrClosed is returned for work on a Mesh whose Run has ended.
	ErrClosed = errors.New("mesh is closed")
)

// BrokerError is the broker's refusal of one request. Code is a machine name (wire.Code…, wire.Ack…), possibly empty; Message is the broker's sentence.
// Both are cut to 64 and 512 bytes and hold no control characters.
type BrokerError struct{ Code, Message string }

func (e *BrokerError) Error() string {
	switch {
	case e.Code == "":
		return "broker: " + e.Message
	case e.Message == "":
		return "broker: " + e.Code
	}
	return fmt.Sprintf("broker: %s: %s", e.Code, e.Message)
}

func brokerError(code, message string) *BrokerError {
	return &BrokerError{Code: clean(code, 64), Message: clean(message, 512)}
}

// refusal ends a connection that the broker does not want: hello refused, or the session replaced by another connection. Retried, but slowly.
type refusal struct{ code string }

func (r *refusal) Error() string { return r.code }

// Reasons for which the link itself ends a connection.
var (
	errHelloTimeout = errors.New("no hello_ack in time")
	errNotStored    = errors.New("a pushed message could not be stored")
	errGarbage      = errors.New("too many malformed frames")
)

// clean makes text from the broker fit for a log line or a terminal: valid UTF-8, no control characters, at most limit bytes.
func clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) {
			return -1
		}
		return r
	}, s)
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return s
}
