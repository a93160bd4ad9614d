package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Frame types. The names are fixed by the reference protocol, except TypeReceipt and those of invites and of the mesh itself, which are ours.
const (
	TypeHello         = "hello"
	TypeSessionHello  = "session_hello"
	TypeHelloAck      = "hello_ack"
	TypeError         = "error"
	TypeSend          = "send"
	TypeAck           = "ack"
	TypePush          = "push"
	TypeClientAck     = "client_ack"
	TypeReceipt       = "receipt"
	TypeListPeers     = "list_peers"
	TypePeersList     = "peers_list"
	TypeSetStatus     = "set_status"
	TypeSetSummary    = "set_summary"
	TypeSetVisible    = "set_visible"
	TypeSetStats      = "set_stats"
	TypeSetProfile    = "set_profile"
	TypeJoinGroup     = "join_group"
	TypeLeaveGroup    = "leave_group"
	TypeInviteCreate  = "invite_create"
	TypeInviteCreated = "invite_created"
	TypeInviteList    = "invite_list"
	TypeInvites       = "invites"
	TypeInviteRevoke  = "invite_revoke"
	TypeInviteRevoked = "invite_revoked"
	TypeMeshRename    = "mesh_rename"
	TypeMeshRenamed   = "mesh_renamed"
	TypeMeshDelete    = "mesh_delete"
	TypeMeshDeleted   = "mesh_deleted"
	TypeMeshLeave     = "mesh_leave"
	TypeMeshLeft      = "mesh_left"

	TypeMessageStatus       = "message_status"
	TypeMessageStatusResult = "message_status_result"
	TypeMeshSettings        = "mesh_settings"        // ours
	TypeMeshSettingsResult  = "mesh_settings_result" // ours
)

// Limits of one frame.
const (
	// MaxFrameBytes bounds one WebSocket message in either direction. The reference broker accepts 16 MiB in production; every frame of the families
	// served here fits in 1 MiB.
	MaxFrameBytes = 1 << 20
	// MaxSendBytes bounds len(ciphertext)+len(nonce)+len(targetSpec) of a send, in bytes, as the reference broker does.
	MaxSendBytes = 65536
	// MaxTargetBytes bounds targetSpec.
	MaxTargetBytes = 512
	// MaxIDBytes bounds a client message id, a request id and a session id.
	MaxIDBytes = 256
	// MaxNameBytes bounds a display name and a group name.
	MaxNameBytes = 128
	// MaxTextBytes bounds a summary, a path and other free text of a presence.
	MaxTextBytes = 4096
	// MaxGroups bounds the groups of one connection.
	MaxGroups = 64
	// MaxProfileCapabilities bounds the list of what a peer says it can do, MaxBioBytes the text about it.
	MaxProfileCapabilities = 32
	MaxBioBytes            = 1024
	// MaxSendRate and MaxSendBurst bound what a team may set as its rate limit.
	MaxSendRate  = 1_000_000
	MaxSendBurst = 100_000
)

var (
	// ErrMalformed is returned for input that is not a JSON object with a string "type", or whose fields have the wrong JSON types.
	ErrMalformed = errors.New("malformed frame")
	// ErrTooLarge is returned for a frame over MaxFrameBytes.
	ErrTooLarge = errors.New("frame too large")
	// ErrInvalid is wrapped by the validation errors of single frames: the JSON is well formed, a value is missing or out of range.
	ErrInvalid = errors.New("invalid frame")
)

// Head is what every frame has: enough to route it.
type Head struct {
	Type  string `json:"type"`
	ReqID string `json:"_reqId,omitempty"`
}

// Peek reads a frame's head. Errors: ErrTooLarge, ErrMalformed.
func Peek(data []byte) (Head, error) {
	if len(data) > MaxFrameBytes {
		return Head{}, ErrTooLarge
	}
	var h Head
	if err := decode(data, &h); err != nil {
		return Head{}, err
	}
	if h.Type == "" {
		return Head{}, fmt.Errorf("%w: no type", ErrMalformed)
	}
	if len(h.ReqID) > MaxIDBytes {
		return Head{}, fmt.Errorf("%w: _reqId over %d bytes", ErrInvalid, MaxIDBytes)
	}
	return h, nil
}

// Decode reads one frame into v and, when v has a Validate method, checks it. Errors wrap ErrTooLarge, ErrMalformed or ErrInvalid.
func Decode(data []byte, v any) error {
	if len(data) > MaxFrameBytes {
		return ErrTooLarge
	}
	if err := decode(data, v); err != nil {
		return err
	}
	if c, ok := v.(interface{ Validate() error }); ok {
		return c.Validate()
	}
	return nil
}

func decode(data []byte, v any) error {
	if t := bytes.TrimLeft(data, " \t\r\n"); len(t) == 0 || t[0] != '{' {
		return fmt.Errorf("%w: not a JSON object", ErrMalformed)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	return nil
}

// Encode writes a frame. It fails only for a value that JSON cannot hold or that exceeds MaxFrameBytes.
func Encode(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode frame: %w", err)
	}
	if len(data) > MaxFrameBytes {
		return nil, ErrTooLarge
	}
	return data, nil
}

// WithRequest returns a request frame of the given type: the caller's fields, with "type" and "_reqId" set by us whatever the caller put there.
// fields may be empty or one JSON object; anything else is ErrMalformed.
func WithRequest(op, reqID string, fields json.RawMessage) ([]byte, error) {
	m := map[string]json.RawMessage{}
	if len(fields) > 0 {
		if err := decode(fields, &m); err != nil {
			return nil, err
		}
	}
	m["type"], _ = json.Marshal(op)
	m["_reqId"], _ = json.Marshal(reqID)
	return Encode(m)
}

func tooLong(field, s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%w: %s over %d bytes", ErrInvalid, field, limit)
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
