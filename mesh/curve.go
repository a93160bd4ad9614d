package mesh

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/hex"

	"filippo.io/edwards25519"
)

// decodeKey returns the point of a public key, or nil for one that is not 64
// lower-case hex digits, not a point, not spelled canonically, or of small order.
// libsodium refuses the same keys; crypto/ed25519 and edwards25519 do not.
func decodeKey(key string) (point *edwards25519.Point, raw []byte) {
	if !ValidKey(key) {
		return nil, nil
	}
	raw, err := hex.DecodeString(key)
	if err != nil {
		return nil, nil
	}
	point = decodePoint(raw)
	return point, raw
}

func decodePoint(raw []byte) *edwards25519.Point {
	point, err := new(edwards25519.Point).SetBytes(raw)
	if err != nil || !bytes.Equal(point.Bytes(), raw) || smallOrder(point) {
		return nil
	}
	return point
}

func smallOrder(p *edwards25519.Point) bool {
	return new(edwards25519.Point).MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 1
}

// primeOrder reports whether p has no torsion component, that is whether L·p is
// the identity. L itself does not fit a scalar, so (L−1)·p = −p is asked instead.
func primeOrder(p *edwards25519.Point) bool {
	one := make([]byte, 32)
	one[0] = 1
	lMinusOne, err := new(edwards25519.Scalar).SetCanonicalBytes(one)
	if err != nil {
		return false
	}
	lMinusOne.Negate(lMinusOne)
	product := new(edwards25519.Point).VarTimeDoubleScalarBaseMult(lMinusOne, p, edwards25519.NewScalar())
	return product.Equal(new(edwards25519.Point).Negate(p)) == 1
}

// x25519Public converts a peer's ed25519 key, as crypto_sign_ed25519_pk_to_curve25519
// does. It returns ErrWeakKey for every key libsodium refuses.
func x25519Public(key string) (*[32]byte, error) {
	point, _ := decodeKey(key)
	if point == nil || !primeOrder(point) {
		return nil, ErrWeakKey
	}
	return (*[32]byte)(point.BytesMontgomery()), nil
}

// x25519Secret converts the secret half, as crypto_sign_ed25519_sk_to_curve25519 does.
func (id Identity) x25519Secret() *[32]byte {
	hash := sha512.Sum512(id.key.secret()[:ed25519.SeedSize])
	secret := (*[32]byte)(hash[:32])
	secret[0] &= 248
	secret[31] &= 127
	secret[31] |= 64
	return secret
}
