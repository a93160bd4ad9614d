// Package inbox is the truth about messages this user has received: a message may be acknowledged to the broker only
// after [Store.Insert] returned.
//
// The invariants it keeps: one message per (mesh, sender, client message id), whatever is redelivered; one delivery row
// per message and session concerned, which only that session can move; and text that could not be opened is never text:
// Body is empty then and Undecryptable is set.
//
// Only package daemon calls it.
package inbox

import "time"

// Message is one received message. Zero times and empty strings stand for NULL.
type Message struct {
	ID  string // a UUIDv4 is made by Insert when empty
	Seq int64  // order of arrival, set by Insert

	Mesh            string // slug
	Sender          string // whom duplicates are recognised by: the sender's member key when known, else the sender key
	ClientMessageID string // the sender's id, or the broker's when the sender gave none
	BrokerMessageID string

	SenderKey       string // 64 hex
	SenderMemberKey string
	SenderName      string
	RecipientKey    string // key it was sealed for or mailed to
	TargetSpec      string // as routed: a key, "@group", "#topic" or "*"
	ToKind          string // session, member, group, topic or all
	Topic           string
	Subtype         string
	Priority        string
	ReplyTo         string

	Body          string
	Undecryptable bool
	Reason        string // why it could not be opened
	Nonce         []byte // kept only while Undecryptable
	Ciphertext    []byte // kept only while Undecryptable

	CreatedAt  time.Time // the sender's or broker's clock
	ReceivedAt time.Time // ours, set by Insert when zero
	SeenAt     time.Time // when the user saw it
}

// Whom a message is for ([Message].ToKind).
const (
	ToSession = "session"
	ToMember  = "member"
	ToGroup   = "group"
	ToTopic   = "topic"
	ToAll     = "all"
)

// What is known about an item ([Item].State).
const (
	StateDelivered     = "delivered"     // stored here
	StateSurfaced      = "surfaced"      // handed to a session
	StateUndecryptable = "undecryptable" // stored, cannot be opened
)

// Delivery is the state of one message for one session.
type Delivery struct {
	MessageID  string
	SessionID  string
	State      string // open, pushed or surfaced
	PushedVia  string // the way it was pushed last
	PushedAt   time.Time
	Tries      int    // how often it was pushed
	Via        string // the way it was surfaced
	Evidence   string // what tells that it was
	SurfacedAt time.Time
	SeenAt     time.Time // when the session listed it
}

// States of a [Delivery].
const (
	DeliveryOpen     = "open"     // never handed over
	DeliveryPushed   = "pushed"   // handed over, and nothing tells that it was seen
	DeliverySurfaced = "surfaced" // seen, by evidence
)

// What tells that a message was seen ([Delivery].Evidence).
const (
	EvidenceTranscript = "transcript" // the client's record of the conversation holds its id
	EvidenceTurn       = "turn"       // the turn in which a hook carried it went on
	EvidenceRead       = "read"       // the session asked for it and printed it
)

// Waiting is a message that a session has not been shown, and how far it came.
type Waiting struct {
	Message
	Delivery
}

// Item is a message as seen by one reader.
type Item struct {
	Message
	State      string    // StateDelivered, StateSurfaced or StateUndecryptable
	Via        string    // the way it was surfaced
	SurfacedAt time.Time // when it was surfaced, zero when it was not
	Seen       bool      // by the reader
}

// Query selects items for [Store.List].
type Query struct {
	Session     string // "" is the user, who sees everything
	Mesh        string
	Unread      bool      // only what the reader has not seen
	Since       time.Time // received at or after
	Topic       string    // posts of this topic, by name or id
	From        string    // sent by this key, a session's or a member's
	Limit       int       // 0 means 100, at most 10,000
	OldestFirst bool
	MarkSeen    bool // mark what is returned as seen by the reader
}
