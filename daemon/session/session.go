// Package session is the registry of running programs (sessions) that speak on the local bus, of the key pairs their
// names own, and the directory of peers seen on the meshes.
//
// The invariants it keeps: at most one live session per id and per token; a key pair is held by at most one live session;
// the next session of a name gets the key of the last one, so mail kept for it can be opened; a conversation keeps its key
// over all sessions that take it up; a session is ended by the reaper only when its process is surely gone. Secret keys leave it only through [Secret.Reveal].
//
// Only package daemon calls it.
package session

import (
	"fmt"
	"log/slog"
	"time"
)

// Secret is an ed25519 private key as 128 lower-case hex digits. It prints as "[secret]" whatever verb, encoder or
// logger is used.
type Secret string

// Reveal gives the key itself.
func (s Secret) Reveal() string { return string(s) }

// Format keeps every fmt verb from showing the key.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[secret]")) }

// String implements fmt.Stringer.
func (s Secret) String() string { return "[secret]" }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// MarshalText keeps the key out of JSON and other text encodings.
func (s Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// Session is one registered program.
type Session struct {
	ID           string
	Mesh         string // slug
	Name         string // display name
	KeySecret    Secret
	PublicKey    string // 64 hex
	TokenHash    [32]byte
	PID          int    // 0 when unknown: such a session is never reaped
	StartTime    string // of the process, opaque, see Processes; empty when unknown
	Cwd          string
	Role         string
	Groups       []string
	Caps         []string // nil: everything its member may do; empty: nothing
	OnlyMesh     bool
	Parent       string    // id of the session that made it; empty: the user did
	RegisteredAt time.Time // millisecond resolution, as all times here
	LastSeenAt   time.Time
	EndedAt      time.Time // zero while live
	Presence     []byte    // see SetPresence; nil when it said nothing
	Wake         []byte    // see SetWake; nil when nothing is known
	MessageMode  string    // push, inbox or off; empty when it made no choice
	Nudge        bool      // a line may be written on the inbox socket of its client
	Conversation string    // what its client talks about, the client's own id; empty when unknown
}

// Registration is what a caller hands to [Store.Register]. Mesh, TokenHash and a name are required.
type Registration struct {
	ID        string // when empty, Conversation if that is a free UUID, else a UUIDv4 is made
	Mesh      string
	Name      string // when empty, the conversation's, else DefaultName
	PID       int
	StartTime string
	Cwd       string
	Role      string
	Groups    []string
	Caps      []string
	OnlyMesh  bool
	Parent    string // as in Session
	// OwnKey gives it a key pair that no other session had or will have, whatever its name: who may not take a name's mail.
	OwnKey    bool
	TokenHash [32]byte

	MessageMode string
	Nudge       bool

	// Conversation that is taken up, or begun: the session gets its key. With Continue and no Conversation it is the last one of Mesh and Cwd.
	// Role and Groups are the conversation's when they are empty.
	Conversation string
	Continue     bool
	DefaultName  string
}

// Peer is an entry of the directory: somebody seen on a mesh.
type Peer struct {
	Mesh       string
	Key        string // session or member key, 64 hex
	MemberKey  string
	Name       string
	PeerRole   string
	Groups     []string
	LastSeenAt time.Time // set to now by UpsertPeers when zero
}
