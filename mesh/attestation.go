package mesh

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MaxAttestationTTL is the longest life an attestation may still have when it is
// checked.
const MaxAttestationTTL = 24 * time.Hour

// Why an attestation was refused.
var (
	ErrAttestationMalformed = errors.New("attestation malformed")
	ErrAttestationExpired   = errors.New("attestation expired")
	ErrAttestationTTL       = errors.New("attestation lives longer than 24 hours")
	ErrAttestationSignature = errors.New("attestation signature does not match")
)

// Versions of an attestation.
const (
	attestationFull    = 1 // the session may do what its member may; the version is not on the wire
	AttestationLimited = 2 // the session may do what AllowedCaps names
)

// Bounds of AllowedCaps. There are far fewer capabilities; a list from elsewhere may name some that are not known here.
const (
	MaxAllowedCaps   = 64
	maxCapabilityLen = 64
)

// Attestation is a member's word that a session key speaks for it until
// ExpiresAt (Unix milliseconds), and as what. The signed string is, of a session
// that may do whatever its member may (version 1, what the reference knows),
//
//	claudemesh-session-attest|<parent pubkey>|<session pubkey>|<expires ms>
//
// and of a limited one (version 2)
//
//	claudemesh-session-attest-v2|<parent pubkey>|<session pubkey>|<expires ms>|<caps>
//
// where caps are the names in lower case, sorted, each once, joined by commas.
// AllowedCaps nil is version 1, an empty list is a session that may do nothing.
// It binds neither a mesh nor a role, so it must not be taken for either.
type Attestation struct {
	SessionPubkey      string    `json:"sessionPubkey"`
	ParentMemberPubkey string    `json:"parentMemberPubkey"`
	ExpiresAt          int64     `json:"expiresAt"`
	Signature          string    `json:"signature"`
	AllowedCaps        *[]string `json:"allowed_caps,omitempty"`
	Version            int       `json:"version,omitempty"` // absent: 1
}

// Attest signs sessionPub with the member key parent, without limits. The expiry
// is cut to whole milliseconds.
func Attest(parent Identity, sessionPub string, expires time.Time) Attestation {
	return attest(parent, Attestation{SessionPubkey: sessionPub, ExpiresAt: expires.UnixMilli()})
}

// AttestLimited is Attest for a session that may do only what caps names; nil is
// taken for nothing. A name that is none, see Check, makes it malformed.
func AttestLimited(parent Identity, sessionPub string, expires time.Time, caps []string) Attestation {
	named := canonicalCaps(caps)
	return attest(parent, Attestation{SessionPubkey: sessionPub, ExpiresAt: expires.UnixMilli(), AllowedCaps: &named, Version: AttestationLimited})
}

func attest(parent Identity, a Attestation) Attestation {
	a.ParentMemberPubkey = parent.PublicKey()
	a.Signature = parent.Sign(a.signed())
	return a
}

// Caps is what the session is limited to, as it is signed: lower case, sorted,
// each once. nil means no limit, and is never returned for version 2. It means
// something only once Check has passed. Names that nobody knows grant nothing.
func (a Attestation) Caps() []string {
	if a.AllowedCaps == nil {
		return nil
	}
	return canonicalCaps(*a.AllowedCaps)
}

func canonicalCaps(caps []string) []string {
	out := make([]string, len(caps))
	for i, c := range caps {
		out[i] = strings.ToLower(c)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (a Attestation) signed() []byte {
	expires := strconv.FormatInt(a.ExpiresAt, 10)
	if a.AllowedCaps == nil {
		return signedString("claudemesh-session-attest", a.ParentMemberPubkey, a.SessionPubkey, expires)
	}
	return signedString("claudemesh-session-attest-v2", a.ParentMemberPubkey, a.SessionPubkey, expires, strings.Join(a.Caps(), ","))
}

// wellFormed reports whether version and list belong together, and whether the
// list can be read from the signed string in one way only: a name that held a
// comma would be two.
func (a Attestation) wellFormed() bool {
	switch a.Version {
	case 0, attestationFull:
		return a.AllowedCaps == nil
	case AttestationLimited:
		return a.AllowedCaps != nil && len(*a.AllowedCaps) <= MaxAllowedCaps && !slices.ContainsFunc(*a.AllowedCaps, notCapabilityName)
	}
	return false
}

// notCapabilityName reports whether s is anything but 1 to 64 ASCII letters,
// digits, "-", "_", "." or ":".
func notCapabilityName(s string) bool {
	return s == "" || len(s) > maxCapabilityLen || strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_.:", r))
	})
}

// Check returns nil when the attestation holds at now, otherwise one of
// [ErrAttestationExpired], [ErrAttestationTTL], [ErrAttestationMalformed] and
// [ErrAttestationSignature], in the order the reference broker tests them. It is
// malformed, too, when it is of a version that is not known, or when version and
// AllowedCaps contradict each other. Whether the keys are those of the frame that
// carried it is the caller's question.
func (a Attestation) Check(now time.Time) error {
	nowMS := now.UnixMilli()
	switch {
	case a.ExpiresAt <= nowMS:
		return ErrAttestationExpired
	case a.ExpiresAt > nowMS+MaxAttestationTTL.Milliseconds():
		return ErrAttestationTTL
	case !ValidKey(a.SessionPubkey), !ValidKey(a.ParentMemberPubkey), len(a.Signature) != 128, !a.wellFormed():
		return ErrAttestationMalformed
	case !VerifySignature(a.ParentMemberPubkey, a.signed(), a.Signature):
		return ErrAttestationSignature
	}
	return nil
}
