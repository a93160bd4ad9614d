package mesh

import (
	"errors"
	"strings"
	"testing"
)

func TestResolveMember(t *testing.T) {
	key := func(digit string) string { return strings.Repeat(digit, 64) }
	bob, carol, session, other := key("b"), key("c"), key("1"), key("2")
	all := []Candidate{
		{Key: session, MemberKey: bob, Name: "builder", Session: true, Online: true},
		{Key: bob, MemberKey: bob, Name: "Bob"},
		{Key: carol, MemberKey: carol, Name: "carol", Online: true},
		{Key: other, MemberKey: carol, Name: "bob", Session: true},
		{Key: key("3"), Name: "fresh", Online: true}, // from an event: its member is not known yet
	}
	for _, tc := range []struct {
		name, target, want string
	}{
		{"a member's name", "carol", carol},
		{"a session's name", "Builder", bob},
		{"a session's key", session, bob},
		{"the beginning of a session's key", session[:16], bob},
		{"a member's key", carol, carol},
		{"the beginning of a member's key", bob[:20], bob},
		{"a key that nobody known has", key("9"), key("9")},
		{"a name that two offline members use", "bob", "ambiguous"},
		{"a name that nobody has", "dave", "none"},
		{"a peer whose member is not known", "fresh", "none"},
		{"a beginning that nobody has", key("9")[:16], "none"},
		{"everybody", "*", "bad"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			target, err := ParseTarget(tc.target)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ResolveMember(target, all)
			var none *ErrNotFound
			var several *ErrAmbiguous
			switch {
			case errors.As(err, &none):
				got.Key = "none"
			case errors.As(err, &several):
				got.Key = "ambiguous"
			case errors.Is(err, ErrBadTarget):
				got.Key = "bad"
			case err != nil:
				t.Fatal(err)
			case got.MemberKey != got.Key:
				t.Errorf("%+v", got)
			}
			if got.Key != tc.want {
				t.Errorf("%+v, want %s", got, tc.want)
			}
		})
	}
	t.Run("a member that is online beats one that is not", func(t *testing.T) {
		got, err := ResolveMember(Target{Kind: TargetName, Ref: "bob", Typed: "bob"}, append(all, Candidate{Key: key("4"), MemberKey: bob, Name: "bob", Online: true}))
		if err != nil || got.Key != bob {
			t.Errorf("%+v %v", got, err)
		}
	})
}
