package bus

import (
	"encoding/json"
	"time"

	"claudemesh/mesh"
)

// This file is the local API's payloads: what travels as JSON in the requests, replies and events of the bus. Times are Unix milliseconds unless a name
// says otherwise. A field is added, never renamed; a client ignores what it does not know.

// States of an outgoing message, as far as this daemon knows: never more than is known.
const (
	StateAccepted  = "accepted"  // fsynced in this daemon's outbox
	StateSent      = "sent"      // the broker has it
	StateDelivered = "delivered" // a daemon of the recipient stored it
	StateSurfaced  = "surfaced"  // it was handed to the recipient's session
	StateAnswered  = "answered"  // a reply refers to it
	StateFailed    = "failed"    // it will not be sent; Reason says why
)

// States of a received message.
const (
	StateUndecryptable = "undecryptable" // it could not be opened: there is no text, and never will be
)

// Ways in which a message is handed to a session. The first four are rungs of the wake ladder: having been written there proves nothing yet, see docs/architecture.md.
const (
	ViaChannel = "channel" // written to the MCP client as notifications/claude/channel
	ViaWake    = "wake"    // given to the client by an asyncRewake hook (claudemesh hook wait)
	ViaHook    = "hook"    // given to the client by a hook at a turn boundary (claudemesh hook drain)
	ViaDigest  = "digest"  // only counted in a summary of a flood: it stays unread
	ViaInbox   = "inbox"   // read by the session with the inbox verb
	ViaFollow  = "follow"  // printed by inbox --follow
)

// Operations, the last token of daemon.<actor>.<op>.
const (
	OpVersion       = "version"
	OpStatus        = "status"
	OpShutdown      = "shutdown"
	OpMeshList      = "mesh-list"
	OpMeshCreate    = "mesh-create"
	OpMeshJoin      = "mesh-join"
	OpMeshShare     = "mesh-share"
	OpMeshRename    = "mesh-rename"
	OpMeshLeave     = "mesh-leave"
	OpMeshDelete    = "mesh-delete"
	OpMeshReload    = "mesh-reload"
	OpInviteList    = "invite-list"
	OpInviteRevoke  = "invite-revoke"
	OpSessionStart  = "session-register"
	OpSessionEnd    = "session-end"
	OpSessionList   = "session-list"
	OpSessionMe     = "session-me"
	OpSessionAttach = "session-attach"
	OpShim          = "shim"
	OpHook          = "hook"
	OpHookWait      = "hook-wait"
	OpInboxList     = "inbox-list"
	OpInboxSeen     = "inbox-seen"
	OpInboxPending  = "inbox-pending"
	OpInboxPushed   = "inbox-pushed"
	OpInboxSurfaced = "inbox-surfaced"
	OpOutboxList    = "outbox-list"
	OpOutboxGet     = "outbox-get"
	OpOutboxRequeue = "outbox-requeue"
	OpTap           = "tap"
)

// Calls, the last token of mesh.<slug>.<actor>.call.<op>: broker operations carried by the bridge. The reply is the broker's answer frame.
const (
	CallListPeers     = "list_peers"
	CallSetStatus     = "set_status"
	CallSetSummary    = "set_summary"
	CallJoinGroup     = "join_group"
	CallLeaveGroup    = "leave_group"
	CallSetVisible    = "set_visible"
	CallSetProfile    = "set_profile"
	CallMessageStatus = "message_status"
	CallMeshSettings  = "mesh_settings"
	CallResolve       = "peer_resolve" // answered by the daemon itself: PeerRef, PeerMember
)

// SendRequest asks the daemon to accept a message: mesh.<slug>.<actor>.send.<kind>.
type SendRequest struct {
	To              string          `json:"to"`
	Body            string          `json:"body"`
	Priority        string          `json:"priority,omitempty"` // now, next (default), low
	ReplyTo         string          `json:"reply_to,omitempty"`
	Meta            json.RawMessage `json:"meta,omitempty"`
	ClientMessageID string          `json:"client_message_id,omitempty"` // minted by the daemon when empty
}

// SendReply says what is known when the daemon answers. Code is 202 (accepted now, or still on its way) or 200 (this very request was sent before).
type SendReply struct {
	ClientMessageID string `json:"client_message_id"`
	Code            int    `json:"code"`
	Status          string `json:"status"` // queued, inflight, done
	State           string `json:"state"`
	Duplicate       bool   `json:"duplicate"`
	BrokerMessageID string `json:"broker_message_id,omitempty"`
	Mesh            string `json:"mesh"`
	Target          string `json:"target"`
	// Recipient is the name and key the target was resolved to; empty for a multicast, and while the peer is not known yet.
	RecipientName string `json:"recipient_name,omitempty"`
	RecipientKey  string `json:"recipient_key,omitempty"`
	// TopicID and BodyVersion (1: readable by the broker, 2: sealed) are set for a topic that is known here.
	TopicID     string `json:"topic_id,omitempty"`
	BodyVersion int    `json:"body_version,omitempty"`
	// Online: yes, no, or unknown (the mesh is down, or the target is not one peer).
	Online string `json:"online"`
	// Note tells what the user should know, for instance that the mesh is down and the message waits.
	Note string `json:"note,omitempty"`
	// Warning tells what the user may not want, for instance that a topic has no key.
	Warning string `json:"warning,omitempty"`
}

// Receipt is published on mesh.<slug>.receipt.<actor>.<message id> when a message of ours changes state.
type Receipt struct {
	Mesh            string `json:"mesh"`
	ClientMessageID string `json:"client_message_id"`
	BrokerMessageID string `json:"broker_message_id,omitempty"`
	State           string `json:"state"`
	Via             string `json:"via,omitempty"`
	By              string `json:"by,omitempty"`
	Recipient       string `json:"recipient,omitempty"` // 64 hex
	Reason          string `json:"reason,omitempty"`
	At              int64  `json:"at"`
}

// InboxItem is one received message. It is published on mesh.<slug>.msg.… and listed by inbox-list and inbox-pending.
type InboxItem struct {
	ID              string `json:"id"`
	ClientMessageID string `json:"client_message_id"`
	BrokerMessageID string `json:"broker_message_id"`
	Mesh            string `json:"mesh"`
	FromName        string `json:"from_name"`
	FromKey         string `json:"from_key"`
	FromMemberKey   string `json:"from_member_key,omitempty"`
	To              string `json:"to"` // what the sender addressed: a session's name, "member", "@group", "*"
	ToKey           string `json:"to_key,omitempty"`
	Topic           string `json:"topic"`
	TopicID         string `json:"topic_id,omitempty"`
	Subtype         string `json:"subtype,omitempty"`
	Priority        string `json:"priority"`
	ReplyTo         string `json:"reply_to"`
	Body            string `json:"body"`        // empty when State is undecryptable
	ReceivedAt      string `json:"received_at"` // ISO-8601 UTC, milliseconds
	Seen            bool   `json:"seen"`
	State           string `json:"state"` // delivered, surfaced, undecryptable
	Reason          string `json:"reason,omitempty"`
	// Kind is how it was addressed: dm, group, topic, broadcast, or reminder and event for what the broker itself says.
	Kind string `json:"kind,omitempty"`
	// Repeat: it was handed over before, without evidence that it was seen. What is shown must say so.
	Repeat bool `json:"repeat,omitempty"`
	// Trust is what this machine knows of the sender's member key: new (first contact), known, verified, changed (the name belonged to another key).
	Trust string `json:"trust,omitempty"`
	// SurfacedAt and SurfacedVia tell when and how it was surfaced, when State is surfaced: ISO-8601 UTC, and a Via constant.
	SurfacedAt  string `json:"surfaced_at,omitempty"`
	SurfacedVia string `json:"surfaced_via,omitempty"`
}

// InboxQuery selects messages. A session sees its own; user sees all.
type InboxQuery struct {
	Mesh     string `json:"mesh,omitempty"`
	Unread   bool   `json:"unread,omitempty"`
	Limit    int    `json:"limit,omitempty"` // default 100, at most 1000; the newest are kept, and as many as one reply holds (768 KiB)
	MarkSeen bool   `json:"mark_seen,omitempty"`
	// Since keeps what was received at that time or later, in Unix milliseconds; Topic what was posted to it, by name or id; From what a key sent: a session's or a
	// member's.
	Since int64  `json:"since,omitempty"`
	Topic string `json:"topic,omitempty"`
	From  string `json:"from,omitempty"`
	Via   string `json:"via,omitempty"` // with MarkSeen by a session: how they were handed over; of inbox-pending: the rung that asks
}

// InboxList answers inbox-list and inbox-pending, oldest first.
type InboxList struct {
	Items  []InboxItem `json:"items"`
	Unread int         `json:"unread"` // before this call marked any
}

// MessageIDs names messages by local id: inbox-seen, inbox-surfaced (with Via).
type MessageIDs struct {
	IDs []string `json:"ids"`
	Via string   `json:"via,omitempty"`
}

// Count answers calls that change a number of things.
type Count struct {
	N int `json:"n"`
}

// OutboxQuery selects accepted messages. Status is pending, inflight, done, dead, aborted or empty.
type OutboxQuery struct {
	Status string `json:"status,omitempty"`
	Mesh   string `json:"mesh,omitempty"`
	Limit  int    `json:"limit,omitempty"` // default 50, at most 500
}

// OutboxItem is one accepted message without its text.
type OutboxItem struct {
	ID              string    `json:"id"`
	ClientMessageID string    `json:"client_message_id"`
	Mesh            string    `json:"mesh"`
	Target          string    `json:"target"`
	TargetSpec      string    `json:"target_spec,omitempty"`
	Priority        string    `json:"priority"`
	Status          string    `json:"status"`
	State           string    `json:"state"`
	Attempts        int       `json:"attempts"`
	EnqueuedAt      string    `json:"enqueued_at"`
	NextAttemptAt   string    `json:"next_attempt_at"`
	DeliveredAt     string    `json:"delivered_at"` // when the broker took it; the reference's name
	BrokerMessageID string    `json:"broker_message_id"`
	LastError       string    `json:"last_error"`
	AbortedAt       string    `json:"aborted_at"`
	AbortedBy       string    `json:"aborted_by"`
	SupersededBy    string    `json:"superseded_by"`
	PayloadBytes    int       `json:"payload_bytes"`
	Receipts        []Receipt `json:"receipts,omitempty"`
}

// OutboxList answers outbox-list, newest first.
type OutboxList struct {
	Items []OutboxItem `json:"items"`
}

// OutboxGet asks for one message by client message id, broker message id or row id.
type OutboxGet struct {
	ID   string `json:"id"`
	Mesh string `json:"mesh,omitempty"`
}

// Requeue asks for a new attempt of a message under a new client message id.
type Requeue struct {
	ID                 string `json:"id"`
	NewClientMessageID string `json:"new_client_message_id,omitempty"`
}

// Requeued answers it.
type Requeued struct {
	AbortedRowID       string `json:"aborted_row_id"`
	NewRowID           string `json:"new_row_id"`
	NewClientMessageID string `json:"new_client_message_id"`
}

// Version answers the version operation.
type Version struct {
	Version string `json:"version"`
	API     int    `json:"api"`
	PID     int    `json:"pid"`
}

// Status answers the status operation.
type Status struct {
	Running   bool   `json:"running"`
	PID       int    `json:"pid"`
	Version   string `json:"version"`
	StartedAt int64  `json:"started_at"`
	Socket    string `json:"socket"`
	TCPURL    string `json:"tcp_url,omitempty"`
	// HTTPSocket and HTTPURL are the doors for scripts: the path of a Unix socket, and http://127.0.0.1:<port>; empty when they are closed.
	HTTPSocket string       `json:"http_socket,omitempty"`
	HTTPURL    string       `json:"http_url,omitempty"`
	Dir        string       `json:"dir"`
	Log        string       `json:"log,omitempty"`
	Meshes     []MeshStatus `json:"meshes"`
	Sessions   int          `json:"sessions"`
	Notices    []string     `json:"notices,omitempty"` // what the user should know, e.g. a quarantined inbox file
	Broker     *BrokerInfo  `json:"broker,omitempty"`  // the embedded broker, when it hosts a mesh
}

// BrokerInfo describes the broker inside the daemon.
type BrokerInfo struct {
	URL   string `json:"url"`
	Error string `json:"error,omitempty"`
}

// MeshStatus is one joined mesh.
type MeshStatus struct {
	Mesh        string         `json:"mesh"`
	Name        string         `json:"name"`
	MeshID      string         `json:"mesh_id"`
	MemberID    string         `json:"member_id"`
	Pubkey      string         `json:"pubkey"`
	DisplayName string         `json:"display_name"`
	BrokerURL   string         `json:"broker_url"`
	Link        string         `json:"link"` // connecting, open, waiting, closed
	Error       string         `json:"error,omitempty"`
	Since       int64          `json:"since"`
	Sessions    int            `json:"sessions"`
	Outbox      map[string]int `json:"outbox"` // rows per status
	Unread      int            `json:"unread"`
	Peers       int            `json:"peers"`            // sessions of anybody that are connected, as the broker said last; 0 while the link is down
	Server      *MeshServer    `json:"server,omitempty"` // only when asked for, and the broker answered
	// Disbelieved counts the receipts, since the daemon's start, that were not signed or whose signature did not hold.
	Disbelieved int `json:"disbelieved_receipts,omitempty"`
}

// MeshServer is what the broker says about a mesh. Slug is the broker's; the one here may have been changed.
type MeshServer struct {
	Slug      string `json:"slug"`
	Name      string `json:"name"`
	Role      string `json:"role"` // owner, admin, member
	IsOwner   bool   `json:"is_owner"`
	OwnerName string `json:"owner_name,omitempty"`
	Members   int    `json:"members"`
	Online    int    `json:"online"` // connections, not members
}

// MeshQuery is the optional payload of mesh-list.
type MeshQuery struct {
	Server bool `json:"server,omitempty"` // ask the brokers, too
}

// MeshList answers mesh-list.
type MeshList struct {
	Meshes []MeshStatus `json:"meshes"`
}

// MeshCreate makes a mesh: on this daemon's own broker, or on BrokerURL with its admin token.
type MeshCreate struct {
	Name           string `json:"name"`
	DisplayName    string `json:"display_name,omitempty"`
	BrokerURL      string `json:"broker_url,omitempty"`
	AdminTokenFile string `json:"admin_token_file,omitempty"` // a path: the token itself travels in no request
}

// MeshJoin joins a mesh by invite: a link, a token, a short link, or a short code together with the URL of its broker.
type MeshJoin struct {
	Invite      string `json:"invite"`
	BrokerURL   string `json:"broker_url,omitempty"`
	DisplayName string `json:"display_name,omitempty"`
}

// MeshJoined answers mesh-create and mesh-join.
type MeshJoined struct {
	Mesh          string `json:"mesh"`
	Name          string `json:"name"`
	MeshID        string `json:"mesh_id"`
	MemberID      string `json:"member_id"`
	Pubkey        string `json:"pubkey"`
	BrokerURL     string `json:"broker_url"`
	DisplayName   string `json:"display_name"`
	AlreadyMember bool   `json:"already_member,omitempty"`
}

// MeshShare makes an invite for a mesh that this member owns.
type MeshShare struct {
	Mesh      string `json:"mesh"`
	MaxUses   int    `json:"max_uses,omitempty"`   // default 1
	ExpiresIn int64  `json:"expires_in,omitempty"` // seconds, default 7 days, at most 90 days
	BrokerURL string `json:"broker_url,omitempty"` // what the invite names; default the mesh's own
	Role      string `json:"role,omitempty"`       // member (default) or admin
}

// MeshInvite answers it. The invite is a bearer secret; it is the one secret that a reply exists to carry.
type MeshInvite struct {
	Mesh      string `json:"mesh"`
	ID        string `json:"id"`         // for invite-revoke
	URL       string `json:"url"`        // the short link
	Code      string `json:"code"`       // for those who know the broker's address
	Invite    string `json:"invite"`     // ic://join/<token>: needs no lookup
	ExpiresAt int64  `json:"expires_at"` // Unix seconds
	MaxUses   int    `json:"max_uses"`
	Note      string `json:"note,omitempty"` // e.g. that the broker listens on loopback only
}

// MeshRename gives a mesh another slug: at the broker, which only the owner may, and here; or only here. Sessions that run on the mesh are in the way
// unless Force ends them.
type MeshRename struct {
	Mesh  string `json:"mesh"`
	Slug  string `json:"slug"`
	Local bool   `json:"local,omitempty"`
	Force bool   `json:"force,omitempty"`
}

// MeshRenamed answers it.
type MeshRenamed struct {
	Mesh   string `json:"mesh"` // the new slug
	Was    string `json:"was"`
	MeshID string `json:"mesh_id"`
	Local  bool   `json:"local"`
}

// MeshLeave ends a membership: at the broker and here, or only here. It ends the sessions that run on the mesh.
type MeshLeave struct {
	Mesh  string `json:"mesh"`
	Local bool   `json:"local,omitempty"`
}

// MeshDelete deletes a mesh for everybody; only its owner may.
type MeshDelete struct {
	Mesh string `json:"mesh"`
}

// MeshLeft answers both.
type MeshLeft struct {
	Mesh     string `json:"mesh"`
	MeshID   string `json:"mesh_id"`
	Local    bool   `json:"local"`             // the broker was not told
	Sessions int    `json:"sessions"`          // that were ended
	Unsent   int    `json:"unsent"`            // messages that were waiting and have failed now; they are kept
	KeptAs   string `json:"kept_as,omitempty"` // the name under which outbox and inbox keep the history of the mesh
	Joined   int    `json:"joined"`            // meshes that are left
	Note     string `json:"note,omitempty"`
}

// MeshesReloaded answers mesh-reload: the slugs that were attached by it.
type MeshesReloaded struct {
	Attached []string `json:"attached"`
}

// InviteInfo is one invite of a mesh. ExpiresAt is in Unix seconds.
type InviteInfo struct {
	ID        string `json:"id"`
	Code      string `json:"code,omitempty"`
	Role      string `json:"role"`
	ExpiresAt int64  `json:"expires_at"`
	MaxUses   int    `json:"max_uses"`
	Used      int    `json:"used"`
	Revoked   bool   `json:"revoked,omitempty"`
	CreatedAt int64  `json:"created_at,omitempty"`
}

// InviteQuery asks for the invites of a mesh that this member owns, or with Invite (id or code) for the end of one.
type InviteQuery struct {
	Mesh   string `json:"mesh"`
	Invite string `json:"invite,omitempty"`
}

// InviteList answers invite-list, newest first, and invite-revoke with the one that was revoked.
type InviteList struct {
	Mesh    string       `json:"mesh"`
	Invites []InviteInfo `json:"invites"`
}

// TapRequest asks for the read-only credential, or ends it.
type TapRequest struct {
	Revoke bool `json:"revoke,omitempty"`
}

// Tap answers the tap operation: where the read-only credential is and how to connect with it.
type Tap struct {
	URL         string `json:"url"`
	TokenFile   string `json:"token_file"`
	InboxPrefix string `json:"inbox_prefix"`
}

// PeersReply is the reply to the list_peers call, after the daemon has marked the caller's own rows.
type PeersReply struct {
	Mesh  string `json:"mesh"`
	Peers []Peer `json:"peers"`
}

// PeerRef names a peer as people do: a display name, a key, or the beginning of one.
type PeerRef struct {
	Peer string `json:"peer"`
}

// PeerMember is the member a PeerRef means. Name is "" for a key that nobody has seen.
type PeerMember struct {
	Mesh   string `json:"mesh"`
	Pubkey string `json:"pubkey"`
	Name   string `json:"name"`
	Online bool   `json:"online"`
	IsSelf bool   `json:"isSelf"`
}

// Peer is one row of peer list: the broker's fields plus what only this machine knows.
type Peer struct {
	Pubkey        string          `json:"pubkey"`
	MemberPubkey  string          `json:"memberPubkey"`
	DisplayName   string          `json:"displayName"`
	Status        string          `json:"status"`
	Summary       *string         `json:"summary"`
	Groups        []mesh.Group    `json:"groups"`
	SessionID     string          `json:"sessionId"`
	ConnectedAt   string          `json:"connectedAt"`
	Cwd           string          `json:"cwd,omitempty"`
	Hostname      string          `json:"hostname,omitempty"`
	PeerType      string          `json:"peerType,omitempty"`
	Channel       string          `json:"channel,omitempty"`
	Model         string          `json:"model,omitempty"`
	Visible       bool            `json:"visible"`
	Stats         json.RawMessage `json:"stats,omitempty"`
	Profile       json.RawMessage `json:"profile,omitempty"` // avatar, title, bio, capabilities; none is always there
	PeerRole      string          `json:"peerRole,omitempty"`
	Mesh          string          `json:"mesh"`
	IsSelf        bool            `json:"isSelf"`        // of the caller's own member
	IsThisSession bool            `json:"isThisSession"` // the calling session itself
	// Role is the session's own word on what it does. AllowedCaps is what its member limited it to; absent: everything its member may.
	Role        string    `json:"role,omitempty"`
	AllowedCaps *[]string `json:"allowed_caps,omitempty"`
	// Wake tells how a session of this machine is woken; absent for those of others.
	Wake *WakeInfo `json:"wake,omitempty"`
}

// ServiceLease is how long an offer of a service lasts without being repeated.
const ServiceLease = 30 * time.Second

// ServiceOffer is the request of call.mcp_register: an MCP server that the caller runs is offered to the mesh. It must be repeated within ServiceLease, and
// ends with call.mcp_unregister. Calls are published as ServiceCall on Deliver, a subject in the caller's own inbox, and answered by call.mcp_call_response.
type ServiceOffer struct {
	ServerName  string          `json:"serverName"`
	Description string          `json:"description"`
	Tools       json.RawMessage `json:"tools"` // as tools/list of MCP has them: name, description, inputSchema
	Persistent  bool            `json:"persistent,omitempty"`
	Deliver     string          `json:"deliver"`
}

// ServiceCall is one call of a tool.
type ServiceCall struct {
	CallID     string          `json:"callId"`
	ServerName string          `json:"serverName"`
	ToolName   string          `json:"toolName"`
	Args       json.RawMessage `json:"args"`
	CallerName string          `json:"callerName"`
	CallerKey  string          `json:"callerKey,omitempty"` // member key, 64 hex; empty from a reference broker
}

// ServiceAnswer is the request of call.mcp_call_response.
type ServiceAnswer struct {
	CallID string          `json:"callId"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// StateChange is published on mesh.<slug>.event.state_change: somebody wrote or deleted a key of the shared state. Value is absent when it was deleted, and
// when it is over 64 KiB; ValueBytes is its size.
type StateChange struct {
	Mesh       string          `json:"mesh"`
	Key        string          `json:"key"`
	Value      json.RawMessage `json:"value,omitempty"`
	ValueBytes int             `json:"value_bytes"`
	UpdatedBy  string          `json:"updated_by"`
	Deleted    bool            `json:"deleted,omitempty"`
	At         int64           `json:"at"`
}

// SkillChange is published on mesh.<slug>.event.skill_change: somebody shared or removed a skill. Action is shared or removed.
type SkillChange struct {
	Mesh   string `json:"mesh"`
	Name   string `json:"name"`
	Action string `json:"action"`
	By     string `json:"by"`
	At     int64  `json:"at"`
}
