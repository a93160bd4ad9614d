package cli

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"claudemesh/mesh"
)

func TestEveryCapabilityIsExplained(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range mesh.Capabilities() {
		text := capText(name)
		if text == "" || seen[text] {
			t.Errorf("%s: %q is missing or not its own", name, text)
		}
		seen[text] = true
	}
	if capText("fly") != "" {
		t.Error("a capability that is none is explained")
	}
}

func TestCapsAreRead(t *testing.T) {
	for _, tc := range []struct {
		name, list string
		want       []string
	}{
		{"nothing is allowed by an empty list", "", []string{}},
		{"nothing is allowed by none", "none", []string{}},
		{"the order is that of the table, and each comes once", "state-read,dm,state-read", []string{"dm", "state-read"}},
		{"case and blanks do not matter", " DM , Broadcast ", []string{"dm", "broadcast"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseCaps(tc.list)
			if err != nil || got == nil || !slices.Equal(got, tc.want) {
				t.Errorf("%#v, %v", got, err)
			}
		})
	}
	for list, hint := range map[string]string{"dm,stat-read": "did you mean state-read?", "dm,,read": "capabilities: dm, ", "zzzz": "capabilities: dm, "} {
		_, err := parseCaps(list)
		if u := new(usageError); !errors.As(err, &u) || !strings.Contains(u.hint, hint) {
			t.Errorf("%q: %v", list, err)
		}
	}
}
