package wire

import (
	"fmt"
	"time"

	"claudemesh/mesh"
)

// Capabilities that a client announces in hello; a broker that does not know one ignores it.
const (
	// CapClientAck: the client acknowledges each push with client_ack after it has stored it; the broker keeps the mail until then.
	CapClientAck = "client_ack"
	// CapReceipts: the client wants receipt frames for the messages of its member.
	CapReceipts = "receipts"
	// CapOwnMulticast: the client wants multicasts of its own member too, because it serves several sessions; it drops the echo of the sending session.
	CapOwnMulticast = "own_multicast"
	// CapTopicKeys: of a client, that it makes, seals and renews the keys of topics and wants the events about them; of a broker, that it keeps them.
	CapTopicKeys = "topic_keys"
	// CapOwnGating: the client holds messages back by itself while it is working or wants no disturbance; the broker pushes whatever the status is.
	CapOwnGating = "own_gating"
	// CapChanges: the client wants frames of ours that tell of changes which the reference tells nobody, such as skill_change.
	CapChanges = "changes"
	// CapSessionCaps: of a broker, that it takes version 2 of an attestation and holds a session to the capabilities that it names. A broker that does not
	// announce it refuses such an attestation.
	CapSessionCaps = "session_caps"
)

// ProtocolVersion is the highest protocol version spoken here.
const ProtocolVersion = 1

// HelloSkew is the largest allowed difference between the broker's clock and a hello's timestamp, either way.
const HelloSkew = 60 * time.Second

// Hello opens a member connection. Signature is over mesh.HelloString by the member key.
type Hello struct {
	Type            string       `json:"type"`
	ProtocolVersion int          `json:"protocolVersion,omitempty"`
	Capabilities    []string     `json:"capabilities,omitempty"`
	MeshID          string       `json:"meshId"`
	MemberID        string       `json:"memberId"`
	Pubkey          string       `json:"pubkey"`
	SessionPubkey   string       `json:"sessionPubkey,omitempty"`
	DisplayName     string       `json:"displayName,omitempty"`
	SessionID       string       `json:"sessionId"`
	PID             int64        `json:"pid"`
	Cwd             string       `json:"cwd"`
	Hostname        string       `json:"hostname,omitempty"`
	PeerType        string       `json:"peerType,omitempty"`
	Channel         string       `json:"channel,omitempty"`
	Model           string       `json:"model,omitempty"`
	Groups          []mesh.Group `json:"groups,omitempty"`
	Timestamp       int64        `json:"timestamp"`
	Signature       string       `json:"signature"`
}

// SignHello fills in type, version, public key, timestamp and signature.
func SignHello(h Hello, member mesh.Identity, now time.Time) Hello {
	h.Type, h.ProtocolVersion = TypeHello, ProtocolVersion
	h.Pubkey, h.Timestamp = member.PublicKey(), now.UnixMilli()
	h.Signature = member.Sign(mesh.HelloString(h.MeshID, h.MemberID, h.Pubkey, h.Timestamp))
	return h
}

// Validate checks lengths; keys, clock and signature are the broker's to judge, because each has its own error code.
func (h Hello) Validate() error {
	return firstError(tooLong("meshId", h.MeshID, MaxIDBytes), tooLong("memberId", h.MemberID, MaxIDBytes), tooLong("sessionId", h.SessionID, MaxIDBytes),
		required("meshId", h.MeshID), required("sessionId", h.SessionID),
		presenceText(h.DisplayName, h.Cwd, h.Hostname, h.PeerType, h.Channel, h.Model), groups(h.Groups))
}

// SessionHello opens a session's own connection. Signature is over mesh.SessionHelloString by the session key; ParentAttestation ties that key to the
// member.
type SessionHello struct {
	Type               string           `json:"type"`
	ProtocolVersion    int              `json:"protocolVersion,omitempty"`
	Capabilities       []string         `json:"capabilities,omitempty"`
	MeshID             string           `json:"meshId"`
	ParentMemberID     string           `json:"parentMemberId,omitempty"`
	ParentMemberPubkey string           `json:"parentMemberPubkey"`
	SessionPubkey      string           `json:"sessionPubkey"`
	ParentAttestation  mesh.Attestation `json:"parentAttestation"`
	DisplayName        string           `json:"displayName,omitempty"`
	SessionID          string           `json:"sessionId"`
	PID                int64            `json:"pid"`
	Cwd                string           `json:"cwd"`
	Hostname           string           `json:"hostname,omitempty"`
	PeerType           string           `json:"peerType,omitempty"`
	Channel            string           `json:"channel,omitempty"`
	Model              string           `json:"model,omitempty"`
	Groups             []mesh.Group     `json:"groups,omitempty"`
	Role               string           `json:"role,omitempty"`
	Timestamp          int64            `json:"timestamp"`
	Signature          string           `json:"signature"`
}

// SignSessionHello fills in type, version, both keys, a fresh attestation of the given life (at most 24 h), timestamp and signature. The session may do
// whatever its member may.
func SignSessionHello(h SessionHello, member, session mesh.Identity, now time.Time, life time.Duration) SessionHello {
	return signSessionHello(h, session, mesh.Attest(member, session.PublicKey(), now.Add(life)), now)
}

// SignLimitedSessionHello is SignSessionHello for a session that may do only what caps names, for a broker with CapSessionCaps.
func SignLimitedSessionHello(h SessionHello, member, session mesh.Identity, now time.Time, life time.Duration, caps []string) SessionHello {
	return signSessionHello(h, session, mesh.AttestLimited(member, session.PublicKey(), now.Add(life), caps), now)
}

func signSessionHello(h SessionHello, session mesh.Identity, a mesh.Attestation, now time.Time) SessionHello {
	h.Type, h.ProtocolVersion = TypeSessionHello, ProtocolVersion
	h.ParentMemberPubkey, h.SessionPubkey, h.ParentAttestation = a.ParentMemberPubkey, a.SessionPubkey, a
	h.Timestamp = now.UnixMilli()
	h.Signature = session.Sign(mesh.SessionHelloString(h.MeshID, h.ParentMemberPubkey, h.SessionPubkey, h.Timestamp))
	return h
}

// Validate checks lengths, as Hello.Validate does.
func (h SessionHello) Validate() error {
	return firstError(tooLong("meshId", h.MeshID, MaxIDBytes), tooLong("parentMemberId", h.ParentMemberID, MaxIDBytes), tooLong("sessionId", h.SessionID, MaxIDBytes),
		required("meshId", h.MeshID), required("sessionId", h.SessionID),
		presenceText(h.DisplayName, h.Cwd, h.Hostname, h.PeerType, h.Channel, h.Model), tooLong("role", h.Role, MaxNameBytes), groups(h.Groups))
}

// HelloAck accepts a hello or session_hello.
type HelloAck struct {
	Type              string        `json:"type"`
	PresenceID        string        `json:"presenceId"`
	MemberDisplayName string        `json:"memberDisplayName"`
	MemberProfile     MemberProfile `json:"memberProfile"`
	MeshPolicy        *MeshPolicy   `json:"meshPolicy,omitempty"`
	Restored          bool          `json:"restored,omitempty"`
	LastSummary       string        `json:"lastSummary,omitempty"`
	LastSeenAt        string        `json:"lastSeenAt,omitempty"`
	RestoredGroups    []mesh.Group  `json:"restoredGroups,omitempty"`
	RestoredStats     *Stats        `json:"restoredStats,omitempty"`
	Services          *[]Service    `json:"services,omitempty"`
	// Capabilities lists what this broker understands beyond the reference; absent from a reference broker.
	Capabilities []string `json:"capabilities,omitempty"`
}

// MemberProfile is the stored profile of the connection's member.
type MemberProfile struct {
	RoleTag     *string      `json:"roleTag"`
	Groups      []mesh.Group `json:"groups"`
	MessageMode string       `json:"messageMode"`
}

// MeshPolicy says what a member may edit of its own profile.
type MeshPolicy struct {
	SelfEditable map[string]bool `json:"selfEditable"`
}

// Stats are the counters a client reports about itself.
type Stats struct {
	MessagesIn  int64 `json:"messagesIn"`
	MessagesOut int64 `json:"messagesOut"`
	ToolCalls   int64 `json:"toolCalls"`
	Errors      int64 `json:"errors"`
	Uptime      int64 `json:"uptime,omitempty"` // seconds; of the connection, never restored
}

func required(field, s string) error {
	if s == "" {
		return fmt.Errorf("%w: %s missing", ErrInvalid, field)
	}
	return nil
}

func presenceText(name, cwd, host, peerType, channel, model string) error {
	return firstError(tooLong("displayName", name, MaxNameBytes), tooLong("cwd", cwd, MaxTextBytes), tooLong("hostname", host, MaxTextBytes),
		tooLong("peerType", peerType, MaxNameBytes), tooLong("channel", channel, MaxNameBytes), tooLong("model", model, MaxNameBytes))
}

func groups(gs []mesh.Group) error {
	if len(gs) > MaxGroups {
		return fmt.Errorf("%w: more than %d groups", ErrInvalid, MaxGroups)
	}
	for _, g := range gs {
		if err := firstError(required("group name", g.Name), tooLong("group name", g.Name, MaxNameBytes), tooLong("group role", g.Role, MaxNameBytes)); err != nil {
			return err
		}
	}
	return nil
}
