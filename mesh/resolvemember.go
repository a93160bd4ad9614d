package mesh

import (
	"fmt"
	"slices"
	"strings"
)

// ResolveMember finds the member a target of kind name, key or prefix means. Keys and names of sessions stand for their member. A full key is taken as it
// is when nobody known has it: its owner may never have been seen here. Of several members, those that are online beat those that are not, as in
// [Resolve]. Key and MemberKey of what is returned are both the member's.
//
// Errors are *[ErrNotFound], *[ErrAmbiguous], or [ErrBadTarget] for a target that is a multicast.
func ResolveMember(t Target, all []Candidate) (Candidate, error) {
	var fits func(Candidate) bool
	switch t.Kind {
	case TargetKey:
		fits = func(c Candidate) bool { return c.Key == t.Ref || c.MemberKey == t.Ref }
	case TargetPrefix:
		fits = func(c Candidate) bool {
			return strings.HasPrefix(c.Key, t.Ref) || strings.HasPrefix(c.MemberKey, t.Ref)
		}
	case TargetName:
		fits = func(c Candidate) bool { return strings.EqualFold(c.Name, t.Ref) }
	default:
		return Candidate{}, fmt.Errorf("%w: %s is not a single peer", ErrBadTarget, quoteName(t.Typed))
	}
	var members []Candidate
	for _, c := range all {
		if !ValidKey(c.MemberKey) || !fits(c) {
			continue
		}
		i := slices.IndexFunc(members, func(m Candidate) bool { return m.Key == c.MemberKey })
		if i < 0 {
			members, i = append(members, Candidate{Key: c.MemberKey, MemberKey: c.MemberKey, Name: c.Name}), len(members)
		}
		if members[i].Online = members[i].Online || c.Online; c.Key == c.MemberKey && c.Name != "" {
			members[i].Name = c.Name
		}
	}
	if live := slices.DeleteFunc(slices.Clone(members), func(c Candidate) bool { return !c.Online }); len(live) > 0 {
		members = live
	}
	switch {
	case len(members) == 1:
		return members[0], nil
	case len(members) > 1:
		return Candidate{}, &ErrAmbiguous{Target: t, Candidates: members}
	case t.Kind == TargetKey:
		return Candidate{Key: t.Ref, MemberKey: t.Ref}, nil
	}
	return Candidate{}, &ErrNotFound{Target: t, Candidates: distinct(all)}
}
