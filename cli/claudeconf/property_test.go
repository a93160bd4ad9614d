package claudeconf

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// writer draws JSON text in any layout.
type writer struct {
	t      *rapid.T
	strict bool // no comments, no trailing commas
}

func (w writer) space() string {
	parts := []string{"", "", "", " ", "  ", "\n", "\n  ", "\t", "\r\n    "}
	if !w.strict {
		parts = append(parts, "/* c, { \" */", "// [ x\n")
	}
	return rapid.SampledFrom(parts).Draw(w.t, "space")
}

func (w writer) str(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		w.t.Fatal(err)
	}
	if s != "" && 'a' <= s[0] && s[0] <= 'z' && rapid.IntRange(0, 9).Draw(w.t, "escape") == 0 {
		return `"\u00` + string("0123456789abcdef"[s[0]>>4]) + string("0123456789abcdef"[s[0]&15]) + string(b[2:])
	}
	return string(b)
}

func (w writer) value(depth int) string {
	kinds := 5
	if depth > 0 {
		kinds = 7
	}
	switch rapid.IntRange(0, kinds-1).Draw(w.t, "kind") {
	case 0:
		return "null"
	case 1:
		return "true"
	case 2:
		return rapid.SampledFrom([]string{"0", "-1.50e3", "12345678901234567890"}).Draw(w.t, "number")
	case 3:
		return w.str(rapid.StringMatching(`[a-z/{}\[\],:"\\é]{0,8}`).Draw(w.t, "string"))
	case 4:
		return w.str(rapid.SampledFrom([]string{"claudemesh", "//", "/*"}).Draw(w.t, "word"))
	case 5:
		var members []string
		for range rapid.IntRange(0, 3).Draw(w.t, "members") {
			members = append(members, w.member(rapid.StringMatching(`[a-z]{1,4}`).Draw(w.t, "name"), w.value(depth-1)))
		}
		return w.join("{", members, "}")
	}
	var elements []string
	for range rapid.IntRange(0, 3).Draw(w.t, "elements") {
		elements = append(elements, w.value(depth-1))
	}
	return w.join("[", elements, "]")
}

func (w writer) member(name, value string) string {
	return w.str(name) + w.space() + ":" + w.space() + value
}

func (w writer) join(open string, items []string, end string) string {
	var b strings.Builder
	b.WriteString(open)
	for i, item := range items {
		b.WriteString(w.space() + item + w.space())
		if i < len(items)-1 || !w.strict && rapid.IntRange(0, 4).Draw(w.t, "trailing") == 0 {
			b.WriteString(",")
		}
	}
	b.WriteString(w.space() + end)
	return b.String()
}

// some draws an object whose members at the places where we put ours are of the right kind, and may hold entries of others.
func (w writer) some(names map[string]func() string) string {
	var members []string
	for range rapid.IntRange(0, 3).Draw(w.t, "others") {
		members = append(members, w.member(rapid.StringMatching(`[a-z]{1,6}`).Draw(w.t, "other"), w.value(3)))
	}
	for _, name := range []string{"mcpServers", "hooks", "permissions", "allow", "Stop", "SessionStart", "statusLine"} {
		if draw := names[name]; draw != nil && rapid.Bool().Draw(w.t, name) {
			members = append(members, w.member(name, draw()))
		}
	}
	return w.join("{", rapid.Permutation(members).Draw(w.t, "order"), "}")
}

func (w writer) config() string {
	return w.some(map[string]func() string{"mcpServers": func() string { return w.some(nil) }})
}

func (w writer) settings() string {
	groups := func() string {
		var list []string
		for range rapid.IntRange(0, 2).Draw(w.t, "groups") {
			list = append(list, rapid.SampledFrom([]string{
				`{"hooks":[{"type":"command","command":"claudemesh hook idle"}]}`,
				`{"hooks":[ {"type":"command","command":"say done"} , {"type":"command","command":"claudemesh hook working"} ]}`,
				`{"matcher":"Bash","hooks":[]}`, `{"hooks":7}`, `[]`,
			}).Draw(w.t, "group"))
		}
		return w.join("[", list, "]")
	}
	return w.some(map[string]func() string{
		"hooks": func() string { return w.some(map[string]func() string{"Stop": groups, "SessionStart": groups}) },
		"permissions": func() string {
			return w.some(map[string]func() string{"allow": func() string { return w.join("[", []string{`"Bash(ls:*)"`, `"Bash(claudemesh inbox:*)"`}, "]") }})
		},
		"statusLine": func() string { return `{"type":"command","command":"mine"}` },
	})
}

// setup is a user's home with those files; an empty text means that there is none.
func setup(t interface {
	Fatal(...any)
}, dir, config, settings string,
) Setup {
	s := Setup{Dir: filepath.Join(dir, ".claudemesh"), Claude: ClaudeFiles(dir, "")}
	for path, text := range map[string]string{s.Claude.Config: config, s.Claude.Settings: settings} {
		if text == "" {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// memory is a directory where syncing costs nothing, if there is one.
func memory() string {
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		return "/dev/shm"
	}
	return ""
}

func draw(t *rapid.T, strict bool) (dir string, s Setup, config, settings string) {
	dir, err := os.MkdirTemp(memory(), "cc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := writer{t, strict}
	if rapid.IntRange(0, 5).Draw(t, "config") > 0 {
		config = w.space() + w.config() + w.space()
	}
	if rapid.IntRange(0, 5).Draw(t, "settings") > 0 {
		settings = w.space() + w.settings() + w.space()
	}
	return dir, setup(t, dir, config, settings), config, settings
}

func install(t interface{ Fatal(...any) }, s Setup, w Want) []Change {
	c, err := s.Install(context.Background(), w, []byte("skill\n"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func uninstall(t interface{ Fatal(...any) }, s Setup) []Change {
	c, err := s.Uninstall(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func all(binary string) Want { return Want{Binary: binary, Hooks: true, StatusLine: true, Skill: true} }

// snapshot is everything below dir but our own directory: names, modes, contents.
func snapshot(t interface{ Fatal(...any) }, dir string) map[string]string {
	out := map[string]string{}
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if name == ".claudemesh" {
			return filepath.SkipDir
		}
		out[name] = info.Mode().String()
		if info.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			out[name] += "\n" + string(text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestUninstallGivesBackTheVeryBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, s, _, _ := draw(t, false)
		before := snapshot(t, dir)
		install(t, s, all("/usr/bin/claudemesh"))
		once := snapshot(t, dir)
		for _, c := range install(t, s, all("/usr/bin/claudemesh")) {
			if c.Action != Unchanged && c.Action != Kept {
				t.Fatalf("the second time: %+v", c)
			}
		}
		if twice := snapshot(t, dir); !reflect.DeepEqual(once, twice) {
			t.Fatalf("installing twice changed something:\n%q\n%q", once, twice)
		}
		if rapid.Bool().Draw(t, "moved") {
			install(t, s, all("/opt/new place/claudemesh"))
		}
		uninstall(t, s)
		if after := snapshot(t, dir); !reflect.DeepEqual(before, after) {
			t.Fatalf("before\n%q\nafter\n%q", before, after)
		}
	})
}

// parsed is a text's value as JSON readers see it, "" being no file.
func parsed(t *rapid.T, text string) any {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	d, err := parseDocument([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if !d.read(&v) {
		t.Fatal("not read")
	}
	return v
}

// reference takes out what install replaces for good: hooks of the program that ours replaces.
func reference(t *rapid.T, text string) string {
	d, err := parseDocument([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, event := range events() {
		if _, err := d.removeHooks(event, nil, true); err != nil {
			t.Fatal(err)
		}
	}
	return string(d.text)
}

func TestAForeignEditSurvivesUninstall(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		_, s, config, settings := draw(t, true)
		install(t, s, all("/usr/bin/claudemesh"))
		rewrite := rapid.Bool().Draw(t, "the client writes the file anew")
		name := rapid.SampledFrom([]string{"zz", "numStartups"}).Draw(t, "name")
		edit := func(text []byte) []byte {
			d, err := parseDocument(text)
			if err != nil {
				t.Fatal(err)
			}
			if err := d.put("theirs, "+name, name); err != nil {
				t.Fatal(err)
			}
			if !rewrite {
				return d.text
			}
			var out bytes.Buffer
			if err := json.Indent(&out, d.text, "", "  "); err != nil {
				t.Fatal(err)
			}
			return out.Bytes()
		}
		for path, was := range map[string]string{s.Claude.Config: config, s.Claude.Settings: settings} {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, edit(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if was == "" {
				was = "{}"
			}
			if path == s.Claude.Settings {
				was = reference(t, was)
			}
			defer func() {
				got, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				want := edit([]byte(was))
				if !reflect.DeepEqual(parsed(t, string(got)), parsed(t, string(want))) {
					t.Fatalf("%s: got\n%s\nwant\n%s", path, got, want)
				}
			}()
		}
		if rapid.Bool().Draw(t, "installed again") {
			install(t, s, all("/usr/bin/claudemesh"))
		}
		uninstall(t, s)
	})
}

// Cutting an item out gives the text that it was put into, wherever nothing had to be laid out anew.
func TestCutIsTheInverseOfPut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := writer{t, false}
		text := w.some(map[string]func() string{"mcpServers": func() string { return w.join("{", []string{w.member("x", "1")}, "}") }})
		d, err := parseDocument([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		path := []any{"mcpServers", "ours"}
		if v, err := d.at("mcpServers"); err != nil || v == nil {
			path = path[1:]
			if len(items(&d.root)) == 0 {
				return
			}
		}
		if err := d.put(map[string]int{"a": 1}, path...); err != nil {
			t.Fatal(err)
		}
		if err := d.drop(path...); err != nil {
			t.Fatal(err)
		}
		if string(d.text) != text {
			t.Fatalf("got\n%s\nwant\n%s", d.text, text)
		}
	})
}
