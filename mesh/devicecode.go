package mesh

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A machine that wants to be signed in shows a code of two halves: the eight
// characters that the broker gave it, and twelve of its own making that the broker
// never sees. Whoever types the whole code on another machine carries that secret
// over: both machines can then check each other's key, and a broker that puts a key
// of its own in between is found out.

// ErrBadDeviceCode is returned for a code that is not of that form.
var ErrBadDeviceCode = errors.New("a code of a machine has five groups of four: XXXX-XXXX-XXXX-XXXX-XXXX")

const (
	userCodeLength     = 8
	deviceSecretLength = 12 // 60 random bits, good for the minutes that a code lives
)

// DeviceSecret is the half of a code that the broker never sees. It shows itself
// only in [DeviceSecret.Code].
type DeviceSecret struct{ text string }

// NewDeviceSecret makes one.
func NewDeviceSecret(random io.Reader) (DeviceSecret, error) {
	var raw [deviceSecretLength]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return DeviceSecret{}, fmt.Errorf("make device secret: %w", err)
	}
	for i, c := range raw {
		raw[i] = codeAlphabet[c%32]
	}
	return DeviceSecret{string(raw[:])}, nil
}

// NewUserCode makes the half that the broker gives out, without its dash.
func NewUserCode(random io.Reader) (string, error) { return NewInviteCode(random) }

// IsZero reports whether there is no secret.
func (s DeviceSecret) IsZero() bool { return s.text == "" }

// Format shows that there is a secret, never which.
func (s DeviceSecret) Format(f fmt.State, _ rune) { io.WriteString(f, "device secret") }

// Code is the whole code to show to the person at the machine.
func (s DeviceSecret) Code(userCode string) string {
	return grouped(plainCode(userCode) + s.text)
}

// ParseDeviceCode takes a whole code apart, in any case, dashes and blanks
// dropped. A code of eight characters, the broker's half alone, has a zero secret.
func ParseDeviceCode(code string) (userCode string, secret DeviceSecret, err error) {
	text := plainCode(code)
	if strings.Trim(text, codeAlphabet) != "" {
		return "", DeviceSecret{}, ErrBadDeviceCode
	}
	switch len(text) {
	case userCodeLength:
		return grouped(text), DeviceSecret{}, nil
	case userCodeLength + deviceSecretLength:
		return grouped(text[:userCodeLength]), DeviceSecret{text[userCodeLength:]}, nil
	}
	return "", DeviceSecret{}, ErrBadDeviceCode
}

func plainCode(code string) string {
	return strings.ToUpper(strings.NewReplacer("-", "", " ", "", "\t", "").Replace(strings.TrimSpace(code)))
}

func grouped(text string) string {
	var groups []string
	for len(text) > 4 {
		groups, text = append(groups, text[:4]), text[4:]
	}
	return strings.Join(append(groups, text), "-")
}

// Vouch is a tag over a statement and the key it is about, 64 hex digits, that only
// a holder of the secret can make. [DeviceAsks] and [DeviceAdmits] are the
// statements there are.
func (s DeviceSecret) Vouch(statement string, keys ...string) string {
	h := hmac.New(sha256.New, []byte(s.text))
	io.WriteString(h, statement+"|"+strings.Join(keys, "|"))
	return hex.EncodeToString(h.Sum(nil))
}

// Vouched checks a tag in constant time. The zero secret vouches for nothing.
func (s DeviceSecret) Vouched(tag, statement string, keys ...string) bool {
	return !s.IsZero() && hmac.Equal([]byte(tag), []byte(s.Vouch(statement, keys...)))
}

// What can be vouched for: that the key is of the machine that shows the code, and
// that the first key's machine admits the second's.
const (
	DeviceAsks   = "claudemesh-device-asks"
	DeviceAdmits = "claudemesh-device-admits"
)

// AccountKeyString is what a member signs to link its key to an account of the
// broker:
//
//	claudemesh-account|<mesh_id>|<pubkey>|<account_id>|<timestamp ms>
func AccountKeyString(meshID, pubkey, accountID string, unixMS int64) []byte {
	return []byte("claudemesh-account|" + meshID + "|" + pubkey + "|" + accountID + "|" + strconv.FormatInt(unixMS, 10))
}
