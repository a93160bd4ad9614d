//go:build !linux && !darwin && !windows

package service

// Host is the service manager of this system: none that we know. The daemon starts with the first command that needs it.
func Host(func(string) string, Runner) (*Manager, error) { return nil, ErrUnsupported }
