package service

import (
	"fmt"
	"os"
)

// Host is the service manager of this system.
func Host(getenv func(string) string, run Runner) (*Manager, error) {
	appData := getenv("APPDATA")
	if appData == "" {
		return nil, fmt.Errorf("%w: APPDATA is not set", ErrUnsupported)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own executable: %w", err)
	}
	return Startup(appData, self, run), nil
}
