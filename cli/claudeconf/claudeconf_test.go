package claudeconf

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOurCommandsAreRecognisedWhereverTheyWereInstalled(t *testing.T) {
	for command, want := range map[string]bool{
		"claudemesh hook idle": true, "claudemesh hook working": true, "/opt/bin/claudemesh hook wait": true, "'/a b/claudemesh' hook drain": true,
		`"C:/x y/claudemesh.exe" hook presence`: true, "  claudemesh   hook dnd ": true,
		"claudemesh hook other": false, "notclaudemesh hook idle": false, "claudemesh hook idle; rm x": false, "echo claudemesh hook idle": false,
		"claudemesh": false, "": false, "claudemesh send hook idle": false,
	} {
		if got := isHook(command); got != want {
			t.Errorf("%q: %v", command, got)
		}
	}
	for _, path := range []string{"/usr/bin/claudemesh", "/a b/claudemesh", "/a$b/claudemesh"} {
		if !isHook(shellQuote(path) + " hook wait") {
			t.Errorf("%q is not recognised when it is quoted", path)
		}
	}
}

func TestWhatIsPutInLooksLikeWhatIsThere(t *testing.T) {
	for name, c := range map[string]struct {
		text, want string
		path       []any
	}{
		"one line":              {`{"a":1}`, `{"a":1,"new":{"x":1}}`, nil},
		"one line with blanks":  {`{"a": 1, "b": 2}`, `{"a": 1, "b": 2, "new": {"x":1}}`, nil},
		"two blanks":            {"{\n  \"a\": 1\n}\n", "{\n  \"a\": 1,\n  \"new\": {\n    \"x\": 1\n  }\n}\n", nil},
		"tabs":                  {"{\n\t\"a\": {}\n}\n", "{\n\t\"a\": {\n\t\t\"new\": {\n\t\t\t\"x\": 1\n\t\t}\n\t}\n}\n", []any{"a"}},
		"lines of Windows":      {"{\r\n  \"a\": 1\r\n}", "{\r\n  \"a\": 1,\r\n  \"new\": {\r\n    \"x\": 1\r\n  }\r\n}", nil},
		"nothing":               {"", "{\n  \"new\": {\n    \"x\": 1\n  }\n}\n", nil},
		"a trailing comma":      {"{\n  \"a\": 1,\n}", "{\n  \"a\": 1,\n  \"new\": {\n    \"x\": 1\n  },\n}", nil},
		"a comment":             {"{\n  // c\n}", "{\n  \"new\": {\n    \"x\": 1\n  }\n  // c\n}", nil},
		"a byte order mark":     {"\ufeff{\"a\":1}", "\ufeff{\"a\":1,\"new\":{\"x\":1}}", nil},
		"the last of two names": {`{"a":{},"a":{"b":1}}`, `{"a":{},"a":{"b":1,"new":{"x":1}}}`, []any{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := parseDocument([]byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			if err := d.put(map[string]int{"x": 1}, append(c.path, "new")...); err != nil {
				t.Fatal(err)
			}
			if got := string(d.bytes()); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestWhatIsNoObjectIsRefused(t *testing.T) {
	for _, text := range []string{"[]", "null", `"x"`, "{", "{}{}", "{'a':1}", strings.Repeat("[", 1<<20), `{"a":` + strings.Repeat(`{"a":`, 600)} {
		if _, err := parseDocument([]byte(text)); !errors.Is(err, ErrNotJSON) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	// Brackets in texts and comments are no nesting.
	if _, err := parseDocument([]byte(`{"a":"` + strings.Repeat("[", 5000) + `"} // ` + strings.Repeat("{", 5000) + "\n")); err != nil {
		t.Error(err)
	}
}

func TestAFileThatTheClientWritesMeanwhileIsNotOverwritten(t *testing.T) {
	s := setup(t, t.TempDir(), `{"a":1}`, "")
	l, err := s.readLedger()
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := s.plan(l, s.Claude.Config, func(d *document, m *marks) ([]Change, error) {
		c, err := applyServer(d, m, all("/usr/bin/claudemesh"))
		return []Change{c}, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Claude.Config, []byte(`{"a":2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.write(l, p); !errors.Is(err, errMoved) {
		t.Fatalf("got %v", err)
	}
	// The crash between record and file looks the same: the next one starts from what is there.
	install(t, s, all("/usr/bin/claudemesh"))
	uninstall(t, s)
	if got, err := os.ReadFile(s.Claude.Config); err != nil || string(got) != `{"a":2}` {
		t.Errorf("%s, %v", got, err)
	}
}

func TestALinkToNothingIsNotReplaced(t *testing.T) {
	s := setup(t, t.TempDir(), "", "")
	if err := os.Symlink(filepath.Join(s.Dir, "nowhere"), s.Claude.Config); err != nil {
		t.Skip("no symbolic links here: ", err)
	}
	if _, err := s.Install(t.Context(), all("/usr/bin/claudemesh"), nil); err == nil || !strings.Contains(err.Error(), "symbolic link to nothing") {
		t.Errorf("got %v", err)
	}
}

// Whatever the files hold, ours goes in and out without a panic, and what comes out can be read again.
func FuzzApply(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"hooks":{"Stop":[{"hooks":[{"type":"command","command":"claudemesh hook idle"}]}]}}`, "{\"mcpServers\":{/*c*/},}", `{"permissions":{"allow":[1]}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := parseDocument(text)
		if err != nil {
			return
		}
		var m marks
		w := all("/usr/bin/claudemesh")
		for _, apply := range []func() (Change, error){
			func() (Change, error) { return applyServer(d, &m, w) },
			func() (Change, error) { return applyHooks(d, &m, w) },
			func() (Change, error) { return applyRules(d, &m) },
			func() (Change, error) { return applyStatusLine(d, w) },
		} {
			if _, err := apply(); err != nil && !errors.Is(err, ErrShape) {
				t.Fatalf("%v\n%s", err, d.text)
			}
		}
		if _, err := strip(d, &m); err != nil {
			t.Fatalf("%v\n%s", err, d.text)
		}
		if _, err := parseDocument(d.bytes()); err != nil {
			t.Fatalf("%v\n%s", err, d.text)
		}
	})
}
