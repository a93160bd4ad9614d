package mesh

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/crypto/nacl/box"
)

// NonceSize is the length of the random nonce of every message, sealed or not.
const NonceSize = 24

const (
	// maxSendUnits is the reference broker's limit on
	// len(ciphertext) + len(nonce) + len(targetSpec), the first two in base64.
	maxSendUnits = 65_536
	nonceUnits   = NonceSize / 3 * 4
)

// MaxBody is the longest message text in bytes that a broker takes for every
// legal target. Two shapes compete: a sealed box to a 64-digit key carries 16
// bytes more than its text (room for 49,064), a multicast is base64 of the bare
// text but its target may be [MaxTarget] bytes long (room for 48,936). The
// smaller one counts, so that whether a text is accepted never depends on how
// the recipient's group is called.
const MaxBody = (maxSendUnits - nonceUnits - MaxTarget) / 4 * 3

var (
	// ErrWeakKey is returned for a public key that is malformed, not spelled
	// canonically, of small order or outside the prime-order subgroup. Nothing
	// sealed for such a key would be secret.
	ErrWeakKey = errors.New("weak or malformed public key")

	// ErrUndecryptable is returned for a box that this identity cannot open: it
	// was sealed for another key, by another key, or was changed on the way.
	ErrUndecryptable = errors.New("message cannot be opened with this key")

	errNoIdentity = errors.New("no identity to seal or open with")
)

// Seal encrypts plaintext from one identity for the ed25519 key to (64 hex
// digits). The result is libsodium's crypto_box_easy over the converted X25519
// keys: a 24-byte nonce taken from random, and a box of len(plaintext)+16 bytes,
// tag first. It returns [ErrWeakKey] for a key nobody may seal to. The nonce is
// the only thing that must never repeat, so random must be secure.
func Seal(from Identity, to string, plaintext []byte, random io.Reader) (nonce, sealed []byte, err error) {
	return (*Boxes)(nil).Seal(from, to, plaintext, random)
}

// Open decrypts a box sealed by the ed25519 key from for this identity. It
// returns [ErrWeakKey] when from is no key to trust, and [ErrUndecryptable] for
// everything that does not authenticate, a nonce of the wrong size included.
func Open(to Identity, from string, nonce, sealed []byte) ([]byte, error) {
	return (*Boxes)(nil).Open(to, from, nonce, sealed)
}

// Boxes seals and opens as [Seal] and [Open] do, and remembers the keys that
// pairs of identities share: agreeing on one costs a hundred times what sealing a
// short message with it does. It may be used concurrently. Whoever deals with the
// same peers again and again holds one.
type Boxes struct {
	shared *lru.Cache[pair, *[32]byte]
}

type pair struct{ own, peer string }

// NewBoxes makes one that remembers size pairs, at least one.
func NewBoxes(size int) *Boxes {
	// The only error is for a size below one.
	cache, _ := lru.New[pair, *[32]byte](max(size, 1))
	return &Boxes{shared: cache}
}

// Seal is the function of that name.
func (b *Boxes) Seal(from Identity, to string, plaintext []byte, random io.Reader) (nonce, sealed []byte, err error) {
	key, err := b.key(from, to)
	if err != nil {
		return nil, nil, err
	}
	var n [NonceSize]byte
	if _, err := io.ReadFull(random, n[:]); err != nil {
		return nil, nil, fmt.Errorf("read randomness for a nonce: %w", err)
	}
	return n[:], box.SealAfterPrecomputation(nil, plaintext, &n, key), nil
}

// Open is the function of that name.
func (b *Boxes) Open(to Identity, from string, nonce, sealed []byte) ([]byte, error) {
	if to.IsZero() {
		return nil, errNoIdentity
	}
	if len(nonce) != NonceSize || len(sealed) < box.Overhead {
		return nil, ErrUndecryptable
	}
	key, err := b.key(to, from)
	if err != nil {
		return nil, err
	}
	plaintext, ok := box.OpenAfterPrecomputation(nil, sealed, (*[NonceSize]byte)(nonce), key)
	if !ok {
		return nil, ErrUndecryptable
	}
	return plaintext, nil
}

// key is the secret that an identity shares with a peer. Refused peers are not remembered.
func (b *Boxes) key(own Identity, peer string) (*[32]byte, error) {
	if own.IsZero() {
		return nil, errNoIdentity
	}
	id := pair{own.PublicKey(), peer}
	if b != nil {
		if key, ok := b.shared.Get(id); ok {
			return key, nil
		}
	}
	public, err := x25519Public(peer)
	if err != nil {
		return nil, err
	}
	key := new([32]byte)
	box.Precompute(key, public, own.x25519Secret())
	if b != nil {
		b.shared.Add(id, key)
	}
	return key, nil
}

// SendUnits is what a broker weighs a send against: the length of the base64
// ciphertext, the base64 nonce and the target spec together, in bytes. bodyLen is
// the length of the ciphertext before base64: the text for a multicast, the text
// plus 16 for a sealed message.
func SendUnits(bodyLen int, targetSpec string) int {
	return base64.StdEncoding.EncodedLen(bodyLen) + nonceUnits + len(targetSpec)
}
