package mesh

import (
	"errors"
	"strings"
)

// MaxSlug is the longest slug in bytes.
const MaxSlug = 63

// ErrBadSlug is returned for a name no slug can be made of.
var ErrBadSlug = errors.New("name holds no letter a-z and no digit")

// ValidSlug reports whether s may name a mesh: [a-z0-9][a-z0-9-]{0,62}. Such a
// slug is one token of a bus subject, one file name part and one shell word.
func ValidSlug(s string) bool {
	if s == "" || len(s) > MaxSlug || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// Slugify makes a valid slug of a name: lower case, every run of other
// characters one dash, none at the ends, at most [MaxSlug] bytes. It returns
// [ErrBadSlug] when nothing is left.
func Slugify(name string) (string, error) {
	var b strings.Builder
	dash := false
	for _, r := range name {
		if r >= 'A' && r <= 'Z' {
			r += 'a' - 'A'
		}
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') {
			dash = b.Len() > 0
			continue
		}
		need := 1
		if dash {
			need = 2
		}
		if b.Len()+need > MaxSlug {
			break
		}
		if dash {
			b.WriteByte('-')
			dash = false
		}
		b.WriteRune(r)
	}
	if b.Len() == 0 {
		return "", ErrBadSlug
	}
	return b.String(), nil
}
