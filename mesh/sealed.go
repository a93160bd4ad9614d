package mesh

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"golang.org/x/crypto/nacl/box"
	"golang.org/x/crypto/nacl/secretbox"
)

// A secret that a broker keeps is locked with a fresh key, and that key is sealed
// for each member that may have it: a vault entry for its own member, a file for
// its recipients. The broker sees neither. A sealed key does not say who sealed
// it: what is opened is secret, not authenticated.

// Sizes in bytes.
const (
	contentKeySize = 32
	// SealedKeySize is the length of a sealed content key: an ephemeral X25519
	// key, a tag and the key.
	SealedKeySize = contentKeySize + box.AnonymousOverhead
	// FileOverhead is what sealing adds to a file: a nonce before it and a tag.
	FileOverhead = NonceSize + secretbox.Overhead
	// MaxSealedFile is the longest body that a broker takes, 50 MiB.
	MaxSealedFile = 50 << 20
	// MaxFile is the longest file that still fits when it is sealed.
	MaxFile = MaxSealedFile - FileOverhead
	// MaxVaultValue is the longest value of a vault entry.
	MaxVaultValue = 128 << 10
)

// ErrSealTooLarge is returned for a file or a value over its limit.
var ErrSealTooLarge = errors.New("too large to be sealed")

// ContentKey is the key that one file or one vault entry is locked with. It never
// shows itself; the zero value opens nothing.
type ContentKey struct{ bytes *[contentKeySize]byte }

// Format shows that there is a key, never which.
func (ContentKey) Format(f fmt.State, _ rune) { io.WriteString(f, "content key") }

// LogValue shows as much as Format.
func (ContentKey) LogValue() slog.Value { return slog.StringValue("content key") }

// MarshalJSON refuses: a key travels sealed or not at all.
func (ContentKey) MarshalJSON() ([]byte, error) {
	return nil, errors.New("a content key is not written")
}

func newContentKey(random io.Reader) (ContentKey, error) {
	k := ContentKey{new([contentKeySize]byte)}
	if _, err := io.ReadFull(random, k.bytes[:]); err != nil {
		return ContentKey{}, fmt.Errorf("read randomness for a key: %w", err)
	}
	return k, nil
}

// SealFor seals the key for an ed25519 key (64 hex digits): libsodium's
// crypto_box_seal to the converted key, 80 bytes, in standard base64. Errors:
// [ErrWeakKey].
func (k ContentKey) SealFor(to string, random io.Reader) (string, error) {
	if k.bytes == nil {
		return "", errNoIdentity
	}
	public, err := x25519Public(to)
	if err != nil {
		return "", err
	}
	sealed, err := box.SealAnonymous(nil, k.bytes[:], public, random)
	if err != nil {
		return "", fmt.Errorf("seal key: %w", err)
	}
	return base64.StdEncoding.EncodeToString(sealed), nil
}

// OpenKey opens a key that was sealed for this identity. Errors: [ErrUndecryptable].
func OpenKey(me Identity, sealed string) (ContentKey, error) {
	if me.IsZero() {
		return ContentKey{}, errNoIdentity
	}
	raw, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil || len(raw) != SealedKeySize {
		return ContentKey{}, ErrUndecryptable
	}
	public, err := x25519Public(me.PublicKey())
	if err != nil {
		return ContentKey{}, err
	}
	plain, ok := box.OpenAnonymous(nil, raw, public, me.x25519Secret())
	if !ok {
		return ContentKey{}, ErrUndecryptable
	}
	return ContentKey{(*[contentKeySize]byte)(plain)}, nil
}

// SealFile locks a file with a fresh key. The body is the 24-byte nonce followed by
// libsodium's crypto_secretbox_easy of the whole file: it is opened in one piece,
// so nothing of it is used before all of it is known to be unchanged.
func SealFile(plain []byte, random io.Reader) (body []byte, key ContentKey, err error) {
	if len(plain) > MaxFile {
		return nil, ContentKey{}, fmt.Errorf("%w: the limit is %d bytes", ErrSealTooLarge, MaxFile)
	}
	key, err = newContentKey(random)
	if err != nil {
		return nil, ContentKey{}, err
	}
	body = make([]byte, NonceSize, len(plain)+FileOverhead)
	if _, err := io.ReadFull(random, body); err != nil {
		return nil, ContentKey{}, fmt.Errorf("read randomness for a nonce: %w", err)
	}
	return secretbox.Seal(body, plain, (*[NonceSize]byte)(body), key.bytes), key, nil
}

// OpenFile is the inverse of [SealFile]. Errors: [ErrUndecryptable].
func OpenFile(body []byte, key ContentKey) ([]byte, error) {
	if key.bytes == nil || len(body) < FileOverhead || len(body) > MaxSealedFile {
		return nil, ErrUndecryptable
	}
	plain, ok := secretbox.Open(nil, body[NonceSize:], (*[NonceSize]byte)(body), key.bytes)
	if !ok {
		return nil, ErrUndecryptable
	}
	return plain, nil
}

// VaultBox is what a broker keeps of a vault entry, each part in standard base64:
// crypto_secretbox_easy of the value, its 24-byte nonce, and the key, sealed for the
// member that set it.
type VaultBox struct {
	Ciphertext string `json:"ciphertext"`
	Nonce      string `json:"nonce"`
	SealedKey  string `json:"sealed_key"`
}

// oldVaultNonce marks entries of clients that did not encrypt yet.
const oldVaultNonce = "placeholder-nonce"

// SealVault locks a value for its own member. Errors: [ErrSealTooLarge].
func SealVault(me Identity, value []byte, random io.Reader) (VaultBox, error) {
	if len(value) > MaxVaultValue {
		return VaultBox{}, fmt.Errorf("%w: the limit is %d bytes", ErrSealTooLarge, MaxVaultValue)
	}
	key, err := newContentKey(random)
	if err != nil {
		return VaultBox{}, err
	}
	var nonce [NonceSize]byte
	if _, err := io.ReadFull(random, nonce[:]); err != nil {
		return VaultBox{}, fmt.Errorf("read randomness for a nonce: %w", err)
	}
	sealed, err := key.SealFor(me.PublicKey(), random)
	if err != nil {
		return VaultBox{}, err
	}
	enc := base64.StdEncoding
	return VaultBox{Ciphertext: enc.EncodeToString(secretbox.Seal(nil, value, &nonce, key.bytes)), Nonce: enc.EncodeToString(nonce[:]), SealedKey: sealed}, nil
}

// OpenVault opens a value. readable is true for an entry of an old client: it was
// never encrypted. Errors: [ErrUndecryptable].
func OpenVault(me Identity, b VaultBox) (value []byte, readable bool, err error) {
	locked, err := base64.StdEncoding.DecodeString(b.Ciphertext)
	if err != nil {
		return nil, false, ErrUndecryptable
	}
	if b.Nonce == oldVaultNonce {
		return locked, true, nil
	}
	nonce, err := base64.StdEncoding.DecodeString(b.Nonce)
	if err != nil || len(nonce) != NonceSize {
		return nil, false, ErrUndecryptable
	}
	key, err := OpenKey(me, b.SealedKey)
	if err != nil {
		return nil, false, err
	}
	value, ok := secretbox.Open(nil, locked, (*[NonceSize]byte)(nonce), key.bytes)
	if !ok {
		return nil, false, ErrUndecryptable
	}
	return value, false, nil
}
