package cli

import (
	"encoding/json"
	"reflect"
	"testing"
)

func TestReadableKeepsTheValue(t *testing.T) {
	for in, want := range map[string]string{
		`"\u003ca\u003e \u0026"`:   `"<a> &"`,
		`"\\u003c"`:                `"\\u003c"`, // a backslash, and text
		`"\\\u003c"`:               `"\\<"`,
		`{"\u003c":["\"","\n",1]}`: `{"<":["\"","\n",1]}`,
		`"\u00e9\u003"`:            `"\u00e9\u003"`, // not JSON: left alone
		`\`:                        `\`,
		``:                         ``,
	} {
		if got := string(readable(json.RawMessage(in))); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func FuzzReadable(f *testing.F) {
	f.Add([]byte(`"\\\u003c\u0026\""`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var want, got any
		if json.Unmarshal(data, &want) != nil {
			_ = readable(data)
			return
		}
		if err := json.Unmarshal(readable(data), &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s became %s: %v", data, readable(data), err)
		}
	})
}

func FuzzSkill(f *testing.F) {
	for _, s := range []string{bundledSkill, "---\nname: x\n---\nbody", "---\n---", "---\ntags: [a, 1]\nx: {1: 2}\n---\n", "---\na: &a [*a]\n---\n", "no front"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > maxSkillFile {
			return
		}
		s, err := parseSkill(text)
		if err == nil && s.Manifest != nil && !json.Valid(s.Manifest) {
			t.Errorf("manifest %s", s.Manifest)
		}
	})
}
