package mesh

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// testKey is a well-formed key that begins with the given hex digits.
func testKey(prefix string) string { return prefix + strings.Repeat("0", 64-len(prefix)) }

func TestResolve(t *testing.T) {
	var (
		p       = strings.Repeat("a", 20)
		ann     = Candidate{Key: testKey(p + "1"), MemberKey: testKey("b1"), Name: "ann", Online: true, Session: true}
		ann2    = Candidate{Key: testKey(p + "2"), MemberKey: testKey("b2"), Name: "Ann", Online: true, Session: true}
		annOff  = Candidate{Key: testKey(p + "3"), MemberKey: testKey("b3"), Name: "ANN", Session: true}
		annOff2 = Candidate{Key: testKey(p + "4"), MemberKey: testKey("b4"), Name: "ann", Session: true}
		member  = Candidate{Key: testKey("b1"), MemberKey: testKey("b1"), Name: "ann", Online: true}
		sibling = Candidate{Key: testKey("c5"), MemberKey: testKey("b1"), Name: "ann", Online: true, Session: true}
		self    = Candidate{Key: testKey("d1"), MemberKey: testKey("e1"), Name: "ann", Online: true, Session: true, Self: true}
		mine    = Candidate{Key: testKey("e1"), MemberKey: testKey("e1"), Name: "ann", Online: true}
		broken  = Candidate{Key: "system", Name: "ann", Online: true}
		virtual = Candidate{Key: testKey("b2"), MemberKey: testKey("b2"), Name: "Ann", Online: true}
	)
	type list = []Candidate
	for name, c := range map[string]struct {
		target string
		all    list
		want   Candidate
		err    string // "", "self", "none", "target" or the number of candidates
	}{
		"a name without case finds its peer":                      {"ANN", list{ann}, ann, ""},
		"an unknown name finds nobody":                            {"bob", list{ann}, Candidate{}, "none"},
		"a part of a name finds nobody":                           {"an", list{ann}, Candidate{}, "none"},
		"nobody is found among nobody":                            {"ann", nil, Candidate{}, "none"},
		"two online of a name are ambiguous":                      {"ann", list{ann, ann2}, Candidate{}, "2"},
		"one online beats two that are not":                       {"ann", list{annOff, ann, annOff2}, ann, ""},
		"two online are listed without the third":                 {"ann", list{annOff, ann, ann2}, Candidate{}, "2"},
		"an offline peer alone is found":                          {"ann", list{annOff}, annOff, ""},
		"two offline of a name are ambiguous":                     {"ann", list{annOff, annOff2}, Candidate{}, "2"},
		"the same key twice is one peer":                          {"ann", list{ann, ann}, ann, ""},
		"a key once online is online":                             {"ann", list{annOff, {Key: annOff.Key, Online: true}, annOff2}, Candidate{annOff.Key, annOff.MemberKey, "ANN", true, true, false}, ""},
		"a member steps behind its session":                       {"ann", list{member, ann}, ann, ""},
		"but not behind another's":                                {"ann", list{member, ann2}, Candidate{}, "2"},
		"nor in front of two of its own":                          {"ann", list{member, ann, sibling}, Candidate{}, "2"},
		"a member without session is found":                       {"ann", list{member}, member, ""},
		"the sender stands in nobody's way":                       {"ann", list{self, ann}, ann, ""},
		"not even in an offline peer's":                           {"ann", list{self, annOff}, annOff, ""},
		"the sender alone is refused":                             {"ann", list{self}, Candidate{}, "self"},
		"with its own member too":                                 {"ann", list{mine, self}, Candidate{}, "self"},
		"an entry without key is nobody":                          {"ann", list{broken}, Candidate{}, "none"},
		"a full key finds its peer":                               {ann.Key, list{ann2, ann}, ann, ""},
		"in upper case too":                                       {strings.ToUpper(ann.Key), list{ann}, ann, ""},
		"a full key of nobody known is taken as it is":            {testKey("77"), list{ann}, Candidate{Key: testKey("77")}, ""},
		"a full key of a member not listed is the member":         {testKey("b2"), list{ann, ann2}, virtual, ""},
		"a listed member is itself":                               {testKey("b1"), list{ann, member}, member, ""},
		"the own key is refused":                                  {self.Key, list{self, ann}, Candidate{}, "self"},
		"the own member without another session is refused":       {testKey("e1"), list{self}, Candidate{}, "self"},
		"the own member when listed is not":                       {testKey("e1"), list{self, mine}, mine, ""},
		"a prefix finds its session":                              {ann.Key[:21], list{ann, ann2}, ann, ""},
		"a prefix finds a member":                                 {testKey("b1")[:16], list{ann2, ann, member}, member, ""},
		"a prefix of a member's key is the member, not a session": {testKey("b2")[:16], list{ann, ann2}, virtual, ""},
		"a prefix of several online keys is ambiguous":            {p, list{ann, ann2}, Candidate{}, "2"},
		"a prefix prefers the one online":                         {p, list{annOff, ann}, ann, ""},
		"a prefix of several offline keys is ambiguous":           {p, list{annOff, annOff2}, Candidate{}, "2"},
		"a prefix of nobody finds nobody":                         {testKey("77")[:16], list{ann}, Candidate{}, "none"},
		"a peer called like a prefix is not it":                   {"deadbeefdeadbeef", list{{Key: testKey("1"), Name: "deadbeefdeadbeef", Online: true}}, Candidate{}, "none"},
		"a peer called like a key is not it":                      {testKey("77"), list{{Key: testKey("1"), Name: testKey("77"), Online: true}}, Candidate{Key: testKey("77")}, ""},
		"a prefix of the own key is refused":                      {self.Key[:16], list{self, ann}, Candidate{}, "self"},
		"a group is no peer":                                      {"@ops", list{ann}, Candidate{}, "target"},
		"a topic is no peer":                                      {"#ops", list{ann}, Candidate{}, "target"},
		"everybody is no peer":                                    {"*", list{ann}, Candidate{}, "target"},
	} {
		t.Run(name, func(t *testing.T) {
			target, err := ParseTarget(c.target)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Resolve(target, c.all)
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			var (
				ambiguous *ErrAmbiguous
				missing   *ErrNotFound
				said      string
			)
			switch {
			case errors.Is(err, ErrSelf):
				said = "self"
			case errors.Is(err, ErrBadTarget):
				said = "target"
			case errors.As(err, &missing):
				said = "none"
			case errors.As(err, &ambiguous):
				said = fmt.Sprint(len(ambiguous.Candidates))
			case err != nil:
				said = err.Error()
			}
			if said != c.err {
				t.Errorf("error is %v, want %q", err, c.err)
			}
		})
	}
}

func TestAmbiguityNamesKeysThatResolveIt(t *testing.T) {
	shared := strings.Repeat("ab", 10)
	var all []Candidate
	for i := range 5 {
		all = append(all, Candidate{Key: testKey(shared + fmt.Sprint(i)), Name: "ann", Online: true, Session: i > 0})
	}
	target, _ := ParseTarget("ann")
	_, err := Resolve(target, all)
	if err == nil {
		t.Fatal("resolved")
	}
	for _, c := range all {
		short := c.Key[:21]
		if !strings.Contains(err.Error(), short+" ") {
			t.Errorf("%q does not offer %s", err, short)
		}
		target, _ := ParseTarget(short)
		if got, err := Resolve(target, all); err != nil || got.Key != c.Key {
			t.Errorf("the offered %s resolves to %+v, %v", short, got, err)
		}
	}
}

func TestNamesOfStrangersAreSafeToPrint(t *testing.T) {
	var all []Candidate
	for i := range 30 {
		all = append(all, Candidate{Key: testKey(fmt.Sprintf("%02x", i)), Name: "\x1b[31m\u202e" + strings.Repeat("n", 1000)})
	}
	err := &ErrAmbiguous{Target: Target{Typed: "ann"}, Candidates: all}
	if text := err.Error(); len(text) > 2000 || strings.ContainsAny(text, "\x1b\u202e\n") || !strings.Contains(text, "and 22 more") {
		t.Errorf("%q", text)
	}
}

func TestResolveNeverGuesses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.Map(rapid.IntRange(0, 6), func(i int) string {
			return testKey(strings.Repeat("a", 16) + fmt.Sprint(i))
		})
		all := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Candidate {
			return Candidate{
				Key: key.Draw(t, "key"), MemberKey: key.Draw(t, "member"),
				Name:   rapid.SampledFrom([]string{"ann", "Ann", "bob", ""}).Draw(t, "name"),
				Online: rapid.Bool().Draw(t, "online"), Session: rapid.Bool().Draw(t, "session"), Self: rapid.IntRange(0, 5).Draw(t, "self") == 0,
			}
		}), 0, 6).Draw(t, "all")
		typed := rapid.OneOf(rapid.SampledFrom([]string{"ann", "BOB", "eve", strings.Repeat("a", 16)}), key, rapid.Map(key, func(k string) string { return k[:17] })).Draw(t, "typed")
		target, err := ParseTarget(typed)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Resolve(target, all)
		var ambiguous *ErrAmbiguous
		if errors.As(err, &ambiguous) {
			seen := map[string]bool{}
			for _, c := range ambiguous.Candidates {
				if seen[c.Key] || c.Self || c.Online != ambiguous.Candidates[0].Online {
					t.Fatalf("candidates %+v", ambiguous.Candidates)
				}
				seen[c.Key] = true
			}
			if len(seen) < 2 {
				t.Fatalf("ambiguous among %d", len(seen))
			}
		}
		if err != nil {
			if got != (Candidate{}) {
				t.Fatalf("%+v comes with %v", got, err)
			}
			return
		}
		if got.Self || !ValidKey(got.Key) {
			t.Fatalf("chose %+v", got)
		}
		// Whoever else answers to the target as well as the chosen one is a reason
		// not to have chosen, whatever the order of the list.
		selves := map[string]bool{}
		for _, c := range all {
			selves[c.Key] = selves[c.Key] || c.Self
		}
		for _, c := range all {
			answers := false
			switch target.Kind {
			case TargetKey:
				if got.Key != target.Ref {
					t.Fatalf("%s became %s", target.Ref, got.Key)
				}
			case TargetPrefix:
				answers = strings.HasPrefix(c.Key, target.Ref)
			case TargetName:
				// Entries of one key share the first name, and a member steps
				// behind a session; only plain rivals count here.
				answers = c.Session && strings.EqualFold(c.Name, target.Ref) && first(all, c.Key) == c
			}
			if answers && c.Key != got.Key && !selves[c.Key] && (c.Online || !got.Online) {
				t.Fatalf("%q chose %+v over %+v", typed, got, c)
			}
		}
		reversed := rapid.Permutation(all).Draw(t, "order")
		if unique(all) {
			again, err := Resolve(target, reversed)
			if err != nil || again.Key != got.Key {
				t.Fatalf("in another order: %+v, %v", again, err)
			}
		}
	})
}

func first(all []Candidate, key string) Candidate {
	for _, c := range all {
		if c.Key == key {
			return c
		}
	}
	return Candidate{}
}

func unique(all []Candidate) bool {
	seen := map[string]bool{}
	for _, c := range all {
		if seen[c.Key] {
			return false
		}
		seen[c.Key] = true
	}
	return true
}
