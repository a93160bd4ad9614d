package bus

import "claudemesh/mesh"

// This file is the part of the local API that is about sessions: registering one, its MCP shim, its client's hooks. The rules of api.go hold.

// SessionStart registers a running program as a session. A session may register others, limited to what it may do itself.
type SessionStart struct {
	ID        string       `json:"id,omitempty"` // one subject token; when empty, Conversation if it is a UUID and free, else one is minted
	Mesh      string       `json:"mesh"`
	Name      string       `json:"name"` // when empty, that of the conversation, else DefaultName
	PID       int          `json:"pid"`
	StartTime string       `json:"start_time,omitempty"` // as the operating system tells it; looked up when empty
	Cwd       string       `json:"cwd,omitempty"`
	Role      string       `json:"role,omitempty"`
	Groups    []mesh.Group `json:"groups,omitempty"`
	Caps      []string     `json:"caps"` // null or absent: all that the member may; empty: nothing
	OnlyMesh  bool         `json:"only_mesh,omitempty"`
	// Conversation is the client's own id of what it talks about (Claude Code's session id). A session that takes a conversation up again gets the key
	// that the conversation had on that mesh, whatever its name. With Continue and no Conversation, it is the last one of the same mesh and Cwd.
	Conversation string `json:"conversation,omitempty"`
	Continue     bool   `json:"continue,omitempty"`
	// DefaultName is the name of a session that has none and takes up no conversation that had one. Role and Groups are the conversation's when empty.
	DefaultName string `json:"default_name,omitempty"`
	// MessageMode is push (default), inbox or off: with the last two nothing is shown unasked. The stricter of this and the member's own choice holds.
	MessageMode string `json:"message_mode,omitempty"`
	// Nudge allows the last rung of the wake ladder: a line without content on the client's own inbox socket.
	Nudge bool `json:"nudge,omitempty"`
}

// SessionInfo describes a session: never its secret key, never its token.
type SessionInfo struct {
	ID       string       `json:"id"`
	Mesh     string       `json:"mesh"`
	Name     string       `json:"name"`
	Pubkey   string       `json:"pubkey"`
	PID      int          `json:"pid"`
	Cwd      string       `json:"cwd"`
	Role     string       `json:"role,omitempty"`
	Groups   []mesh.Group `json:"groups"`
	Caps     *[]string    `json:"allowed_caps,omitempty"` // absent: all that the member may
	OnlyMesh bool         `json:"only_mesh,omitempty"`
	Parent   string       `json:"parent,omitempty"` // the session that made it, and with which it ends
	// CapsHeld says, of a limited session, who holds it to its limits: a CapsHeld constant.
	CapsHeld  string `json:"caps_held,omitempty"`
	Link      string `json:"link"`
	LinkError string `json:"link_error,omitempty"` // why it is not open, e.g. that the session was kicked
	StartedAt int64  `json:"started_at"`
	Unread    int    `json:"unread"` // of session-list and session-register only: it has to be counted
	// KnownPeers is how many other sessions were on the mesh when the broker was last heard: of session-register only, and absent until it was.
	KnownPeers *int `json:"known_peers,omitempty"`
	// MessageMode is what holds for this session: push, inbox (messages are not shown unasked) or off (the same). Empty until a broker was reached.
	MessageMode  string    `json:"message_mode,omitempty"`
	Conversation string    `json:"conversation,omitempty"`
	Wake         *WakeInfo `json:"wake,omitempty"`
	// TokenFile is where the daemon wrote the session's token (0600): only in the replies to session-register and session-attach.
	TokenFile string `json:"token_file,omitempty"`
}

// Who holds a limited session to its capabilities.
const (
	CapsHeldBoth = "broker"  // the broker of its mesh, and this machine
	CapsHeldHere = "machine" // this machine only: its broker knows no limits of sessions
	CapsUnknown  = "unknown" // this machine; the broker has not been reached yet
)

// SessionList answers session-list.
type SessionList struct {
	Sessions []SessionInfo `json:"sessions"`
}

// SessionID names a session.
type SessionID struct {
	ID string `json:"id"`
}

// SessionAttach makes a client that nobody launched (plain claude) a session; only the user asks. It answers SessionInfo: of the session that this
// process already is, else of a new one. Without Mesh it is the only mesh that is joined.
type SessionAttach struct {
	PID          int    `json:"pid"` // of the client
	Mesh         string `json:"mesh,omitempty"`
	Cwd          string `json:"cwd,omitempty"`
	Conversation string `json:"conversation,omitempty"`
}

// Rungs of the wake ladder, from the quickest. A session's next message takes the first that it has; RungInbox means that nothing wakes it.
const (
	RungChannel = "channel" // the shim's notification
	RungWake    = "wake"    // an asyncRewake hook that waits
	RungHook    = "hook"    // the next turn boundary
	RungNudge   = "nudge"   // a line without content on the client's inbox socket
	RungInbox   = "inbox"   // the session must look by itself
)

// What is known of a session's channel.
const (
	ChannelUnproven = "unproven" // a shim is connected; nothing written to it has been seen by the model yet
	ChannelProven   = "proven"   // the client's transcript held a message that was written there
	ChannelSilent   = "silent"   // it never held one that should have been there: the client drops them
)

// WakeInfo tells how a session is woken.
type WakeInfo struct {
	Rung      string `json:"rung"`                 // what the next message takes
	Channel   string `json:"channel,omitempty"`    // a Channel constant; absent without a shim
	Hooks     bool   `json:"hooks"`                // the client has run one of our hooks
	Waiting   bool   `json:"waiting"`              // a hook waits to wake it
	Nudge     bool   `json:"nudge"`                // the last rung is allowed
	Unshown   int    `json:"unshown"`              // messages that it should have been shown, and was not
	DeafSince int64  `json:"deaf_since,omitempty"` // Unix ms; since when nothing that was tried reached it
}

// Shim is said by an MCP shim when its client has initialized it, and again at each connection. PID is the client's: the shim's parent. It answers ShimState.
type Shim struct {
	PID      int    `json:"pid"`
	Client   string `json:"client,omitempty"`    // name and version, as the client told them
	CanNudge bool   `json:"can_nudge,omitempty"` // the client has an inbox socket
}

// ShimState answers it. Quiet: another client holds this session (a program that this one started), and nothing is to be shown here.
type ShimState struct {
	SessionInfo
	Quiet  bool   `json:"quiet,omitempty"`
	Member string `json:"member,omitempty"` // the key of the member whose session it is
}

// HookEvent is what a hook of the client has to say. Event is the client's own name of it; only those named here mean something, others are signs of life.
type HookEvent struct {
	Event        string `json:"event"`            // SessionStart, UserPromptSubmit, PostToolUse, Stop, Notification, SessionEnd
	Status       string `json:"status,omitempty"` // instead of Event: idle, working or dnd, as the reference's hooks say it
	Conversation string `json:"conversation,omitempty"`
	Transcript   string `json:"transcript,omitempty"` // path of the client's record of the conversation
	Cwd          string `json:"cwd,omitempty"`
	Source       string `json:"source,omitempty"`       // of SessionStart: startup, resume, clear, compact
	Notification string `json:"notification,omitempty"` // of Notification: permission_prompt, idle_prompt
	StopActive   bool   `json:"stop_active,omitempty"`  // of Stop: the turn went on because of a hook
	PID          int    `json:"pid,omitempty"`          // of the client, when it tells
	Drain        bool   `json:"drain,omitempty"`        // hand over what waits
	// ByUser: of UserPromptSubmit, that a person wrote the prompt; a message that starts a turn is a prompt, too.
	ByUser bool `json:"by_user,omitempty"`
	// Seen are the ids of messages that the client's own words to its hook hold: it has put them before the model.
	Seen []string `json:"seen,omitempty"`
}

// HookReply answers hook and hook-wait. What is in Items must be shown; More says what was left out.
type HookReply struct {
	Session string      `json:"session,omitempty"` // whose hook it is; empty: of no session, and nothing is to be done
	Mesh    string      `json:"mesh,omitempty"`
	Name    string      `json:"name,omitempty"`
	Items   []InboxItem `json:"items,omitempty"`
	More    []Withheld  `json:"more,omitempty"`
	// TokenFile is set for a SessionStart of a client that nobody launched: what its programs need to act as the session.
	TokenFile string `json:"token_file,omitempty"`
	// Over ends a waiting hook: another one took its place, or the client is working.
	Over bool `json:"over,omitempty"`
}

// Withheld counts messages that wait in the inbox and were not handed over one by one.
type Withheld struct {
	FromName string `json:"from_name"`
	Count    int    `json:"count"`
}

// HookWait is asked by a waiting hook: when it starts (First), and each time it is poked on WakeSubject(…, RungWake). It answers HookReply at once.
type HookWait struct {
	Waiter       string `json:"waiter"` // a random word of this process
	First        bool   `json:"first,omitempty"`
	PID          int    `json:"pid,omitempty"` // of the client, when it tells
	Conversation string `json:"conversation,omitempty"`
	// Event and Cwd are what the client started the hook for, and where. The client starts it beside the other hooks of the event: at SessionStart it may be
	// the first that the daemon hears of the client, and makes it a session as they do.
	Event string `json:"event,omitempty"`
	Cwd   string `json:"cwd,omitempty"`
}

// Nudge is published on WakeSubject(…, RungNudge).
type Nudge struct {
	Unread int `json:"unread"`
}
