package mesh

import (
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/edwards25519"
)

const vectorMS = 1777898000000

// wire-protocol 6.15, made with libsodium-wrappers 0.7.15.
func TestSignedStringsMatchTheReference(t *testing.T) {
	a, s := fixedIdentity(t, 1), fixedIdentity(t, 4)
	for name, c := range map[string]struct {
		by        Identity
		msg       []byte
		text, sig string
	}{
		"hello": {
			a, HelloString("mesh0001", "member01", a.PublicKey(), vectorMS),
			"mesh0001|member01|" + a.PublicKey() + "|1777898000000",
			"c63583e970d3d04cf090584fdd04012f0fe39b0ba7c2c60315ab56e747a0c87f72eb46a826e9c77c41c3e51bc4d49b25031aa22d41b1248a2e25ad9fe461430d",
		},
		"session hello": {
			s, SessionHelloString("mesh0001", a.PublicKey(), s.PublicKey(), vectorMS),
			"claudemesh-session-hello|mesh0001|" + a.PublicKey() + "|" + s.PublicKey() + "|1777898000000",
			"96733b01a52c64a5435fac1f893b11a93b625245cea59e4a8597f4fd8b697ae66fc268c69d3f529d8c737bbb59a4d356ea7b970f133c76f6c150ef124691cd0a",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if string(c.msg) != c.text {
				t.Errorf("string is %s", c.msg)
			}
			if got := c.by.Sign(c.msg); got != c.sig {
				t.Errorf("signature is %s", got)
			}
			if !VerifySignature(c.by.PublicKey(), c.msg, c.sig) || !VerifySignature(c.by.PublicKey(), c.msg, strings.ToUpper(c.sig)) {
				t.Error("signature refused")
			}
		})
	}
}

func TestVerifySignatureRefuses(t *testing.T) {
	a, b := fixedIdentity(t, 1), fixedIdentity(t, 2)
	msg := []byte("message")
	sig := a.Sign(msg)
	// S + L fits the same equation; accepting it would make signatures malleable.
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	raw := unhex(t, sig)
	le := raw[32:]
	slices.Reverse(le)
	sum := new(big.Int).Add(new(big.Int).SetBytes(le), order).FillBytes(make([]byte, 32))
	slices.Reverse(sum)
	malleated := sig[:64] + hex.EncodeToString(sum)

	// A signer may choose r = 0: R is the identity, S = k·a, and the equation holds.
	commitment := append([]byte{1}, make([]byte, 31)...)
	hash := sha512.Sum512(slices.Concat(commitment, unhex(t, a.PublicKey()), msg))
	k, _ := new(edwards25519.Scalar).SetUniformBytes(hash[:])
	secret, _ := new(edwards25519.Scalar).SetBytesWithClamping(a.x25519Secret()[:])
	smallR := hex.EncodeToString(slices.Concat(commitment, k.Multiply(k, secret).Bytes()))
	if !ed25519.Verify(unhex(t, a.PublicKey()), msg, unhex(t, smallR)) {
		t.Fatal("the signature with R of small order is not even valid")
	}

	for name, c := range map[string]struct{ key, msg, sig string }{
		"another key":       {b.PublicKey(), "message", sig},
		"another message":   {a.PublicKey(), "massage", sig},
		"an upper-case key": {strings.ToUpper(a.PublicKey()), "message", sig},
		"no signature":      {a.PublicKey(), "message", ""},
		"a short signature": {a.PublicKey(), "message", sig[:126]},
		"half a byte":       {a.PublicKey(), "message", sig[:127]},
		"a long signature":  {a.PublicKey(), "message", sig + "00"},
		"S not canonical":   {a.PublicKey(), "message", malleated},
		"R of small order":  {a.PublicKey(), "message", smallR},
		"not hex":           {a.PublicKey(), "message", strings.Repeat("zz", 64)},
		"no key":            {"", "message", sig},
	} {
		t.Run(name, func(t *testing.T) {
			if VerifySignature(c.key, []byte(c.msg), c.sig) {
				t.Error("accepted")
			}
		})
	}
}

func TestAttestation(t *testing.T) {
	a, s := fixedIdentity(t, 1), fixedIdentity(t, 4)
	expires := time.UnixMilli(1777941200000)
	good := Attest(a, s.PublicKey(), expires)
	if want := "5281827e5b6efcc287b8cc9c1f4d46dbbef401fdea765c047d7e0c7896e7980b7ecb69801c94c2d9bab71d2029e10ff5f8989f3d2c6d91ca795890d819f5f005"; good.Signature != want {
		t.Errorf("signature is %s", good.Signature)
	}
	changed := func(edit func(*Attestation)) Attestation { c := good; edit(&c); return c }
	now := expires.Add(-12 * time.Hour)
	for name, c := range map[string]struct {
		att  Attestation
		now  time.Time
		want error
	}{
		"holds within its life":                  {good, now, nil},
		"holds in its last millisecond":          {good, expires.Add(-time.Millisecond), nil},
		"holds exactly 24 hours before":          {good, expires.Add(-24 * time.Hour), nil},
		"is expired at its expiry":               {good, expires, ErrAttestationExpired},
		"is expired later":                       {good, expires.Add(time.Hour), ErrAttestationExpired},
		"lives too long":                         {good, expires.Add(-24*time.Hour - time.Millisecond), ErrAttestationTTL},
		"for the end of time lives too long":     {changed(func(a *Attestation) { a.ExpiresAt = 1<<63 - 1 }), now, ErrAttestationTTL},
		"without expiry is expired":              {changed(func(a *Attestation) { a.ExpiresAt = 0 }), now, ErrAttestationExpired},
		"of another expiry is not signed":        {changed(func(a *Attestation) { a.ExpiresAt-- }), now, ErrAttestationSignature},
		"of another session is not signed":       {changed(func(x *Attestation) { x.SessionPubkey = a.PublicKey() }), now, ErrAttestationSignature},
		"of another parent is not signed":        {changed(func(x *Attestation) { x.ParentMemberPubkey = s.PublicKey() }), now, ErrAttestationSignature},
		"with an upper-case key is malformed":    {changed(func(x *Attestation) { x.SessionPubkey = strings.ToUpper(x.SessionPubkey) }), now, ErrAttestationMalformed},
		"with a short parent is malformed":       {changed(func(x *Attestation) { x.ParentMemberPubkey = "ab" }), now, ErrAttestationMalformed},
		"without signature is malformed":         {changed(func(x *Attestation) { x.Signature = "" }), now, ErrAttestationMalformed},
		"with a non-hex signature is not signed": {changed(func(x *Attestation) { x.Signature = strings.Repeat("z", 128) }), now, ErrAttestationSignature},
		"by nobody is malformed":                 {Attest(Identity{}, s.PublicKey(), expires), now, ErrAttestationMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.att.Check(c.now); !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}
