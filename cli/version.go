package cli

import (
	"context"
	"runtime"
	"runtime/debug"
)

// Version of the program. CLI, daemon and shim are one binary and share it.
const Version = "0.1.0"

func versionVerb() verb {
	return verb{
		name: "version", args: "", short: "print the version",
		examples: []string{"claudemesh version --json"},
		fails:    []string{"3  an unexpected argument"},
		run: func(_ context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh version"); err != nil {
				return err
			}
			return c.version()
		},
	}
}

func (c *call) version() error {
	out := map[string]any{"ok": true, "version": c.release, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				out["revision"] = s.Value
			}
		}
	}
	return c.ui.result(out, func() error { return c.ui.print("claudemesh v%s", c.release) })
}
