package service

import "path/filepath"

// Host is the service manager of this system.
func Host(getenv func(string) string, run Runner) (*Manager, error) {
	config := getenv("XDG_CONFIG_HOME")
	if config == "" {
		config = filepath.Join(getenv("HOME"), ".config")
	}
	return Systemd(config, run), nil
}
