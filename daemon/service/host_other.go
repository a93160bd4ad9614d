//go:build !linux && !darwin

package service

// Host is the service manager of this system: none. A service of Windows belongs to the machine and needs an administrator; the daemon starts with the
// first command that needs it.
func Host(func(string) string, Runner) (*Manager, error) { return nil, ErrUnsupported }
