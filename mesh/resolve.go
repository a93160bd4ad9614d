package mesh

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Candidate is a key a message could be sealed for.
type Candidate struct {
	Key       string // public key the message would be sealed for
	MemberKey string // member the key belongs to; equal to Key for a member itself
	Name      string // display name, chosen by its owner and thus not to be trusted
	Online    bool   // connected to the broker now
	Session   bool   // a session's key rather than a member's
	Self      bool   // the session that is sending
}

// ErrSelf is returned for a target that means the sending session itself.
var ErrSelf = errors.New("a session cannot send to itself")

// ErrNotFound says that nobody answers to a target. Candidates are all that were
// known, for a hint.
type ErrNotFound struct {
	Target     Target
	Candidates []Candidate
}

// Error names the target.
func (e *ErrNotFound) Error() string {
	if e.Target.Kind == TargetPrefix {
		return fmt.Sprintf("no peer whose key begins with %s", e.Target.Ref)
	}
	return fmt.Sprintf("no peer called %s", quoteName(e.Target.Typed))
}

// ErrAmbiguous says that several keys answer to a target. Candidates are those.
type ErrAmbiguous struct {
	Target     Target
	Candidates []Candidate
}

// maxListed bounds the candidates spelled out in an error.
const maxListed = 8

// Error lists the candidates, each with the beginning of its key that is enough
// to address it.
func (e *ErrAmbiguous) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s means %d peers, use a key instead: ", quoteName(e.Target.Typed), len(e.Candidates))
	digits := distinctDigits(e.Candidates)
	for i, c := range e.Candidates {
		if i == maxListed {
			fmt.Fprintf(&b, " and %d more", len(e.Candidates)-maxListed)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s (%s", c.Key[:min(digits, len(c.Key))], quoteName(c.Name))
		if c.Session {
			b.WriteString(", session")
		}
		if !c.Online {
			b.WriteString(", offline")
		}
		b.WriteString(")")
	}
	return b.String()
}

// Resolve finds the one key a target of kind name, key or prefix means.
//
// A full key is taken as it is, whether or not anybody known has it: there is
// nothing to guess, and its owner may be offline. A prefix is held against
// session and member keys alike; a member's key means the member, not one of its
// sessions. A name is compared without case, and only names are: hex of prefix
// length never falls back to a name, or a peer could call itself like another's
// key. Among several matches one that is online beats those that are not; two
// online, or two offline with none online, are ambiguous. A member's own entry
// steps back behind a session of it that matches as well.
//
// Errors are [ErrSelf], *[ErrNotFound], *[ErrAmbiguous], or [ErrBadTarget] for a
// target that is a multicast. The sending session never stands in the way of
// another peer of its name.
func Resolve(t Target, all []Candidate) (Candidate, error) {
	known := distinct(all)
	var matches []Candidate
	switch t.Kind {
	case TargetKey:
		c := byKey(t.Ref, known)
		if c.Self {
			return Candidate{}, ErrSelf
		}
		return c, nil
	case TargetPrefix:
		matches = byPrefix(t.Ref, known)
	case TargetName:
		matches = byName(t.Ref, known)
	default:
		return Candidate{}, fmt.Errorf("%w: %s is not a single peer", ErrBadTarget, quoteName(t.Typed))
	}
	if len(matches) == 0 {
		return Candidate{}, &ErrNotFound{Target: t, Candidates: known}
	}
	matches = slices.DeleteFunc(matches, func(c Candidate) bool { return c.Self })
	if len(matches) == 0 {
		return Candidate{}, ErrSelf
	}
	live := slices.DeleteFunc(slices.Clone(matches), func(c Candidate) bool { return !c.Online })
	if len(live) > 0 {
		matches = live
	}
	if len(matches) > 1 {
		return Candidate{}, &ErrAmbiguous{Target: t, Candidates: matches}
	}
	return matches[0], nil
}

// distinct merges entries of one key and drops those without a usable key. The
// first name wins; a key is online, and the sender's own, when any entry says so.
func distinct(all []Candidate) []Candidate {
	at := make(map[string]int, len(all))
	var out []Candidate
	for _, c := range all {
		if !ValidKey(c.Key) {
			continue
		}
		i, seen := at[c.Key]
		if !seen {
			at[c.Key] = len(out)
			out = append(out, c)
			continue
		}
		out[i].Online = out[i].Online || c.Online
		out[i].Self = out[i].Self || c.Self
		out[i].Session = out[i].Session || c.Session
		if out[i].Name == "" {
			out[i].Name = c.Name
		}
		if out[i].MemberKey == "" {
			out[i].MemberKey = c.MemberKey
		}
	}
	return out
}

// byKey returns the candidate of exactly that key. A key known only as the member
// of sessions becomes the member itself: online when one of them is, the sender
// when there is no other.
func byKey(key string, known []Candidate) Candidate {
	for _, c := range known {
		if c.Key == key {
			return c
		}
	}
	member := Candidate{Key: key, Self: true}
	for _, c := range known {
		if c.MemberKey != key {
			continue
		}
		member.MemberKey = key
		member.Online = member.Online || c.Online
		member.Self = member.Self && c.Self
		if member.Name == "" {
			member.Name = c.Name
		}
	}
	// Nobody known has this key, so it is not the sender's either.
	member.Self = member.Self && member.MemberKey != ""
	return member
}

func byPrefix(prefix string, known []Candidate) []Candidate {
	var keys []string
	for _, c := range known {
		if strings.HasPrefix(c.Key, prefix) {
			keys = append(keys, c.Key)
		}
		if ValidKey(c.MemberKey) && strings.HasPrefix(c.MemberKey, prefix) {
			keys = append(keys, c.MemberKey)
		}
	}
	slices.Sort(keys)
	var matches []Candidate
	for _, key := range slices.Compact(keys) {
		matches = append(matches, byKey(key, known))
	}
	return matches
}

func byName(name string, known []Candidate) []Candidate {
	var matches []Candidate
	session := make(map[string]bool)
	for _, c := range known {
		if strings.EqualFold(c.Name, name) {
			matches = append(matches, c)
			if c.Session && c.Online {
				session[c.MemberKey] = true
			}
		}
	}
	return slices.DeleteFunc(matches, func(c Candidate) bool { return !c.Session && session[c.Key] })
}

// distinctDigits is how many digits of the keys tell them apart and still make a
// prefix target.
func distinctDigits(cs []Candidate) int {
	digits := minPrefix
	for i, a := range cs {
		for _, b := range cs[:i] {
			common := 0
			for common < len(a.Key) && common < len(b.Key) && a.Key[common] == b.Key[common] {
				common++
			}
			digits = max(digits, common+1)
		}
	}
	return digits
}

// quoteName makes a name a stranger chose safe and short enough for a terminal.
func quoteName(name string) string {
	const most = 64
	if r := []rune(name); len(r) > most {
		name = string(r[:most]) + "…"
	}
	return fmt.Sprintf("%q", name)
}
