package service

import "os"

// Host is the service manager of this system.
func Host(getenv func(string) string, run Runner) (*Manager, error) {
	return Launchd(getenv("HOME"), os.Getuid(), run), nil
}
