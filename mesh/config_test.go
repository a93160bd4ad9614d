package mesh

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func writeConfig(t testing.TB, dir, text string) string {
	t.Helper()
	path := filepath.Join(dir, "config.json")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

const sampleConfig = `{
  "version": 1,
  "meshes": [
    {
      "meshId": "m1",
      "memberId": "u1",
      "slug": "acme",
      "name": "acme",
      "pubkey": "pk",
      "secretKey": "sk",
      "brokerUrl": "wss://ic.claudemesh.com/ws",
      "joinedAt": "2026-05-04T12:33:20.000Z",
      "rootKey": "rk",
      "inviteVersion": 2,
      "Slug": "another key",
      "color": {
        "b": 1.0,
        "a": 12345678901234567890
      }
    }
  ],
  "displayName": "Ann <ann@example.org>",
  "role": "dev",
  "groups": [
    {
      "name": "ops",
      "role": "lead"
    },
    {
      "name": "eng"
    }
  ],
  "messageMode": "push",
  "accountId": "acc",
  "futureKey": [
    1,
    "</script>",
    null
  ],
  "telemetry": false
}
`

func TestConfigIsReadAndWrittenBackUnchanged(t *testing.T) {
	dir := t.TempDir()
	path := writeConfig(t, dir, sampleConfig)
	c, err := LoadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := Joined{
		MeshID: "m1", MemberID: "u1", Slug: "acme", Name: "acme", Pubkey: "pk", SecretKey: "sk",
		BrokerURL: "wss://ic.claudemesh.com/ws", JoinedAt: "2026-05-04T12:33:20.000Z", RootKey: "rk", InviteVersion: 2,
	}
	got, ok := c.Mesh("acme")
	got.extra = nil
	if !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("the mesh differs: %t", ok)
	}
	if c.DisplayName != "Ann <ann@example.org>" || c.Role != "dev" || c.MessageMode != "push" || c.AccountID != "acc" ||
		!reflect.DeepEqual(c.Groups, []Group{{"ops", "lead"}, {"eng", ""}}) {
		t.Error("the top level differs")
	}
	if err := UpdateConfig(dir, func(*Config) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if text := readFile(t, path); text != sampleConfig {
		t.Errorf("written back as\n%s", text)
	}
}

func TestUpdateKeepsUnknownKeys(t *testing.T) {
	dir := t.TempDir()
	path := writeConfig(t, dir, sampleConfig)
	err := UpdateConfig(dir, func(c *Config) error {
		c.DisplayName = ""
		c.Put(Joined{MeshID: "m1", Slug: "acme", Name: "renewed"})
		c.Put(Joined{MeshID: "m2", Slug: "beta"})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var raw struct {
		Meshes      []map[string]any
		DisplayName *string
		FutureKey   []any
	}
	if err := json.Unmarshal([]byte(readFile(t, path)), &raw); err != nil {
		t.Fatal(err)
	}
	if len(raw.Meshes) != 2 || raw.Meshes[0]["color"] == nil || raw.Meshes[0]["name"] != "renewed" || raw.Meshes[1]["color"] != nil {
		t.Errorf("meshes: %v", raw.Meshes)
	}
	if raw.DisplayName != nil || len(raw.FutureKey) != 3 {
		t.Errorf("top level: %v", raw)
	}
	// Another mesh under the slug is another entry; the old one's keys are not its.
	err = UpdateConfig(dir, func(c *Config) error { c.Put(Joined{MeshID: "m9", Slug: "acme"}); return nil })
	if text := readFile(t, path); err != nil || strings.Contains(text, "color") || !strings.Contains(text, "futureKey") {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestCorruptConfigIsAnErrorAndStaysAsItIs(t *testing.T) {
	for name, text := range map[string]string{
		"an empty file":             "",
		"no JSON":                   "{",
		"a tail":                    "{} x",
		"an array":                  "[]",
		"null":                      "null",
		"a string":                  `"x"`,
		"meshes an object":          `{"meshes":{}}`,
		"meshes null":               `{"meshes":null}`,
		"meshes a string":           `{"meshes":"x"}`,
		"a mesh that is a number":   `{"meshes":[1]}`,
		"a mesh that is null":       `{"meshes":[null]}`,
		"a slug that is a number":   `{"meshes":[{"slug":12345}]}`,
		"a secret that is a number": `{"meshes":[{"secretKey":424242}]}`,
		"a newer version":           `{"version":2,"meshes":[]}`,
		"a version that is a word":  `{"version":"1"}`,
		"groups that are words":     `{"groups":["a"]}`,
		"more than 4 MiB":           `{"x":"` + strings.Repeat("x", maxConfig) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := writeConfig(t, dir, text)
			_, err := LoadConfig(dir)
			if !errors.Is(err, ErrConfigCorrupt) || strings.Count(err.Error(), ErrConfigCorrupt.Error()) != 1 {
				t.Errorf("load: %v", err)
			}
			if err != nil && (strings.Contains(err.Error(), "424242") || len(err.Error()) > 400) {
				t.Errorf("the error quotes the file: %v", err)
			}
			err = UpdateConfig(dir, func(*Config) error { t.Error("edit was called"); return nil })
			if !errors.Is(err, ErrConfigCorrupt) {
				t.Errorf("update: %v", err)
			}
			if readFile(t, path) != text {
				t.Error("the file was changed")
			}
		})
	}
	t.Run("a directory", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "config.json"), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadConfig(dir); !errors.Is(err, ErrConfigCorrupt) {
			t.Errorf("load: %v", err)
		}
	})
}

func TestMissingConfigIsEmpty(t *testing.T) {
	c, err := LoadConfig(filepath.Join(t.TempDir(), "never", "made"))
	if err != nil || len(c.Meshes) != 0 {
		t.Errorf("%v, %v", c, err)
	}
	for _, text := range []string{`{}`, `{"version":1}`} {
		dir := t.TempDir()
		writeConfig(t, dir, text)
		if c, err := LoadConfig(dir); err != nil || len(c.Meshes) != 0 {
			t.Errorf("%s: %v, %v", text, c, err)
		}
	}
}

func TestUpdateMakesPrivateFilesInAPrivateDirectory(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows protects by access lists")
	}
	// A directory elsewhere on the same disk must not receive the temporary file.
	t.Setenv("TMPDIR", t.TempDir())
	root := t.TempDir()
	open := filepath.Join(root, "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	writeConfig(t, open, "{}")
	if err := os.Chmod(filepath.Join(open, "config.json"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"a new directory": filepath.Join(root, "a", "b"), "an open one": open} {
		t.Run(name, func(t *testing.T) {
			if err := UpdateConfig(dir, func(c *Config) error { c.Put(Joined{Slug: "acme"}); return nil }); err != nil {
				t.Fatal(err)
			}
			for file, want := range map[string]fs.FileMode{"": 0o700, "config.json": 0o600, "config.json.lock": 0o600} {
				info, err := os.Stat(filepath.Join(dir, file))
				if err != nil {
					t.Fatal(err)
				}
				if info.Mode().Perm() != want {
					t.Errorf("%q is %o, want %o", file, info.Mode().Perm(), want)
				}
			}
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 2 {
				t.Errorf("left behind: %v, %v", entries, err)
			}
		})
	}
	t.Run("a shared one is refused and stays open", func(t *testing.T) {
		shared := filepath.Join(root, "shared")
		if err := os.Mkdir(shared, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(shared, 0o777|fs.ModeSticky); err != nil {
			t.Fatal(err)
		}
		if err := UpdateConfig(shared, func(*Config) error { return nil }); err == nil {
			t.Error("not refused")
		}
		if info, err := os.Stat(shared); err != nil || info.Mode().Perm() != 0o777 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	})
}

func TestRefusedEditWritesNothing(t *testing.T) {
	dir := t.TempDir()
	path := writeConfig(t, dir, sampleConfig)
	no := errors.New("no")
	if err := UpdateConfig(dir, func(c *Config) error { c.Meshes = nil; return no }); err != no {
		t.Errorf("got %v", err)
	}
	if readFile(t, path) != sampleConfig {
		t.Error("the file was changed")
	}
	t.Run("and neither does a panic, which also frees the lock", func(t *testing.T) {
		func() {
			defer func() { recover() }()
			UpdateConfig(dir, func(*Config) error { panic("edit") })
		}()
		if err := UpdateConfig(dir, func(*Config) error { return nil }); err != nil {
			t.Error(err)
		}
		if readFile(t, path) != sampleConfig {
			t.Error("the file was changed")
		}
	})
}

func TestConcurrentUpdatesLoseNothingAndAreNeverSeenHalf(t *testing.T) {
	dir := t.TempDir()
	const writers, each = 8, 5
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				err := UpdateConfig(dir, func(c *Config) error {
					c.Put(Joined{Slug: fmt.Sprintf("m-%d-%d", w, i)})
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				if _, err := LoadConfig(dir); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if c, err := LoadConfig(dir); err != nil || len(c.Meshes) != writers*each {
		t.Errorf("%d entries, %v", len(c.Meshes), err)
	}
}

func TestConfigEntries(t *testing.T) {
	var c Config
	c.Put(Joined{Slug: "a", Name: "1"})
	c.Put(Joined{Slug: "b"})
	c.Put(Joined{Slug: "a", Name: "2"})
	if got := fmt.Sprint(c.Slugs()); got != "[a b]" {
		t.Errorf("slugs %s", got)
	}
	if j, ok := c.Mesh("a"); !ok || j.Name != "2" {
		t.Error("the entry was not replaced")
	}
	if _, ok := c.Mesh("c"); ok {
		t.Error("an entry nobody put")
	}
	if !c.Remove("a") || c.Remove("a") || fmt.Sprint(c.Slugs()) != "[b]" {
		t.Errorf("after removal: %v", c.Slugs())
	}
}

func TestJoinedIdentity(t *testing.T) {
	a, b := fixedIdentity(t, 1), fixedIdentity(t, 2)
	good := Joined{Slug: "acme", Pubkey: a.PublicKey(), SecretKey: a.SecretHex()}
	if id, err := good.Identity(); err != nil || id.PublicKey() != a.PublicKey() {
		t.Errorf("%v, %v", id, err)
	}
	for name, j := range map[string]Joined{
		"another public key": {Slug: "acme", Pubkey: b.PublicKey(), SecretKey: a.SecretHex()},
		"no secret":          {Slug: "acme", Pubkey: a.PublicKey()},
	} {
		if id, err := j.Identity(); !errors.Is(err, ErrBadSecret) || !id.IsZero() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A model of the file as a plain map: whatever a version of this program does not
// know must come through an update, at both levels.
func TestConfigRoundTripKeepsEveryKey(t *testing.T) {
	known := []string{"meshId", "memberId", "slug", "name", "pubkey", "secretKey", "brokerUrl", "joinedAt"}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(0, 8, -1)
		extra := func(label string) map[string]any {
			m := rapid.MapOfN(rapid.Map(text, func(s string) string { return "x" + s }), rapid.OneOf(
				rapid.Map(text, func(s string) any { return s }), rapid.Map(rapid.Float64(), func(f float64) any { return f }),
				rapid.Just[any](nil), rapid.Just[any](map[string]any{"a": []any{true, "<&>"}})), 0, 3).Draw(t, label)
			return m
		}
		var meshes []any
		for range rapid.IntRange(0, 3).Draw(t, "meshes") {
			m := extra("mesh keys")
			for _, k := range known {
				m[k] = text.Draw(t, k)
			}
			meshes = append(meshes, m)
		}
		model := extra("top keys")
		model["version"] = 1.0
		model["meshes"] = meshes
		if name := text.Draw(t, "display name"); name != "" {
			model["displayName"] = name
		}
		if meshes == nil {
			model["meshes"] = []any{}
		}
		before, err := json.Marshal(model)
		if err != nil {
			t.Fatal(err)
		}
		c, err := parseConfig(before)
		if err != nil {
			t.Fatalf("%s: %v", before, err)
		}
		after, err := formatConfig(c)
		if err != nil {
			t.Fatal(err)
		}
		var got, want map[string]any
		if json.Unmarshal(after, &got) != nil || json.Unmarshal(before, &want) != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%s\nbecame\n%s", before, after)
		}
	})
}
