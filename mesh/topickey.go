package mesh

import (
	"fmt"
	"io"

	"golang.org/x/crypto/curve25519"
	"golang.org/x/crypto/nacl/box"
	"golang.org/x/crypto/nacl/secretbox"
)

// SealedTopicKeySize is the length of a topic key sealed for a member: the
// sealer's X25519 key, the tag and the key.
const SealedTopicKeySize = 32 + box.Overhead + 32

// TopicKey is the secret that the members of a topic share. Whoever has it reads
// every post of its generation; it is never logged, and leaves a machine sealed only.
type TopicKey [32]byte

// String keeps the key out of logs and errors.
func (TopicKey) String() string { return "[topic key]" }

// GoString is the same for %#v.
func (TopicKey) GoString() string { return "[topic key]" }

// NewTopicKey draws a key from random, which must be secure.
func NewTopicKey(random io.Reader) (key TopicKey, err error) {
	if _, err := io.ReadFull(random, key[:]); err != nil {
		return TopicKey{}, fmt.Errorf("read randomness for a topic key: %w", err)
	}
	return key, nil
}

// SealPost encrypts the text of a post: libsodium's crypto_secretbox_easy, tag
// first, under a 24-byte nonce taken from random.
func (k TopicKey) SealPost(text []byte, random io.Reader) (nonce, sealed []byte, err error) {
	var n [NonceSize]byte
	if _, err := io.ReadFull(random, n[:]); err != nil {
		return nil, nil, fmt.Errorf("read randomness for a nonce: %w", err)
	}
	return n[:], secretbox.Seal(nil, text, &n, (*[32]byte)(&k)), nil
}

// OpenPost decrypts what SealPost made. Everything that does not authenticate is
// [ErrUndecryptable].
func (k TopicKey) OpenPost(nonce, sealed []byte) ([]byte, error) {
	if len(nonce) != NonceSize || len(sealed) < secretbox.Overhead {
		return nil, ErrUndecryptable
	}
	text, ok := secretbox.Open(nil, sealed, (*[NonceSize]byte)(nonce), (*[32]byte)(&k))
	if !ok {
		return nil, ErrUndecryptable
	}
	return text, nil
}

// SealFor closes the key for a member, whose ed25519 key to is 64 hex digits. The
// result is the sealer's X25519 key followed by a crypto_box of the topic key,
// [SealedTopicKeySize] bytes, and its nonce. It returns [ErrWeakKey] for a key
// nobody may seal to.
func (k TopicKey) SealFor(from Identity, to string, random io.Reader) (nonce, sealed []byte, err error) {
	if from.IsZero() {
		return nil, nil, errNoIdentity
	}
	own, err := x25519Public(from.PublicKey())
	if err != nil {
		return nil, nil, err
	}
	nonce, boxed, err := Seal(from, to, k[:], random)
	if err != nil {
		return nil, nil, err
	}
	return nonce, append(own[:], boxed...), nil
}

// OpenTopicKey opens a sealed topic key with the member's identity. The sealer is
// whoever the first 32 bytes say: the seal proves that its maker knew the topic
// key, not who that was. It returns [ErrUndecryptable] for everything else.
func OpenTopicKey(to Identity, nonce, sealed []byte) (key TopicKey, err error) {
	if to.IsZero() {
		return TopicKey{}, errNoIdentity
	}
	if len(nonce) != NonceSize || len(sealed) != SealedTopicKeySize {
		return TopicKey{}, ErrUndecryptable
	}
	// A key of small order gives a shared secret that everybody knows.
	if _, err := curve25519.X25519(to.x25519Secret()[:], sealed[:32]); err != nil {
		return TopicKey{}, ErrUndecryptable
	}
	raw, ok := box.Open(nil, sealed[32:], (*[NonceSize]byte)(nonce), (*[32]byte)(sealed[:32]), to.x25519Secret())
	if !ok || len(raw) != len(key) {
		return TopicKey{}, ErrUndecryptable
	}
	return TopicKey(raw), nil
}
