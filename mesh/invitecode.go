package mesh

import (
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strings"
)

// codeAlphabet has no letter that is mistaken for a digit: no I, no O, no 0, no 1. 32 characters, so that five random bits are one.
const codeAlphabet = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"

// CodeLength is the length of the short codes made here: 40 random bits. That is guessable by a fast enough guesser, so a broker limits lookups.
const CodeLength = 8

// NewInviteCode makes a short code.
func NewInviteCode(random io.Reader) (string, error) {
	var raw [CodeLength]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return "", fmt.Errorf("make invite code: %w", err)
	}
	for i, c := range raw {
		raw[i] = codeAlphabet[c%32]
	}
	return string(raw[:]), nil
}

// NormalInviteCode is a code as this program's brokers spell it: upper case.
func NormalInviteCode(code string) string { return strings.ToUpper(strings.TrimSpace(code)) }

var localePath = regexp.MustCompile(`^/[a-z]{2}$`)

// InviteCode recognises the short forms, which a broker resolves: a link
// http(s)://<host>[/<locale>]/i/<code>, the same without scheme (taken for https),
// or a bare code of 6 to 16 letters and digits. base is what to ask, scheme, host
// and the path in front of /i/ unless that is a two-letter locale; "" for a bare code.
func InviteCode(s string) (base, code string, ok bool) {
	s = strings.TrimSpace(s)
	if len(s) > MaxInvite {
		return "", "", false
	}
	if codeForm().MatchString(s) {
		return "", s, true
	}
	if !strings.Contains(s, "://") && strings.Contains(s, "/i/") {
		s = "https://" + s
	}
	u, ok := webURL(s)
	if !ok {
		return "", "", false
	}
	m := codePath().FindStringSubmatch(u.Path)
	if m == nil {
		return "", "", false
	}
	prefix := (&url.URL{Path: m[1]}).EscapedPath()
	if localePath.MatchString(prefix) {
		prefix = ""
	}
	return u.Scheme + "://" + u.Host + prefix, m[2], true
}
