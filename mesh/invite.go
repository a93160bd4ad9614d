package mesh

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// MaxInvite is the longest invite text in bytes, link and all.
const MaxInvite = 8 << 10

// Why an invite was refused.
var (
	ErrInviteMalformed = errors.New("invite malformed")
	ErrInviteSignature = errors.New("invite signature does not match its owner key")
	// ErrInviteCode is returned for a short link or code, which holds no invite
	// itself: a broker has to turn it into one. See [InviteCode].
	ErrInviteCode = errors.New("short invite code has to be resolved by its broker")
)

// Invite is a version 1 invitation into a mesh: whoever holds it may join until it
// expires. The JSON keys and their order are those of the reference, and the
// signature by the mesh owner's key covers
//
//	<v>|<mesh_id>|<mesh_slug>|<broker_url>|<expires_at>|<mesh_root_key>|<role>|<owner_pubkey>
//
// ExpiresAt is in Unix seconds, MeshRootKey 32 bytes in unpadded base64url, Role
// "admin" or "member". Printing or logging an invite hides the root key and the
// signature; marshalling does not, as the join request carries both.
type Invite struct {
	V           int    `json:"v"`
	MeshID      string `json:"mesh_id"`
	MeshSlug    string `json:"mesh_slug"`
	BrokerURL   string `json:"broker_url"`
	ExpiresAt   int64  `json:"expires_at"`
	MeshRootKey string `json:"mesh_root_key"`
	Role        string `json:"role"`
	OwnerPubkey string `json:"owner_pubkey"`
	Signature   string `json:"signature"`
}

// NewInvite signs an invite with the mesh owner's key. It fills in V, OwnerPubkey
// and Signature and returns the invite with its token: the unpadded base64url of
// its JSON, which is both what a link carries and the key a broker finds it by.
// Fields that no client would accept are refused with [ErrInviteMalformed].
func NewInvite(owner Identity, in Invite) (Invite, string, error) {
	in.V, in.OwnerPubkey = 1, owner.PublicKey()
	in.Signature = owner.Sign(in.signed())
	if err := in.check(); err != nil {
		return Invite{}, "", err
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(in); err != nil {
		return Invite{}, "", fmt.Errorf("encode invite: %w", err)
	}
	return in, base64.RawURLEncoding.EncodeToString(bytes.TrimRight(text.Bytes(), "\n")), nil
}

// InviteLink is the link to hand out for a token.
func InviteLink(token string) string { return "ic://join/" + token }

var (
	tokenForm = lazily(`^[A-Za-z0-9_-]{21,}$`)
	joinPath  = lazily(`^(?:/[a-z]{2})?/join/([A-Za-z0-9_-]+)/?$`)
	codePath  = lazily(`^(|/[A-Za-z0-9._~/-]{1,200})/i/([A-Za-z0-9]{1,64})/?$`)
	codeForm  = lazily(`^[A-Za-z0-9]{6,16}$`)
	idForm    = lazily(`^[A-Za-z0-9_-]{1,128}$`)
)

// ParseInvite reads an invite in any form that holds it whole, surrounding white
// space dropped:
//
//	ic://join/<token>
//	http(s)://<host>[/<two-letter locale>]/join/<token>
//	<token>, longer than 20 characters
//
// It returns the invite, its signature checked, and the token exactly as given.
// Errors wrap [ErrInviteMalformed], [ErrInviteSignature] or, for a short link or
// code, [ErrInviteCode]. Whether the invite is still good is for
// [Invite.Expired] and the broker to say.
func ParseInvite(s string) (Invite, string, error) {
	if len(s) > MaxInvite {
		return Invite{}, "", fmt.Errorf("%w: longer than %d bytes", ErrInviteMalformed, MaxInvite)
	}
	s = strings.TrimSpace(s)
	if _, _, short := InviteCode(s); short {
		return Invite{}, "", ErrInviteCode
	}
	token := s
	if rest, ok := strings.CutPrefix(s, "ic://join/"); ok {
		token = strings.TrimSuffix(rest, "/")
	} else if u, ok := webURL(s); ok {
		m := joinPath().FindStringSubmatch(u.Path)
		if m == nil {
			return Invite{}, "", fmt.Errorf("%w: not an invite link", ErrInviteMalformed)
		}
		token = m[1]
	}
	if !tokenForm().MatchString(token) {
		return Invite{}, "", fmt.Errorf("%w: not an invite link, code or token", ErrInviteMalformed)
	}
	text, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return Invite{}, "", fmt.Errorf("%w: token is not base64url", ErrInviteMalformed)
	}
	var in Invite
	if err := json.Unmarshal(text, &in); err != nil {
		// The decoder's message may quote the token's contents.
		return Invite{}, "", fmt.Errorf("%w: token does not hold an invite", ErrInviteMalformed)
	}
	if err := in.check(); err != nil {
		return Invite{}, "", err
	}
	return in, token, nil
}

func webURL(s string) (*url.URL, bool) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, false
	}
	return u, true
}

// Expired reports whether the invite is past its last second at now.
func (in Invite) Expired(now time.Time) bool { return now.Unix() > in.ExpiresAt }

func (in Invite) signed() []byte {
	return signedString(strconv.Itoa(in.V), in.MeshID, in.MeshSlug, in.BrokerURL,
		strconv.FormatInt(in.ExpiresAt, 10), in.MeshRootKey, in.Role, in.OwnerPubkey)
}

// check tests the shape of every field, then the signature. No field may hold the
// separator of the signed string, or two invites could share a signature.
func (in Invite) check() error {
	bad := func(what string) error { return fmt.Errorf("%w: %s", ErrInviteMalformed, what) }
	root, err := base64.RawURLEncoding.DecodeString(in.MeshRootKey)
	switch {
	case in.V != 1:
		return bad("unknown version")
	case !idForm().MatchString(in.MeshID):
		return bad("mesh id")
	case !ValidSlug(in.MeshSlug):
		return bad("mesh slug")
	case !ValidBrokerURL(in.BrokerURL):
		return bad("broker url")
	case in.ExpiresAt <= 0:
		return bad("expiry")
	case err != nil || len(root) != 32:
		return bad("mesh root key")
	case in.Role != "admin" && in.Role != "member":
		return bad("role")
	case !ValidKey(in.OwnerPubkey):
		return bad("owner key")
	case len(in.Signature) != 128:
		return bad("signature")
	case !VerifySignature(in.OwnerPubkey, in.signed(), in.Signature):
		return ErrInviteSignature
	}
	return nil
}

// ValidBrokerURL reports whether s is the ws or wss URL of a broker: a host, no
// credentials, no fragment, at most 1024 bytes of printable ASCII without "|".
func ValidBrokerURL(s string) bool {
	if s == "" || len(s) > 1024 || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' || c == '|' }) {
		return false
	}
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "ws" || u.Scheme == "wss") && u.Hostname() != "" && u.User == nil && u.Fragment == ""
}

func (in Invite) shown() string {
	return fmt.Sprintf("invite(%q as %q, until %d)", in.MeshSlug, in.Role, in.ExpiresAt)
}

// String shows mesh, role and expiry.
func (in Invite) String() string { return in.shown() }

// Format shows mesh, role and expiry under every verb.
func (in Invite) Format(f fmt.State, _ rune) { io.WriteString(f, in.shown()) }

// LogValue shows mesh, role and expiry.
func (in Invite) LogValue() slog.Value { return slog.StringValue(in.shown()) }

// lazily compiles an expression when it is used first: most processes read no invite, and every command starts one.
func lazily(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}
