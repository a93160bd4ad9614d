package mesh

import (
	"errors"
	"strconv"
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

// Attestation is a member's word that a session key speaks for it until
// ExpiresAt (Unix milliseconds). The signed string is
//
//	claudemesh-session-attest|<parent pubkey>|<session pubkey>|<expires ms>
//
// It binds neither a mesh nor a role, so it must not be taken for either.
type Attestation struct {
	SessionPubkey      string `json:"sessionPubkey"`
	ParentMemberPubkey string `json:"parentMemberPubkey"`
	ExpiresAt          int64  `json:"expiresAt"`
	Signature          string `json:"signature"`
}

// Attest signs sessionPub with the member key parent. The expiry is cut to whole
// milliseconds.
func Attest(parent Identity, sessionPub string, expires time.Time) Attestation {
	a := Attestation{
		SessionPubkey:      sessionPub,
		ParentMemberPubkey: parent.PublicKey(),
		ExpiresAt:          expires.UnixMilli(),
	}
	a.Signature = parent.Sign(a.signed())
	return a
}

func (a Attestation) signed() []byte {
	return signedString("claudemesh-session-attest", a.ParentMemberPubkey, a.SessionPubkey, strconv.FormatInt(a.ExpiresAt, 10))
}

// Check returns nil when the attestation holds at now, otherwise one of
// [ErrAttestationExpired], [ErrAttestationTTL], [ErrAttestationMalformed] and
// [ErrAttestationSignature], in the order the reference broker tests them. Whether
// the keys are those of the frame that carried it is the caller's question.
func (a Attestation) Check(now time.Time) error {
	nowMS := now.UnixMilli()
	switch {
	case a.ExpiresAt <= nowMS:
		return ErrAttestationExpired
	case a.ExpiresAt > nowMS+MaxAttestationTTL.Milliseconds():
		return ErrAttestationTTL
	case !ValidKey(a.SessionPubkey), !ValidKey(a.ParentMemberPubkey), len(a.Signature) != 128:
		return ErrAttestationMalformed
	case !VerifySignature(a.ParentMemberPubkey, a.signed(), a.Signature):
		return ErrAttestationSignature
	}
	return nil
}
