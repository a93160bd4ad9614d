// Package outbox is the truth about messages this user has handed over: a message was accepted if and only if its row
// is here, committed and fsynced.
//
// The invariants it keeps: a client message id is bound to one request per mesh for ever (no call changes what a row
// says or whom it is for); a row moves only along the transitions of [Status], each conditional on the state it leaves,
// so that a late answer can never bring a row back; within one mesh the first attempts for one recipient happen in the
// order of acceptance; and no number of failed attempts kills a row.
//
// Only package daemon calls it: its handlers accept, its drains claim and settle.
package outbox

import (
	"encoding/json"
	"time"
)

// Status of a row. The transitions, and no others:
//
//	pending  → inflight   Claim
//	inflight → done       Sent
//	inflight → pending    Release, Recover
//	pending, inflight → dead            Kill
//	pending, inflight, dead → aborted   Requeue
//
// done and aborted are final.
type Status string

// The five states of a row.
const (
	Pending  Status = "pending"  // waiting for an attempt, now or at NextAttemptAt
	Inflight Status = "inflight" // handed to the bridge, no answer yet
	Done     Status = "done"     // the broker acknowledged it
	Dead     Status = "dead"     // refused for good, LastError says why
	Aborted  Status = "aborted"  // replaced by a requeue, SupersededBy says by which row
)

// NewRow is what a caller hands to [Store.Accept].
type NewRow struct {
	ID              string // row id; a UUIDv4 is made when empty
	ClientMessageID string // unique per mesh
	Mesh            string // slug
	Actor           string // "user" or a session id
	SenderKey       string // 64 hex: the session or member key the message goes out under
	Kind            string // dm, group, topic or all
	Target          string // as typed
	TargetSpec      string // routing key, "@group", "#topic" or "*"; empty when the drain has to resolve Target
	Priority        string // now, next, low, or empty when the caller named none
	ReplyTo         string
	Meta            json.RawMessage
	Payload         []byte // the text, UTF-8, in clear
	Fingerprint     [32]byte
}

// Row is one accepted message. Zero times and empty strings stand for NULL.
type Row struct {
	NewRow

	Seq             int64 // order of acceptance, never reused
	Status          Status
	EnqueuedAt      time.Time // millisecond resolution, as all times here
	Attempts        int       // claims so far, never decreases
	NextAttemptAt   time.Time
	LastError       string
	DeliveredAt     time.Time // when the broker acknowledged it
	BrokerMessageID string
	AbortedAt       time.Time
	AbortedBy       string
	SupersededBy    string // row id of the row that replaced this one
}

// Recipient is what orders a row among the others of its mesh: the routing target once it is known, else the target as typed.
func (r Row) Recipient() string {
	if r.TargetSpec != "" {
		return r.TargetSpec
	}
	return r.Target
}

// Filter selects rows for [Store.List]; an empty field selects everything.
type Filter struct {
	Status Status
	Mesh   string
	Actor  string
	Limit  int // 0 means 100, at most 10,000
}

// Receipt is one step of one recipient's copy of a row: delivered, surfaced or answered.
type Receipt struct {
	RowID     string
	Recipient string // key of the recipient, hex
	State     string
	Via       string    // the way it was surfaced, empty otherwise
	By        string    // display name of the session that surfaced or answered it
	At        time.Time // as reported by the recipient's side
	Proven    bool      // false: on a broker's word, from the time before receipts were signed
}

// Count is the number of rows of one mesh in one state.
type Count struct {
	Mesh   string
	Status Status
	Rows   int64
}
