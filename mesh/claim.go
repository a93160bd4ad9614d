package mesh

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"golang.org/x/crypto/curve25519"
	"golang.org/x/crypto/nacl/box"
)

// RootKeySize is the length of the root key that invites carry. Nothing is derived from it here: it is made anew for every invite and protects nothing.
const RootKeySize = 32

// ErrClaim is returned for the answer to a claim that is malformed, not sealed for this key or not signed by the mesh's owner.
var ErrClaim = errors.New("claim cannot be trusted")

// InviteV2String is what a mesh's owner signs for a version 2 invite:
//
//	v=2|<mesh_id>|<invite_id>|<expires_at, Unix seconds>|<role>|<owner_pubkey>
func InviteV2String(meshID, inviteID string, expiresAt int64, role, ownerPubkey string) []byte {
	return signedString("v=2", meshID, inviteID, strconv.FormatInt(expiresAt, 10), role, ownerPubkey)
}

// ClaimKey is the X25519 key that the claimer with an ed25519 key receives with, as base64url without padding. Error: [ErrWeakKey].
func ClaimKey(pubkey string) (string, error) {
	x, err := x25519Public(pubkey)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(x[:]), nil
}

// SealRootKey seals a root key for an X25519 key in base64url without padding, as libsodium's crypto_box_seal does; the result is base64url too. Error:
// [ErrWeakKey] for a recipient that is malformed or of small order.
func SealRootKey(recipient string, root []byte, random io.Reader) (string, error) {
	raw, err := base64.RawURLEncoding.DecodeString(recipient)
	if err != nil || len(raw) != 32 {
		return "", ErrWeakKey
	}
	// X25519 refuses the points for which every shared secret is zero, which box does not.
	scalar := make([]byte, 32)
	scalar[31] = 64
	if _, err := curve25519.X25519(scalar, raw); err != nil {
		return "", ErrWeakKey
	}
	sealed, err := box.SealAnonymous(nil, root, (*[32]byte)(raw), random)
	if err != nil {
		return "", fmt.Errorf("seal root key: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sealed), nil
}

// OpenRootKey opens what SealRootKey sealed for the key of [ClaimKey]. Error: [ErrClaim].
func OpenRootKey(who Identity, sealed string) ([]byte, error) {
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil || len(raw) != RootKeySize+box.AnonymousOverhead {
		return nil, fmt.Errorf("%w: sealed root key", ErrClaim)
	}
	public, err := x25519Public(who.PublicKey())
	if err != nil {
		return nil, err
	}
	root, ok := box.OpenAnonymous(nil, raw, public, who.x25519Secret())
	if !ok {
		return nil, fmt.Errorf("%w: the root key was sealed for another key", ErrClaim)
	}
	return root, nil
}

// CheckClaim checks that the owner signed the invite by which a claim made a member: canonical is an [InviteV2String] of that mesh, role and owner. Error:
// [ErrClaim].
func CheckClaim(canonical, signature, meshID, role, ownerPubkey string) error {
	parts := strings.Split(canonical, "|")
	if len(parts) != 6 || parts[0] != "v=2" || parts[1] != meshID || parts[4] != role || parts[5] != ownerPubkey {
		return fmt.Errorf("%w: the signed invite is for something else", ErrClaim)
	}
	if !VerifySignature(ownerPubkey, []byte(canonical), signature) {
		return fmt.Errorf("%w: the invite is not signed by the mesh's owner", ErrClaim)
	}
	return nil
}
