package mesh

import (
	"errors"
	"fmt"
	"path/filepath"
)

// ErrNoHome is returned when the environment says neither where the home
// directory is nor where to keep the files instead.
var ErrNoHome = errors.New("home directory unknown: set HOME")

// ConfigDir returns the absolute directory of config.json: CLAUDEMESH_CONFIG_DIR,
// else ~/.claudemesh. getenv is os.Getenv outside tests. A relative override is an
// error, because it would name another directory in every process that inherits it.
func ConfigDir(getenv func(string) string) (string, error) {
	return dirFrom(getenv, "CLAUDEMESH_CONFIG_DIR", ".claudemesh")
}

// DaemonDir returns the absolute directory of the daemon: CLAUDEMESH_DAEMON_DIR,
// else ~/.claudemesh/daemon. It never follows CLAUDEMESH_CONFIG_DIR: launched
// sessions have that set to a private directory and must still find the one
// daemon of the user.
func DaemonDir(getenv func(string) string) (string, error) {
	return dirFrom(getenv, "CLAUDEMESH_DAEMON_DIR", ".claudemesh", "daemon")
}

func dirFrom(getenv func(string) string, override string, below ...string) (string, error) {
	if dir := getenv(override); dir != "" {
		if !filepath.IsAbs(dir) {
			return "", fmt.Errorf("%s must be an absolute path, not %q", override, dir)
		}
		return filepath.Clean(dir), nil
	}
	home := getenv("HOME")
	if home == "" {
		home = getenv("USERPROFILE") // Windows
	}
	if home == "" {
		return "", ErrNoHome
	}
	if !filepath.IsAbs(home) {
		return "", fmt.Errorf("home directory must be an absolute path, not %q", home)
	}
	return filepath.Join(append([]string{home}, below...)...), nil
}
