package mesh

import (
	"errors"
	"strings"
	"testing"
)

func TestParseTarget(t *testing.T) {
	key := fixedIdentity(t, 1).PublicKey()
	for in, want := range map[string]struct {
		target Target
		send   string
	}{
		"*":                            {Target{TargetAll, "", "*"}, "all"},
		"@all":                         {Target{TargetAll, "", "@all"}, "all"},
		"@All":                         {Target{TargetGroup, "All", "@All"}, "group"},
		"@ops":                         {Target{TargetGroup, "ops", "@ops"}, "group"},
		"@eng/frontend":                {Target{TargetGroup, "eng/frontend", "@eng/frontend"}, "group"},
		"@*":                           {Target{TargetGroup, "*", "@*"}, "group"},
		"#room":                        {Target{TargetTopic, "room", "#room"}, "topic"},
		"##":                           {Target{TargetTopic, "#", "##"}, "topic"},
		key:                            {Target{TargetKey, key, key}, "dm"},
		strings.ToUpper(key):           {Target{TargetKey, key, strings.ToUpper(key)}, "dm"},
		key[:63]:                       {Target{TargetPrefix, key[:63], key[:63]}, "dm"},
		key[:16]:                       {Target{TargetPrefix, key[:16], key[:16]}, "dm"},
		strings.ToUpper(key[:20]):      {Target{TargetPrefix, key[:20], strings.ToUpper(key[:20])}, "dm"},
		key[:15]:                       {Target{TargetName, key[:15], key[:15]}, "dm"},
		key + "a":                      {Target{TargetName, key + "a", key + "a"}, "dm"},
		"Mou":                          {Target{TargetName, "Mou", "Mou"}, "dm"},
		"  Ada Lovelace\n":             {Target{TargetName, "Ada Lovelace", "Ada Lovelace"}, "dm"},
		"\ufeff\u2028日本\u3000":         {Target{TargetName, "日本", "日本"}, "dm"},
		"**":                           {Target{TargetName, "**", "**"}, "dm"},
		strings.Repeat("x", MaxTarget): {Target{TargetName, strings.Repeat("x", MaxTarget), strings.Repeat("x", MaxTarget)}, "dm"},
	} {
		t.Run(in, func(t *testing.T) {
			got, err := ParseTarget(in)
			if err != nil || got != want.target || got.SendKind() != want.send {
				t.Errorf("got %+v to %s, %v; want %+v to %s", got, got.SendKind(), err, want.target, want.send)
			}
		})
	}
}

func TestParseTargetRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"nothing": "", "white space": " \t\n", "a group without name": "@", "a topic without name": " # ",
		"a NUL": "bob\x00", "a newline inside": "bob\neve", "an escape": "\x1b[31mbob", "DEL": "bob\x7f", "a C1 control": "bob\u0085",
		"bytes that are not UTF-8": "bob\xff", "257 bytes": strings.Repeat("x", MaxTarget+1), "a megabyte": strings.Repeat("x", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := ParseTarget(in); !errors.Is(err, ErrBadTarget) || got != (Target{}) {
				t.Errorf("got %+v, %v", got, err)
			} else if len(err.Error()) > 600 || strings.ContainsAny(err.Error(), "\x00\x1b\n") {
				t.Errorf("error is not fit for a terminal: %q", err)
			}
		})
	}
}
