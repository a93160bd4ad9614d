package urlhandler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const lsregister = "/System/Library/Frameworks/CoreServices.framework/Frameworks/LaunchServices.framework/Support/lsregister"

func (h Handler) app() string {
	return filepath.Join(h.Home, "Library", "Application Support", "claudemesh", "ClaudemeshHandler.app")
}

// Install compiles the application, names the scheme in its Info.plist, and registers it.
func (h Handler) Install(ctx context.Context) (r Result, err error) {
	app := h.app()
	if err := os.MkdirAll(filepath.Dir(app), 0o700); err != nil {
		return r, fmt.Errorf("install link handler: %w", err)
	}
	if err := os.RemoveAll(app); err != nil {
		return r, fmt.Errorf("install link handler: %w", err)
	}
	if out, err := h.Run(ctx, "/usr/bin/osacompile", "-o", app, "-e", appleScript(h.Binary)); err != nil {
		return r, fmt.Errorf("install link handler: compile: %w: %.200s", err, out)
	}
	for _, edit := range plistEdits() {
		if out, err := h.Run(ctx, "/usr/libexec/PlistBuddy", "-c", edit, filepath.Join(app, "Contents", "Info.plist")); err != nil {
			return r, fmt.Errorf("install link handler: %s: %w: %.200s", edit, err, out)
		}
	}
	r.Files = []string{app}
	if _, err := h.Run(ctx, lsregister, "-f", app); err != nil {
		r.Notes = append(r.Notes, "the application could not be registered; open it once by hand: "+app)
	}
	return r, nil
}

// Uninstall removes the application. It is no error when there is none.
func (h Handler) Uninstall(ctx context.Context) (r Result, err error) {
	app := h.app()
	if _, err := os.Stat(app); errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	_, _ = h.Run(ctx, lsregister, "-u", app) // what is gone is forgotten by itself
	if err := os.RemoveAll(app); err != nil {
		return r, fmt.Errorf("remove link handler: %w", err)
	}
	return Result{Files: []string{app}}, nil
}
