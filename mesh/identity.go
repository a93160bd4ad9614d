package mesh

import (
	"crypto/ed25519"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// ErrBadSecret is returned for a secret key that is not 128 hex digits or whose
// public half does not belong to its seed.
var ErrBadSecret = errors.New("malformed secret key")

// Identity is an ed25519 key pair: a member's (kept in config.json) or a
// session's (made at launch). The zero value holds no key; see [Identity.IsZero].
//
// It may be copied, logged and printed freely: every such way shows the public
// key only.
type Identity struct{ key *keyPair }

// keyPair hides the secret in a closure: fmt calls no methods on an unexported
// field of somebody else's struct, it walks the fields, and a func is the one kind
// of value that no walk looks into.
type keyPair struct {
	secret func() ed25519.PrivateKey
	public string
}

// NewIdentity makes a key pair from 32 bytes of random, which must be
// cryptographically secure outside tests.
func NewIdentity(random io.Reader) (Identity, error) {
	var seed [ed25519.SeedSize]byte
	if _, err := io.ReadFull(random, seed[:]); err != nil {
		return Identity{}, fmt.Errorf("read randomness for a key: %w", err)
	}
	return identityFromSeed(seed[:]), nil
}

// IdentityFromSecret reads a secret key of 128 hex digits in either case. It
// returns [ErrBadSecret] when the public half is not the one of the seed: signing
// with such a pair would give the seed away.
func IdentityFromSecret(secretHex string) (Identity, error) {
	raw, err := hex.DecodeString(secretHex)
	if err != nil || len(raw) != ed25519.PrivateKeySize {
		// The decoder's own message quotes a byte of the input.
		return Identity{}, ErrBadSecret
	}
	id := identityFromSeed(raw[:ed25519.SeedSize])
	if subtle.ConstantTimeCompare(id.key.secret(), raw) != 1 {
		return Identity{}, ErrBadSecret
	}
	return id, nil
}

func identityFromSeed(seed []byte) Identity {
	secret := ed25519.NewKeyFromSeed(seed)
	return Identity{&keyPair{
		secret: func() ed25519.PrivateKey { return secret },
		public: hex.EncodeToString(secret[ed25519.SeedSize:]),
	}}
}

// IsZero reports whether the identity holds no key.
func (id Identity) IsZero() bool { return id.key == nil }

// PublicKey returns the public key as 64 lower-case hex digits, or "" for the
// zero Identity.
func (id Identity) PublicKey() string {
	if id.key == nil {
		return ""
	}
	return id.key.public
}

// SecretHex returns the secret key as 128 lower-case hex digits, or "" for the
// zero Identity. It is meant for config.json and 0600 files only.
func (id Identity) SecretHex() string {
	if id.key == nil {
		return ""
	}
	return hex.EncodeToString(id.key.secret())
}

// Sign returns the detached ed25519 signature of msg as 128 lower-case hex
// digits. The zero Identity signs nothing and returns "", which no verifier accepts.
func (id Identity) Sign(msg []byte) string {
	if id.key == nil {
		return ""
	}
	return hex.EncodeToString(ed25519.Sign(id.key.secret(), msg))
}

func (id Identity) shown() string {
	if id.key == nil {
		return "identity(none)"
	}
	return "identity(" + id.key.public + ")"
}

// String shows the public key.
func (id Identity) String() string { return id.shown() }

// GoString shows the public key.
func (id Identity) GoString() string { return id.shown() }

// Format shows the public key under every verb, also those that would otherwise
// walk the fields.
func (id Identity) Format(f fmt.State, _ rune) { io.WriteString(f, id.shown()) }

// LogValue shows the public key.
func (id Identity) LogValue() slog.Value { return slog.StringValue(id.shown()) }

// MarshalJSON writes the public key as a JSON string.
func (id Identity) MarshalJSON() ([]byte, error) { return json.Marshal(id.PublicKey()) }

// ValidKey reports whether s is 64 lower-case hex digits, the only spelling of a
// public key that brokers match. It does not say that the key is a point of the
// curve; [Seal] and [VerifySignature] do.
func ValidKey(s string) bool { return len(s) == 64 && isLowerHex(s) }

func isLowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
