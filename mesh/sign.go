package mesh

import (
	"crypto/ed25519"
	"encoding/hex"
	"strconv"
)

// VerifySignature reports whether sigHex (128 hex digits) is pubHex's ed25519
// signature of msg. It is as strict as libsodium: a key or a commitment that is
// not canonical or of small order is refused, because with such a key one
// signature fits many messages.
func VerifySignature(pubHex string, msg []byte, sigHex string) bool {
	point, public := decodeKey(pubHex)
	if point == nil {
		return false
	}
	sig, err := hex.DecodeString(sigHex)
	if err != nil || len(sig) != ed25519.SignatureSize || decodePoint(sig[:32]) == nil {
		return false
	}
	return ed25519.Verify(public, msg, sig)
}

// HelloString is what a member key signs to open a connection:
//
//	<meshId>|<memberId>|<pubkey>|<unix ms>
//
// The values are the exact strings of the hello frame.
func HelloString(meshID, memberID, pubkey string, unixMS int64) []byte {
	return signedString(meshID, memberID, pubkey, strconv.FormatInt(unixMS, 10))
}

// SessionHelloString is what a session key signs to open a connection:
//
//	claudemesh-session-hello|<meshId>|<parent pubkey>|<session pubkey>|<unix ms>
func SessionHelloString(meshID, parentPub, sessionPub string, unixMS int64) []byte {
	return signedString("claudemesh-session-hello", meshID, parentPub, sessionPub, strconv.FormatInt(unixMS, 10))
}

func signedString(parts ...string) []byte {
	var b []byte
	for i, p := range parts {
		if i > 0 {
			b = append(b, '|')
		}
		b = append(b, p...)
	}
	return b
}
