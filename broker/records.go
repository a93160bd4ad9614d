package broker

import (
	"encoding/json"
	"sync"
	"time"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// This file is what lies in the bucket and the streams, as JSON. A field is added, never renamed. Times are Unix milliseconds unless said otherwise.

// meshRecord is a mesh. OwnerPubkey is the only key that may invite.
type meshRecord struct {
	ID          string `json:"id"`
	Slug        string `json:"slug"`
	Name        string `json:"name"`
	OwnerPubkey string `json:"owner_pubkey"`
	BrokerURL   string `json:"broker_url,omitempty"`
	CreatedAt   int64  `json:"created_at"`
	// What the team has decided; zero values are the broker's defaults.
	SendRate     int             `json:"send_rate,omitempty"`     // messages per minute and member
	SendBurst    int             `json:"send_burst,omitempty"`    // messages of a member at once
	SelfEditable map[string]bool `json:"self_editable,omitempty"` // what members may change of their profile; absent: everything
}

// memberRecord is a member; there is one per (mesh, public key), revoked or not.
type memberRecord struct {
	ID        string `json:"id"`
	Pubkey    string `json:"pubkey"`
	Name      string `json:"name"`
	Role      string `json:"role"`
	JoinedAt  int64  `json:"joined_at"`
	RevokedAt int64  `json:"revoked_at,omitempty"`

	RoleTag     *string      `json:"role_tag,omitempty"`
	Groups      []mesh.Group `json:"groups,omitempty"`       // of new connections that name none
	MessageMode string       `json:"message_mode,omitempty"` // "": push
}

// stateRecord is what outlives a member's connections.
type stateRecord struct {
	Groups   []mesh.Group      `json:"groups,omitempty"`
	Summary  string            `json:"summary,omitempty"`
	Hidden   bool              `json:"hidden,omitempty"`
	LastSeen int64             `json:"last_seen,omitempty"` // when a connection of the member last ended; 0 = never
	Stats    wire.Stats        `json:"stats"`
	Profile  *wire.PeerProfile `json:"profile,omitempty"`
	Receipts bool              `json:"receipts,omitempty"` // the member has announced the capability once
}

// sessionRecord remembers a session key that its owner has proven, so that mail can be addressed to it while it is offline.
type sessionRecord struct {
	Member string       `json:"member"` // public key
	Groups []mesh.Group `json:"groups,omitempty"`
	Seen   int64        `json:"seen"`
}

// inviteRecord is a registered invite, stored under the SHA-256 of its token, or of its id where it has none. Expires is in Unix seconds. Token is a bearer
// secret, kept so that the code can stand for it; who can read the store can make members anyway. RootKey is the value of mesh.RootKeySize bytes, base64url,
// that every invite carries and that protects nothing.
type inviteRecord struct {
	MeshID      string `json:"mesh_id"`
	Role        string `json:"role"`
	Expires     int64  `json:"expires"`
	MaxUses     int    `json:"max_uses"`
	Used        int    `json:"used"`
	Revoked     bool   `json:"revoked,omitempty"`
	Code        string `json:"code,omitempty"`
	Token       string `json:"token,omitempty"`
	RootKey     string `json:"root_key,omitempty"`
	InviteID    string `json:"invite_id,omitempty"` // what SignatureV2 names it
	SignatureV2 string `json:"signature_v2,omitempty"`
	CreatedAt   int64  `json:"created_at,omitempty"`
}

// accepted is one accepted message, stored once however many receive it. To lists the mailbox keys it was addressed to when it was accepted.
type accepted struct {
	ID           string   `json:"id"`
	CMID         string   `json:"cmid,omitempty"`
	Mesh         string   `json:"mesh"`
	MemberID     string   `json:"member_id"`
	MemberPubkey string   `json:"member_pubkey"`
	SessionKey   string   `json:"session_key,omitempty"`
	Name         string   `json:"name"`
	Target       string   `json:"target"`
	Multicast    bool     `json:"multicast,omitempty"`
	To           []string `json:"to"`
	Priority     string   `json:"priority"`
	Nonce        string   `json:"nonce"`
	Ciphertext   string   `json:"ciphertext"`
	ReplyTo      string   `json:"reply_to,omitempty"`
	Fingerprint  string   `json:"fingerprint,omitempty"` // as the sender gave it
	Digest       string   `json:"digest"`                // what a repetition is compared by
	At           int64    `json:"at"`

	// Of messages that the broker makes itself, and of posts to a topic.
	Topic     string          `json:"topic,omitempty"` // its name
	TopicID   string          `json:"topic_id,omitempty"`
	Subtype   string          `json:"subtype,omitempty"`
	Event     string          `json:"event,omitempty"`
	EventData json.RawMessage `json:"event_data,omitempty"`

	// Of posts to a topic only.
	MemberName  string `json:"member_name,omitempty"`
	BodyVersion int    `json:"body_version,omitempty"`

	size int // bytes of the encoded form
	once sync.Once
	sent []byte // the push frame, the same for every recipient
	bad  error
}

// push is the frame that carries an accepted message.
func (a *accepted) push() wire.Push {
	sender := a.SessionKey
	if sender == "" {
		sender = a.MemberPubkey
	}
	return wire.Push{
		Type: wire.TypePush, MessageID: a.ID, MeshID: a.Mesh, SenderPubkey: sender, SenderMemberPubkey: a.MemberPubkey, SenderMemberID: a.MemberID,
		SenderName: a.Name, ReplyToID: a.ReplyTo, Priority: a.Priority, Nonce: a.Nonce, Ciphertext: a.Ciphertext,
		CreatedAt: wire.Timestamp(unixMilli(a.At)), ClientMessageID: a.CMID, RequestFingerprint: a.Fingerprint, TargetSpec: a.Target,
		Topic: a.Topic, BodyVersion: a.BodyVersion, Subtype: a.Subtype, Event: a.Event, EventData: a.EventData,
	}
}

// frame is push, encoded once however many receive it. It must not be changed.
func (a *accepted) frame() ([]byte, error) {
	a.once.Do(func() { a.sent, a.bad = wire.Encode(a.push()) })
	return a.sent, a.bad
}

func unixMilli(ms int64) time.Time { return time.UnixMilli(ms) }

// mail is one entry of a mailbox: a reference into CM_ACCEPT, or a whole receipt.
type mail struct {
	Accept  uint64        `json:"a,omitempty"`
	Receipt *wire.Receipt `json:"r,omitempty"`
}
