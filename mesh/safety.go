package mesh

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// SafetyNumber is what two members compare, over a channel they trust, to be sure that nobody stands between them: six groups of five digits, the same
// from either side. a and b are member keys; the order does not matter. It is the first 120 bits of the SHA-256 over both raw keys, the smaller first, as
// six 20-bit numbers modulo 100,000. The error is for what is no key.
func SafetyNumber(a, b string) (string, error) {
	if !ValidKey(a) || !ValidKey(b) {
		return "", fmt.Errorf("a safety number needs two keys of 64 lower-case hex digits")
	}
	// ValidKey has checked both.
	lo, _ := hex.DecodeString(a)
	hi, _ := hex.DecodeString(b)
	if bytes.Compare(lo, hi) > 0 {
		lo, hi = hi, lo
	}
	sum := sha256.Sum256(append(lo, hi...))
	groups := make([]string, 6)
	for i := range groups {
		bits := i * 20
		at := bits / 8
		n := uint32(sum[at])<<16 | uint32(sum[at+1])<<8 | uint32(sum[at+2])
		n = n >> (4 - bits%8) & 0xfffff
		groups[i] = fmt.Sprintf("%05d", n%100000)
	}
	return strings.Join(groups, " "), nil
}
