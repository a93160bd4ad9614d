package broker

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

const idLength = 32

// newID returns 32 base62 characters from random (190 bits).
func newID(random io.Reader) (string, error) {
	id := make([]byte, 0, idLength)
	var buf [2 * idLength]byte
	for len(id) < idLength {
		if _, err := io.ReadFull(random, buf[:]); err != nil {
			return "", fmt.Errorf("read randomness: %w", err)
		}
		for _, c := range buf {
			// 248 is the largest multiple of 62 below 256: without the cut the first characters would be likelier.
			if c < 248 && len(id) < idLength {
				id = append(id, base62[c%62])
			}
		}
	}
	return string(id), nil
}

// validID reports whether s can be an id of ours.
func validID(s string) bool {
	if len(s) != idLength {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

var idSpace = new(big.Int).Exp(big.NewInt(62), big.NewInt(idLength), nil)

// messageID derives a message's id from who sends it and the sender's own id for it. It is a keyed hash, so that nobody outside can compute or steer it,
// and 190 bits wide: the same (mesh, member, client message id) always gives the same id, any other a different one.
func messageID(secret []byte, meshID, memberID, cmid string) string {
	h := hmac.New(sha256.New, secret)
	for _, s := range []string{meshID, memberID, cmid} {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(s)))
		h.Write(n[:])
		io.WriteString(h, s)
	}
	x := new(big.Int).SetBytes(h.Sum(nil))
	x.Mod(x, idSpace)
	id, digit, base := make([]byte, idLength), new(big.Int), big.NewInt(62)
	for i := range id {
		x.DivMod(x, base, digit)
		id[i] = base62[digit.Int64()]
	}
	return string(id)
}
