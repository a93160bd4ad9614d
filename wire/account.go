package wire

import "fmt"

// Accounts: who signs in to a broker, and how. The routes and the fields named first are the reference's; the fields of RFC 8628 stand beside them, so that
// an OAuth library can ask as well. An account holds no key of a member: it is a list of member keys that were proven to belong together, and of machines.

// Limits of what accounts keep.
const (
	MaxAccountKeys  = 256      // member keys linked to one account
	MaxDevices      = 64       // machines that are signed in at one time
	MaxSealedBox    = 96 << 10 // bytes of a package in base64
	MaxDeviceText   = 128      // bytes of what a machine says about itself, each
	DeviceGrantType = "urn:ietf:params:oauth:grant-type:device_code"
)

// Device is what a machine says about itself when it wants to be signed in. Pubkey is an ed25519 key of the machine's own (64 hex digits), for which other
// machines of the account seal memberships; Check binds it to the secret half of the code that the machine shows, see mesh.DeviceCode. Both may be empty.
type Device struct {
	Hostname string `json:"hostname,omitempty"`
	Platform string `json:"platform,omitempty"`
	Arch     string `json:"arch,omitempty"`
	Pubkey   string `json:"device_pubkey,omitempty"`
	Check    string `json:"device_check,omitempty"`
}

// Validate checks lengths; whether Pubkey is a key is checked by package mesh.
func (d Device) Validate() error {
	return firstError(
		tooLong("hostname", d.Hostname, MaxDeviceText), tooLong("platform", d.Platform, MaxDeviceText), tooLong("arch", d.Arch, MaxDeviceText),
		tooLong("device_pubkey", d.Pubkey, 64), tooLong("device_check", d.Check, 64),
	)
}

// User is an account as its owner sees it. Email is always empty: this broker knows no mail.
type User struct {
	ID          string `json:"id"`
	DisplayName string `json:"display_name"`
	Email       string `json:"email"`
}

// RegisterRequest is the body of POST /cli/register: signed by a member's key, or with the broker's admin token as bearer. A key that belongs to an account
// already signs in to that one. Ours.
type RegisterRequest struct {
	Name string `json:"name"`
	Device
}

// SignedIn answers it. The token is told once; the broker keeps its SHA-256.
type SignedIn struct {
	OK           bool   `json:"ok"`
	SessionToken string `json:"session_token,omitempty"`
	ExpiresAt    string `json:"expires_at,omitempty"` // TimeFormat
	User         *User  `json:"user,omitempty"`
	Created      bool   `json:"created,omitempty"`
	Error        string `json:"error,omitempty"`
	Detail       string `json:"detail,omitempty"`
}

// DeviceCode answers POST /cli/device-code, whose body is a Device. DeviceCode is for the machine that asks, UserCode for the person, SessionID names the
// request in the reference's pages.
type DeviceCode struct {
	DeviceCode      string `json:"device_code"`
	UserCode        string `json:"user_code"` // XXXX-XXXX
	SessionID       string `json:"session_id"`
	ExpiresAt       string `json:"expires_at"` // TimeFormat
	VerificationURL string `json:"verification_url"`
	TokenURL        string `json:"token_url"`
	// RFC 8628, 3.2.
	VerificationURI         string `json:"verification_uri"`
	VerificationURIComplete string `json:"verification_uri_complete"`
	ExpiresIn               int    `json:"expires_in"` // seconds
	Interval                int    `json:"interval"`   // seconds

	Error string `json:"error,omitempty"`
}

// States of a device code, as GET /cli/device-code/{code} tells them.
const (
	DevicePending  = "pending"
	DeviceApproved = "approved"
	DeviceDenied   = "denied" // ours
	DeviceExpired  = "expired"
	DeviceConsumed = "consumed"
)

// DevicePoll is that answer. SessionToken comes exactly once.
type DevicePoll struct {
	Status       string `json:"status"`
	SessionToken string `json:"session_token,omitempty"`
	ExpiresAt    string `json:"expires_at,omitempty"`
	User         *User  `json:"user,omitempty"`
}

// DeviceToken answers POST /cli/device-token as RFC 8628, 3.5 and RFC 6749, 5 say.
type DeviceToken struct {
	AccessToken string `json:"access_token,omitempty"`
	TokenType   string `json:"token_type,omitempty"`
	ExpiresIn   int    `json:"expires_in,omitempty"`
	User        *User  `json:"user,omitempty"` // ours
	Error       string `json:"error,omitempty"`
	Description string `json:"error_description,omitempty"`
}

// DeviceRequest answers GET /cli/device-approval/{code}: what a machine that wants to be signed in said, for whoever decides about it. Ours.
type DeviceRequest struct {
	UserCode  string `json:"user_code"`
	ExpiresAt string `json:"expires_at"`
	From      string `json:"from"` // the address it asked from, as the broker saw it
	Device
	Error string `json:"error,omitempty"`
}

// DeviceDecision is the body of POST /cli/device-code/{code}/approve, with a session token as bearer. Package is sealed for the machine that asked.
type DeviceDecision struct {
	Deny    bool       `json:"deny,omitempty"`
	Package *SealedBox `json:"package,omitempty"`
}

// Validate checks the package.
func (d DeviceDecision) Validate() error {
	if d.Package == nil {
		return nil
	}
	return d.Package.Validate()
}

// SealedBox is what one machine of an account sends another by way of the broker, which cannot open it: mesh.Seal between the machines' own keys.
type SealedBox struct {
	From  string `json:"from,omitempty"` // the sealing machine's key; filled in by the broker
	To    string `json:"to"`             // the key of the machine it is for
	Nonce string `json:"nonce"`          // base64
	Box   string `json:"box"`            // base64
	At    int64  `json:"at,omitempty"`   // Unix milliseconds, filled in by the broker
}

// Validate checks presence and lengths.
func (s SealedBox) Validate() error {
	return firstError(
		required("to", s.To), required("nonce", s.Nonce), required("box", s.Box),
		tooLong("to", s.To, 64), tooLong("nonce", s.Nonce, 64), tooLong("box", s.Box, MaxSealedBox),
	)
}

// SealedBoxes answers GET /cli/account/packages: those for the machine that asks.
type SealedBoxes struct {
	Packages []SealedBox `json:"packages"`
	Error    string      `json:"error,omitempty"`
}

// AccountDevice is one machine of an account, and one session token of it: never the token.
type AccountDevice struct {
	ID         string `json:"id"`
	Hostname   string `json:"hostname"`
	Platform   string `json:"platform"`
	Arch       string `json:"arch"`
	LastSeenAt string `json:"last_seen_at"`
	CreatedAt  string `json:"created_at"`
	ExpiresAt  string `json:"expires_at"`
	Pubkey     string `json:"device_pubkey,omitempty"`
	Current    bool   `json:"current,omitempty"` // the one that asks
}

// AccountInfo answers GET /cli/account; Sessions alone is the reference's answer of GET /cli/sessions. Keys are the linked member keys.
type AccountInfo struct {
	User     *User           `json:"user,omitempty"`
	Sessions []AccountDevice `json:"sessions"`
	Keys     []AccountKey    `json:"keys,omitempty"`
	Error    string          `json:"error,omitempty"`
}

// AccountKey is a member key that belongs to an account, and in POST /cli/account/keys the proof of that: Signature is the member's over
// mesh.AccountKeyString.
type AccountKey struct {
	MeshID    string `json:"mesh_id"`
	Pubkey    string `json:"pubkey"`
	Timestamp int64  `json:"timestamp,omitempty"` // Unix milliseconds
	Signature string `json:"signature,omitempty"`
}

// AccountKeys is the body of POST /cli/account/keys. What cannot be linked is named in the answer, with the reason; the rest is linked.
type AccountKeys struct {
	Keys []AccountKey `json:"keys"`
}

// Validate checks the number of keys.
func (a AccountKeys) Validate() error {
	if len(a.Keys) > MaxAccountKeys {
		return fmt.Errorf("%w: at most %d keys", ErrInvalid, MaxAccountKeys)
	}
	return nil
}

// AccountKeysLinked answers it.
type AccountKeysLinked struct {
	OK      bool              `json:"ok"`
	Linked  int               `json:"linked"`
	Refused map[string]string `json:"refused,omitempty"` // by mesh id
	Error   string            `json:"error,omitempty"`
}

// SessionRevoke is the body of POST /cli/session/revoke: a token revokes itself; with a token as bearer, ID revokes another of the same account.
type SessionRevoke struct {
	Token string `json:"token,omitempty"`
	ID    string `json:"session_id,omitempty"`
}

// SessionRevoked answers it.
type SessionRevoked struct {
	OK    bool   `json:"ok"`
	Found bool   `json:"found"`
	Error string `json:"error,omitempty"`
}

// AccountPass answers POST /cli/account/pass: a secret that approves one machine on the broker's page. Ours.
type AccountPass struct {
	Pass      string `json:"pass,omitempty"`
	ExpiresAt string `json:"expires_at,omitempty"`
	Error     string `json:"error,omitempty"`
}
