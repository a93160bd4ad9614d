package wire

import (
	"encoding/json"
	"fmt"
	"time"
)

// TimeFormat is how the protocol writes an instant as a string: ISO-8601, UTC, milliseconds.
const TimeFormat = "2006-01-02T15:04:05.000Z"

// Timestamp formats t in TimeFormat.
func Timestamp(t time.Time) string { return t.UTC().Format(TimeFormat) }

// Priorities of a message.
const (
	PriorityNow  = "now"
	PriorityNext = "next"
	PriorityLow  = "low"
)

// ValidPriority reports whether p is one of the three priorities.
func ValidPriority(p string) bool { return p == PriorityNow || p == PriorityNext || p == PriorityLow }

// Send asks the broker to accept a message. TargetSpec is a 64-hex key (session or member), "@group", "@all", "*" or "#topicId". Nonce and Ciphertext are
// standard base64 with padding: crypto_box for a key, plain UTF-8 for everything else.
type Send struct {
	Type               string   `json:"type"`
	ID                 string   `json:"id,omitempty"`
	TargetSpec         string   `json:"targetSpec"`
	Priority           string   `json:"priority"`
	Nonce              string   `json:"nonce"`
	Ciphertext         string   `json:"ciphertext"`
	ClientMessageID    string   `json:"client_message_id,omitempty"`
	RequestFingerprint string   `json:"request_fingerprint,omitempty"`
	ReplyToID          string   `json:"replyToId,omitempty"`
	Mentions           []string `json:"mentions,omitempty"`
	BodyVersion        int      `json:"bodyVersion,omitempty"`
}

// Validate checks presence and lengths. The size rule of MaxSendBytes is not checked here: it has its own answer (an ack with an error).
func (s Send) Validate() error {
	if !ValidPriority(s.Priority) {
		return fmt.Errorf("%w: priority must be now, next or low", ErrInvalid)
	}
	return firstError(required("targetSpec", s.TargetSpec), tooLong("targetSpec", s.TargetSpec, MaxTargetBytes), tooLong("id", s.ID, MaxIDBytes),
		tooLong("client_message_id", s.ClientMessageID, MaxIDBytes), tooLong("request_fingerprint", s.RequestFingerprint, 64), tooLong("replyToId", s.ReplyToID, MaxIDBytes))
}

// Size is what MaxSendBytes bounds.
func (s Send) Size() int { return len(s.Ciphertext) + len(s.Nonce) + len(s.TargetSpec) }

// Ack answers a Send: Queued true means the broker has the message for good, under MessageID. Error is set only when Queued is false for a send.
type Ack struct {
	Type      string `json:"type"`
	ID        string `json:"id"`
	MessageID string `json:"messageId"`
	Queued    bool   `json:"queued"`
	Error     string `json:"error,omitempty"`
	ReqID     string `json:"_reqId,omitempty"`
	// Duplicate: the same id and the same request were accepted before; MessageID is the first one. Ours; absent from a reference broker.
	Duplicate bool `json:"duplicate,omitempty"`
	// Code is a machine name for Error (AckPayloadTooLarge, …); without Error it qualifies the success of a forget (CodeNotFound). Ours.
	Code string `json:"code,omitempty"`
	// RetryAfterMS is how long to wait after AckRateLimited, in milliseconds. Ours.
	RetryAfterMS int64 `json:"retry_after_ms,omitempty"`
}

// Machine names of refused sends, in Ack.Code.
const (
	AckPayloadTooLarge = "payload_too_large"
	AckNoPeer          = "no_peer"
	AckIDReused        = "idempotency_key_reused"
	AckInvalid         = "invalid"
	AckUnavailable     = "unavailable"
	AckRateLimited     = "rate_limited"
)

// Push carries one message, or one system event, to a client.
type Push struct {
	Type               string          `json:"type"`
	Subtype            string          `json:"subtype,omitempty"`
	Event              string          `json:"event,omitempty"`
	EventData          json.RawMessage `json:"eventData,omitempty"`
	MessageID          string          `json:"messageId"`
	MeshID             string          `json:"meshId"`
	SenderPubkey       string          `json:"senderPubkey"`
	SenderMemberPubkey string          `json:"senderMemberPubkey,omitempty"`
	SenderMemberID     string          `json:"senderMemberId,omitempty"`
	SenderName         string          `json:"senderName,omitempty"`
	Topic              string          `json:"topic,omitempty"`
	ReplyToID          string          `json:"replyToId,omitempty"`
	Priority           string          `json:"priority"`
	Nonce              string          `json:"nonce"`
	Ciphertext         string          `json:"ciphertext"`
	CreatedAt          string          `json:"createdAt"`
	ClientMessageID    string          `json:"client_message_id,omitempty"`
	RequestFingerprint string          `json:"request_fingerprint,omitempty"`
	// BodyVersion of a post to a topic: BodyPlain or BodySealed. Ours.
	BodyVersion int `json:"bodyVersion,omitempty"`
	// TargetSpec is what the sender addressed, so that a receiver can tell a direct message from a multicast. Ours; absent from a reference broker.
	TargetSpec string `json:"targetSpec,omitempty"`
}

// Subtypes of pushes.
const (
	SubtypeSystem   = "system"   // an event instead of a message
	SubtypeWebhook  = "webhook"  // Event is the webhook's name, EventData what was posted to it
	SubtypeReminder = "reminder" // a message whose time has come
)

// System events that are acted upon here.
const (
	EventPeerJoined   = "peer_joined"
	EventPeerReturned = "peer_returned"
	EventPeerLeft     = "peer_left"
)

// Validate checks lengths. Everything else of a push is the receiver's to judge: a message is stored even when a field is odd.
func (p Push) Validate() error {
	return firstError(tooLong("messageId", p.MessageID, MaxIDBytes), tooLong("client_message_id", p.ClientMessageID, MaxIDBytes), tooLong("senderPubkey", p.SenderPubkey, MaxIDBytes),
		tooLong("targetSpec", p.TargetSpec, MaxTargetBytes), tooLong("senderName", p.SenderName, MaxTextBytes), tooLong("replyToId", p.ReplyToID, MaxIDBytes))
}

// Delivery states that a recipient reports in ClientAck and a sender learns in Receipt.
const (
	StateDelivered = "delivered"
	StateSurfaced  = "surfaced"
)

// ClientAck tells the broker that a push has been stored (StateDelivered, or empty as the reference sends it) or handed to the session's program
// (StateSurfaced, with Via saying how). No answer. An acknowledged push is never sent again. A Receipt is acknowledged in the same way, by its MailID in BrokerMessageID.
type ClientAck struct {
	Type            string `json:"type"`
	ClientMessageID string `json:"clientMessageId,omitempty"`
	BrokerMessageID string `json:"brokerMessageId,omitempty"`
	// SenderMemberPubkey is the push's, so that the broker finds the message again after its mail has gone. Ours.
	SenderMemberPubkey string `json:"senderMemberPubkey,omitempty"`
	State              string `json:"state,omitempty"`
	Via                string `json:"via,omitempty"`
	// By is the display name of the session that surfaced it.
	By string `json:"by,omitempty"`
	// At and Signature make it the recipient's own word, see mesh.Receipt: when it was so, as Timestamp prints it, and 128 hex digits by the key of the
	// mailbox. The broker hands both on untouched, with State, Via and By; it cannot check them. Ours.
	At        string `json:"at,omitempty"`
	Signature string `json:"signature,omitempty"`
}

// Validate checks presence, values and lengths.
func (a ClientAck) Validate() error {
	if a.State != "" && a.State != StateDelivered && a.State != StateSurfaced {
		return fmt.Errorf("%w: state must be delivered or surfaced", ErrInvalid)
	}
	if a.ClientMessageID == "" && a.BrokerMessageID == "" {
		return fmt.Errorf("%w: no message id", ErrInvalid)
	}
	return firstError(tooLong("clientMessageId", a.ClientMessageID, MaxIDBytes), tooLong("brokerMessageId", a.BrokerMessageID, MaxIDBytes),
		tooLong("via", a.Via, MaxNameBytes), tooLong("by", a.By, MaxNameBytes), tooLong("at", a.At, MaxStampBytes), tooLong("signature", a.Signature, MaxSignatureBytes))
}

// Sizes of what a receipt is signed with.
const (
	MaxStampBytes     = 40
	MaxSignatureBytes = 128
)

// Receipt tells the sender's member how far one of its messages came. Ours: sent only to clients with CapReceipts, kept in the member's mailbox until
// acknowledged like a message.
type Receipt struct {
	Type            string `json:"type"`
	MailID          string `json:"mailId"`
	MessageID       string `json:"messageId"`
	ClientMessageID string `json:"client_message_id"`
	State           string `json:"state"`
	Via             string `json:"via,omitempty"`
	By              string `json:"by,omitempty"`
	RecipientPubkey string `json:"recipientPubkey"`
	// At is the recipient's time when Signature is set, else the broker's.
	At string `json:"at"`
	// Signature is the one of the recipient's acknowledgement. Without it the receipt is the broker's word.
	Signature string `json:"signature,omitempty"`
}

// Error refuses a request, or a hello. Code is a stable machine name, Message a sentence.
type Error struct {
	Type    string `json:"type"`
	Code    string `json:"code"`
	Message string `json:"message"`
	ID      string `json:"id,omitempty"`
	ReqID   string `json:"_reqId,omitempty"`
}

// Error codes of the families served here; the hello codes are those of the reference.
const (
	CodeNoHello             = "no_hello"
	CodeBadSessionPubkey    = "bad_session_pubkey"
	CodeBadParentPubkey     = "bad_parent_pubkey"
	CodeAttestationMismatch = "attestation_mismatch"
	CodeCapacity            = "capacity"
	CodeTimestampSkew       = "timestamp_skew"
	CodeMalformed           = "malformed"
	CodeBadSignature        = "bad_signature"
	CodeExpired             = "expired"
	CodeTTLTooLong          = "ttl_too_long"
	CodeUnauthorized        = "unauthorized"
	CodeRevoked             = "revoked"
	CodeParentMemberID      = "parent_member_id_mismatch"
	CodeUnknownType         = "unknown_message_type"
	CodeInvalid             = "invalid"
	CodeForbidden           = "forbidden"
	CodeInternal            = "internal"
	CodeNotFound            = "not_found"
	CodeLimit               = "limit"
	CodeUnavailable         = "unavailable"
	CodeConflict            = "conflict"
	CodeMeshDeleted         = "mesh_deleted"
	CodeLeft                = "left"
	CodeInvalidArgument     = "invalid_argument"
	CodeAmbiguousPrefix     = "ambiguous_prefix"
)

// WebSocket close codes beyond RFC 6455.
const (
	CloseKicked = 4001
	// CloseBanned ends a membership for good. Its reason is "banned", or CodeMeshDeleted or CodeLeft: a reference client, which knows the code only, does
	// the right thing in each case.
	CloseBanned = 4002
)
