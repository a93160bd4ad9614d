package urlhandler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const desktopName = "claudemesh.desktop"

func (h Handler) dir() string {
	if h.DataHome != "" {
		return filepath.Join(h.DataHome, "applications")
	}
	return filepath.Join(h.Home, ".local", "share", "applications")
}

// Install writes the desktop file and makes it the default for the scheme, where the desktop's tools are there.
func (h Handler) Install(ctx context.Context) (r Result, err error) {
	path := filepath.Join(h.dir(), desktopName)
	if err := os.MkdirAll(h.dir(), 0o755); err != nil {
		return r, fmt.Errorf("install link handler: %w", err)
	}
	if err := os.WriteFile(path, []byte(desktopEntry(h.Binary)), 0o644); err != nil {
		return r, fmt.Errorf("install link handler: %w", err)
	}
	r.Files = []string{path}
	if _, err := h.Run(ctx, "xdg-mime", "default", desktopName, "x-scheme-handler/"+Scheme); err != nil {
		r.Notes = append(r.Notes, "xdg-mime is not here or failed: links open when the desktop reads "+path)
	}
	return h.refresh(ctx, r), nil
}

// Uninstall removes the file. It is no error when there is none.
func (h Handler) Uninstall(ctx context.Context) (r Result, err error) {
	path := filepath.Join(h.dir(), desktopName)
	switch err := os.Remove(path); {
	case errors.Is(err, fs.ErrNotExist):
		return r, nil
	case err != nil:
		return r, fmt.Errorf("remove link handler: %w", err)
	}
	r.Files = []string{path}
	return h.refresh(ctx, r), nil
}

// refresh has the desktop read its applications again. Where the tool is missing, it does so by itself sooner or later.
func (h Handler) refresh(ctx context.Context, r Result) Result {
	_, _ = h.Run(ctx, "update-desktop-database", h.dir())
	return r
}
