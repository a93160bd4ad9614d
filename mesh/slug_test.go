package mesh

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestValidSlug(t *testing.T) {
	long := strings.Repeat("a", MaxSlug)
	for s, want := range map[string]bool{
		"a": true, "7": true, "acme-2": true, "a-": true, "a--b": true, long: true,
		"": false, "-a": false, long + "a": false, "Acme": false, "a.b": false, "a*": false, ">": false, "a b": false, "a/b": false, "é": false, "a\n": false,
	} {
		if ValidSlug(s) != want {
			t.Errorf("ValidSlug(%q) is %t", s, !want)
		}
	}
}

func TestSlugify(t *testing.T) {
	for in, want := range map[string]string{
		"Acme": "acme", " Acme  Inc. ": "acme-inc", "a--b": "a-b", "-x-": "x", "Café 7": "caf-7", "a.b/c": "a-b-c",
		strings.Repeat("x", 100):        strings.Repeat("x", 63),
		strings.Repeat("x", 62) + " y":  strings.Repeat("x", 62),
		strings.Repeat("x", 61) + " yz": strings.Repeat("x", 61) + "-y",
		strings.Repeat("x", 63) + "!":   strings.Repeat("x", 63),
	} {
		if got, err := Slugify(in); err != nil || got != want {
			t.Errorf("%q became %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "日本", " -.- ", "\x00"} {
		if got, err := Slugify(in); !errors.Is(err, ErrBadSlug) {
			t.Errorf("%q became %q, %v", in, got, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		slug, err := Slugify(rapid.String().Draw(t, "name"))
		if err != nil {
			return
		}
		if again, err := Slugify(slug); !ValidSlug(slug) || err != nil || again != slug {
			t.Fatalf("%q, then %q, %v", slug, again, err)
		}
	})
}
