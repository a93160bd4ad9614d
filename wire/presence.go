package wire

import (
	"fmt"

	"claudemesh/mesh"
)

// Peer statuses.
const (
	StatusIdle    = "idle"
	StatusWorking = "working"
	StatusDND     = "dnd"
)

// Peer roles: what kind of connection a row of peers_list is.
const (
	RoleControlPlane = "control-plane"
	RoleSession      = "session"
)

// Peer is one connection in peers_list. Pubkey is the routing key to send to: the session key if the connection has one, else the member key.
type Peer struct {
	Pubkey       string       `json:"pubkey"`
	MemberPubkey string       `json:"memberPubkey"`
	DisplayName  string       `json:"displayName"`
	Status       string       `json:"status"`
	Summary      *string      `json:"summary"`
	Groups       []mesh.Group `json:"groups"`
	SessionID    string       `json:"sessionId"`
	ConnectedAt  string       `json:"connectedAt"`
	Cwd          string       `json:"cwd"`
	Hostname     string       `json:"hostname,omitempty"`
	PeerType     string       `json:"peerType,omitempty"`
	Channel      string       `json:"channel,omitempty"`
	Model        string       `json:"model,omitempty"`
	Stats        *Stats       `json:"stats,omitempty"`
	Visible      bool         `json:"visible"`
	Profile      *PeerProfile `json:"profile,omitempty"`
	PeerRole     string       `json:"peerRole,omitempty"`
	// Role is the session's own word on what it does; absent from a reference broker. AllowedCaps is what its member has limited it to, in a broker with
	// CapSessionCaps; absent: it may do what its member may.
	Role        string    `json:"role,omitempty"`
	AllowedCaps *[]string `json:"allowed_caps,omitempty"`
}

// PeersList answers list_peers, ordered by ConnectedAt ascending, the requester's own rows included.
type PeersList struct {
	Type  string `json:"type"`
	Peers []Peer `json:"peers"`
	ReqID string `json:"_reqId,omitempty"`
}

// SetStatus sets the connection's status by hand. The reference sends no answer; here a request with _reqId is answered by an ack.
type SetStatus struct {
	Type   string `json:"type"`
	Status string `json:"status"`
	ReqID  string `json:"_reqId,omitempty"`
}

// Validate checks the status value.
func (s SetStatus) Validate() error {
	switch s.Status {
	case StatusIdle, StatusWorking, StatusDND:
		return nil
	}
	return fmt.Errorf("%w: status must be idle, working or dnd", ErrInvalid)
}

// SetSummary sets the connection's one-line summary.
type SetSummary struct {
	Type    string `json:"type"`
	Summary string `json:"summary"`
	ReqID   string `json:"_reqId,omitempty"`
}

// Validate checks the length.
func (s SetSummary) Validate() error { return tooLong("summary", s.Summary, MaxTextBytes) }

// PeerProfile is what a peer tells about itself. Empty fields are absent.
type PeerProfile struct {
	Avatar       string   `json:"avatar,omitempty"` // an emoji or a URL
	Title        string   `json:"title,omitempty"`
	Bio          string   `json:"bio,omitempty"`
	Capabilities []string `json:"capabilities,omitempty"` // free words: what it can do
}

// SetProfile changes the connection's profile: fields that are absent stay, those that are empty are removed. The answer is an ack with the request id in id
// and _reqId.
type SetProfile struct {
	Type         string    `json:"type,omitempty"`
	Avatar       *string   `json:"avatar,omitempty"`
	Title        *string   `json:"title,omitempty"`
	Bio          *string   `json:"bio,omitempty"`
	Capabilities *[]string `json:"capabilities,omitempty"`
	ReqID        string    `json:"_reqId,omitempty"`
}

// Validate checks lengths and the number of capabilities.
func (s SetProfile) Validate() error {
	var caps []string
	if s.Capabilities != nil {
		caps = *s.Capabilities
	}
	if len(caps) > MaxProfileCapabilities {
		return fmt.Errorf("%w: more than %d capabilities", ErrInvalid, MaxProfileCapabilities)
	}
	for _, c := range caps {
		if err := firstError(required("capability", c), tooLong("capability", c, MaxNameBytes)); err != nil {
			return err
		}
	}
	text := func(p *string) string {
		if p == nil {
			return ""
		}
		return *p
	}
	return firstError(tooLong("avatar", text(s.Avatar), MaxNameBytes*4), tooLong("title", text(s.Title), MaxNameBytes), tooLong("bio", text(s.Bio), MaxBioBytes))
}

// Apply is p with the changes of s, nil when nothing is left of it.
func (s SetProfile) Apply(p *PeerProfile) *PeerProfile {
	var out PeerProfile
	if p != nil {
		out = *p
	}
	for _, f := range []struct{ to, from *string }{{&out.Avatar, s.Avatar}, {&out.Title, s.Title}, {&out.Bio, s.Bio}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	if s.Capabilities != nil {
		out.Capabilities = *s.Capabilities
	}
	if out.Avatar == "" && out.Title == "" && out.Bio == "" && len(out.Capabilities) == 0 {
		return nil
	}
	return &out
}

// JoinGroup adds the connection to a group, or changes its role there.
type JoinGroup struct {
	Type  string `json:"type"`
	Name  string `json:"name"`
	Role  string `json:"role,omitempty"`
	ReqID string `json:"_reqId,omitempty"`
}

// Validate checks presence and lengths.
func (j JoinGroup) Validate() error { return groups([]mesh.Group{{Name: j.Name, Role: j.Role}}) }

// LeaveGroup removes the connection from a group.
type LeaveGroup struct {
	Type  string `json:"type"`
	Name  string `json:"name"`
	ReqID string `json:"_reqId,omitempty"`
}

// Validate checks presence and length.
func (l LeaveGroup) Validate() error { return groups([]mesh.Group{{Name: l.Name}}) }

// PeerEvent is the eventData of peer_joined, peer_returned and peer_left. The key of the display name is "name".
type PeerEvent struct {
	Name       string       `json:"name"`
	Pubkey     string       `json:"pubkey"`
	Groups     []mesh.Group `json:"groups,omitempty"`
	LastSeenAt string       `json:"lastSeenAt,omitempty"`
	Summary    string       `json:"summary,omitempty"`
}
