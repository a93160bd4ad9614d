package wire

import "fmt"

// Moderation: closing other members' connections, and removing members. Only administrators may.
const (
	TypeKick           = "kick"
	TypeKickAck        = "kick_ack"
	TypeDisconnect     = "disconnect"
	TypeDisconnectAck  = "disconnect_ack"
	TypeBan            = "ban"
	TypeBanAck         = "ban_ack"
	TypeUnban          = "unban"
	TypeUnbanAck       = "unban_ack"
	TypeListBans       = "list_bans"
	TypeListBansResult = "list_bans_result"
)

// CodeAmbiguous refuses a target that means more than one member; the message lists them.
const CodeAmbiguous = "ambiguous"

// MinKeyPrefix is how many hex digits of a key a moderation target needs at least.
const MinKeyPrefix = 8

// maxStale bounds Kick.Stale: a day, in milliseconds.
const maxStale = 24 * 60 * 60 * 1000

// Kick closes connections of others: for good (type kick) or so that they come back (type disconnect). Exactly one of All, Stale and Target counts, in this
// order. Target is a display name, a key, or MinKeyPrefix or more digits of one; Stale is in milliseconds without a sign of life.
type Kick struct {
	Type   string `json:"type"`
	All    bool   `json:"all,omitempty"`
	Stale  int64  `json:"stale,omitempty"`
	Target string `json:"target,omitempty"`
	ReqID  string `json:"_reqId,omitempty"`
}

// Validate checks presence and ranges.
func (k Kick) Validate() error {
	if k.Stale < 0 || k.Stale > maxStale {
		return fmt.Errorf("%w: stale must be 1 to %d milliseconds", ErrInvalid, maxStale)
	}
	if !k.All && k.Stale == 0 && k.Target == "" {
		return fmt.Errorf("%w: target, stale or all required", ErrInvalid)
	}
	return tooLong("target", k.Target, MaxTargetBytes)
}

// KickAck answers Kick with the display names of the connections that were closed, twice, as the reference does. SkippedControlPlane names those that a
// kick leaves alone: a daemon's own connection, which carries the mail of its whole machine.
type KickAck struct {
	Type                string   `json:"type"`
	Kicked              []string `json:"kicked"`
	Affected            []string `json:"affected"`
	SkippedControlPlane []string `json:"skipped_control_plane,omitempty"`
	ReqID               string   `json:"_reqId,omitempty"`
}

// Ban removes a member (type ban), or lets it back in (type unban). Target as in Kick.
type Ban struct {
	Type   string `json:"type"`
	Target string `json:"target"`
	Reason string `json:"reason,omitempty"`
	ReqID  string `json:"_reqId,omitempty"`
}

// Validate checks presence and lengths.
func (b Ban) Validate() error {
	return firstError(required("target", b.Target), tooLong("target", b.Target, MaxTargetBytes), tooLong("reason", b.Reason, MaxTextBytes))
}

// BanAck answers ban.
type BanAck struct {
	Type   string `json:"type"`
	Banned string `json:"banned"`
	ReqID  string `json:"_reqId,omitempty"`
}

// UnbanAck answers unban.
type UnbanAck struct {
	Type     string `json:"type"`
	Unbanned string `json:"unbanned"`
	ReqID    string `json:"_reqId,omitempty"`
}

// BanRecord is a banned member.
type BanRecord struct {
	Name      string `json:"name"`
	Pubkey    string `json:"pubkey"`
	RevokedAt string `json:"revokedAt"`
}

// ListBansResult answers list_bans, the newest ban first.
type ListBansResult struct {
	Type  string      `json:"type"`
	Bans  []BanRecord `json:"bans"`
	ReqID string      `json:"_reqId,omitempty"`
}
