package mesh

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxTarget is the longest target in bytes, its sigil included.
const MaxTarget = 256

// minPrefix is the shortest key prefix taken for one: 64 bits, which nobody can
// aim a key at. Shorter hex words are names.
const minPrefix = 16

// ErrBadTarget is wrapped by every refusal of [ParseTarget].
var ErrBadTarget = errors.New("bad target")

// TargetKind says what a [Target] addresses.
type TargetKind string

// The kinds of target. Name, key and prefix mean one recipient and go through
// [Resolve]; the others are multicasts that the broker spreads.
const (
	TargetName   TargetKind = "name"
	TargetKey    TargetKind = "key"
	TargetPrefix TargetKind = "prefix"
	TargetGroup  TargetKind = "group"
	TargetAll    TargetKind = "all"
	TargetTopic  TargetKind = "topic"
)

// Target is a parsed recipient. Ref is the part that identifies it: the name as
// typed, the key or prefix in lower case, the group or topic without its sigil,
// "" for all. Typed is what the user wrote, trimmed; it is what the fingerprint
// covers and what a multicast carries to the broker.
type Target struct {
	Kind  TargetKind
	Ref   string
	Typed string
}

// Group is a named set of members of a mesh, and the role its holder plays in it.
// The name carries no leading "@".
type Group struct {
	Name string `json:"name"`
	Role string `json:"role,omitempty"`
}

// GroupReaches reports whether a message to a group reaches the members of another: itself, and what is below it. "a" reaches "a/b" and "a/b/c".
func GroupReaches(to, in string) bool {
	return in == to || len(in) > len(to) && in[:len(to)] == to && in[len(to)] == '/'
}

// ParseTarget reads a recipient:
//
//   - @all           everybody in the mesh
//     @group            the members of a group
//     #topic            the subscribers of a topic, by name or id
//     64 hex digits     one key, of a session or a member, in either case
//     16–63 hex digits  the one key that begins so
//     anything else     a display name
//
// Surrounding white space is dropped. Errors wrap [ErrBadTarget]: empty, a sigil
// alone, more than [MaxTarget] bytes, not UTF-8, or holding a control character.
func ParseTarget(s string) (Target, error) {
	s = trimECMA(s)
	switch {
	case s == "":
		return Target{}, fmt.Errorf("%w: empty", ErrBadTarget)
	case len(s) > MaxTarget:
		return Target{}, fmt.Errorf("%w: longer than %d bytes", ErrBadTarget, MaxTarget)
	case !utf8.ValidString(s):
		return Target{}, fmt.Errorf("%w: not valid UTF-8", ErrBadTarget)
	case strings.ContainsFunc(s, unicode.IsControl):
		return Target{}, fmt.Errorf("%w: %q holds a control character", ErrBadTarget, s)
	case s == "@" || s == "#":
		return Target{}, fmt.Errorf("%w: %q needs a name after it", ErrBadTarget, s)
	}
	t := Target{Typed: s}
	lower := strings.ToLower(s)
	switch {
	case s == "*" || s == "@all":
		t.Kind = TargetAll
	case s[0] == '@':
		t.Kind, t.Ref = TargetGroup, s[1:]
	case s[0] == '#':
		t.Kind, t.Ref = TargetTopic, s[1:]
	case ValidKey(lower):
		t.Kind, t.Ref = TargetKey, lower
	case len(lower) >= minPrefix && len(lower) < 64 && isLowerHex(lower):
		t.Kind, t.Ref = TargetPrefix, lower
	default:
		t.Kind, t.Ref = TargetName, s
	}
	return t, nil
}

// SendKind is the last token of the subject a message to this target is accepted
// on: "dm", "group", "topic" or "all".
func (t Target) SendKind() string {
	switch t.Kind {
	case TargetGroup, TargetTopic, TargetAll:
		return string(t.Kind)
	default:
		return "dm"
	}
}

// trimECMA drops what String.prototype.trim drops. It differs from
// strings.TrimSpace at both edges of Unicode's opinion: U+FEFF goes, U+0085 stays.
func trimECMA(s string) string {
	return strings.TrimFunc(s, func(r rune) bool {
		switch r {
		case '\t', '\n', '\v', '\f', '\r', '\u2028', '\u2029', '\ufeff':
			return true
		}
		return unicode.Is(unicode.Zs, r)
	})
}
