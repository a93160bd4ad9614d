//go:build unix

package claude_test

import (
	"os"
	"path/filepath"
	"testing"

	"claudemesh/testenv/claude"
)

func TestMain(m *testing.M) {
	claude.RunIfProgram()
	if filepath.Base(os.Args[0]) == mcpTest {
		os.Exit(serveTest())
	}
	os.Exit(m.Run())
}

// each runs a test with the scripted client and with the real one, if there is one.
func each(t *testing.T, f func(t *testing.T, real string)) {
	t.Run("scripted client", func(t *testing.T) { f(t, "") })
	t.Run("real client", func(t *testing.T) {
		real := os.Getenv(claude.EnvBin)
		if real == "" {
			t.Skipf("no real client: set %s to the path of Claude Code's program", claude.EnvBin)
		}
		f(t, real)
	})
}
