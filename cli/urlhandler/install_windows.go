package urlhandler

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/windows/registry"
)

// Install writes the user's registry.
func (h Handler) Install(context.Context) (r Result, err error) {
	for _, v := range registryValues(h.Binary) {
		key, _, err := registry.CreateKey(registry.CURRENT_USER, v.key, registry.SET_VALUE)
		if err != nil {
			return r, fmt.Errorf("install link handler: %w", err)
		}
		if err := errors.Join(key.SetStringValue(v.name, v.value), key.Close()); err != nil {
			return r, fmt.Errorf("install link handler: %w", err)
		}
	}
	return Result{Files: []string{`HKCU\` + registryRoot}}, nil
}

// Uninstall removes the keys. It is no error when there are none.
func (h Handler) Uninstall(context.Context) (r Result, err error) {
	for _, key := range []string{`\shell\open\command`, `\shell\open`, `\shell`, ""} {
		switch err := registry.DeleteKey(registry.CURRENT_USER, registryRoot+key); {
		case errors.Is(err, registry.ErrNotExist):
		case err != nil:
			return r, fmt.Errorf("remove link handler: %w", err)
		default:
			r.Files = []string{`HKCU\` + registryRoot}
		}
	}
	return r, nil
}
