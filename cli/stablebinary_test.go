//go:build unix

package cli

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTheBinaryWrittenDownOutlivesAnUpgrade(t *testing.T) {
	dir := t.TempDir()
	file := func(path string) string {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(path), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cellar, other, passing, odd := file("cellar/1.2/claudemesh"), file("other/claudemesh"), file("go-build12/b001/exe/claudemesh"), file("odd/cm")
	link := filepath.Join(dir, "bin", "claudemesh")
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(cellar, link); err != nil {
		t.Fatal(err)
	}
	bin, others := filepath.Dir(link), filepath.Dir(other)
	for name, c := range map[string]struct {
		exe, path, want string // "" for a refusal
		onPath          bool
	}{
		"the link on PATH is better than the file":   {cellar, "/nowhere:" + bin, link, true},
		"another program of the name comes first":    {cellar, others + ":" + bin, cellar, false},
		"nothing on PATH":                            {cellar, "/nowhere", cellar, false},
		"a relative PATH is not followed":            {cellar, "bin", cellar, false},
		"go run's program is gone soon":              {passing, bin, "", false},
		"a name that the skill does not know":        {odd, bin, "", false},
		"go run's, but the same program is on PATH":  {passing, filepath.Dir(passing), "", false},
		"the program itself, in a directory of PATH": {other, others, other, true},
	} {
		t.Run(name, func(t *testing.T) {
			e := hostEnv(nil)
			e.executable = func() (string, error) { return c.exe, nil }
			e.getenv = func(string) string { return c.path }
			got, onPath, err := (&call{app: &app{env: e}}).stableBinary()
			if got != c.want || onPath != c.onPath || (err == nil) != (c.want != "") {
				t.Errorf("%q, %v, %v", got, onPath, err)
			}
		})
	}
}
