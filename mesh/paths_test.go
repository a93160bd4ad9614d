package mesh

import (
	"errors"
	"path/filepath"
	"testing"
)

func TestDirectories(t *testing.T) {
	root := t.TempDir()
	home, other := filepath.Join(root, "home"), filepath.Join(root, "other")
	for name, c := range map[string]struct {
		env            map[string]string
		config, daemon string // "" means an error
	}{
		"both are below home": {
			map[string]string{"HOME": home},
			filepath.Join(home, ".claudemesh"), filepath.Join(home, ".claudemesh", "daemon"),
		},
		"the daemon does not follow a session's config directory": {
			map[string]string{"HOME": home, "CLAUDEMESH_CONFIG_DIR": other},
			other, filepath.Join(home, ".claudemesh", "daemon"),
		},
		"the daemon directory can be moved alone": {
			map[string]string{"HOME": home, "CLAUDEMESH_DAEMON_DIR": other + string(filepath.Separator)},
			filepath.Join(home, ".claudemesh"), other,
		},
		"Windows names its home otherwise": {
			map[string]string{"USERPROFILE": home},
			filepath.Join(home, ".claudemesh"), filepath.Join(home, ".claudemesh", "daemon"),
		},
		"no home is needed when both are named": {
			map[string]string{"CLAUDEMESH_CONFIG_DIR": home, "CLAUDEMESH_DAEMON_DIR": other}, home, other,
		},
		"relative overrides are refused": {
			map[string]string{"HOME": home, "CLAUDEMESH_CONFIG_DIR": "x", "CLAUDEMESH_DAEMON_DIR": "./y"}, "", "",
		},
		"so is a relative home":    {map[string]string{"HOME": "home"}, "", ""},
		"nothing known is refused": {nil, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			getenv := func(k string) string { return c.env[k] }
			if got, err := ConfigDir(getenv); got != c.config || (err == nil) != (c.config != "") {
				t.Errorf("config in %q, %v; want %q", got, err, c.config)
			}
			if got, err := DaemonDir(getenv); got != c.daemon || (err == nil) != (c.daemon != "") {
				t.Errorf("daemon in %q, %v; want %q", got, err, c.daemon)
			}
		})
	}
	if _, err := ConfigDir(func(string) string { return "" }); !errors.Is(err, ErrNoHome) {
		t.Errorf("got %v", err)
	}
}
