//go:build unix

package claude

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// apiKey opens nothing: the stub takes any.
const apiKey = "sk-ant-test-0000000000000000000000000000000000000000"

// Home is a HOME with a configuration with which the client starts without a question, a project in it, and the client's API.
type Home struct {
	T       testing.TB
	Dir     string
	Project string
	API     *API
	Bin     string // of Programs
	Real    string // the real client, "" for the scripted one

	env []string
}

// NewHome prepares dir, which must exist and have a short name. The client is the real one when real is not "". The names in
// programs are for [Programs].
func NewHome(t testing.TB, dir, real string, programs ...string) *Home {
	t.Helper()
	h := &Home{T: t, Dir: dir, Project: filepath.Join(dir, "p"), API: NewAPI(t), Bin: Programs(t, programs...), Real: real}
	h.write(".claude.json", map[string]any{
		"hasCompletedOnboarding": true, "hasSeenAutoDefaultNotice": true, "bypassPermissionsModeAccepted": true,
		"customApiKeyResponses": map[string]any{"approved": []string{apiKey[len(apiKey)-20:]}, "rejected": []string{}},
		"projects":              map[string]any{h.Project: map[string]any{"hasTrustDialogAccepted": true}},
	})
	for _, d := range []string{"p", "t", ".claude"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	h.env = []string{
		"HOME=" + dir, "PATH=" + h.Bin + ":/usr/local/bin:/usr/bin:/bin", "TERM=xterm-256color", "LANG=C.UTF-8", "SHELL=/bin/sh", "USER=ada",
		// Short: sockets go below it.
		"TMPDIR=" + filepath.Join(dir, "t"),
		"ANTHROPIC_API_KEY=" + apiKey, "ANTHROPIC_BASE_URL=" + h.API.URL(),
		// Root may use bypass mode in a sandbox only; and nothing but the stub is to be asked.
		"IS_SANDBOX=1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1", "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL=1",
		EnvBin + "=" + h.Client(),
		// Programs that are built with the race detector would take a second to end.
		"GORACE=atexit_sleep_ms=0",
	}
	return h
}

// Client is the path of the client.
func (h *Home) Client() string {
	if h.Real != "" {
		return h.Real
	}
	return filepath.Join(h.Bin, nameFake)
}

// Mesh is the path of the program claudemesh.
func (h *Home) Mesh() string { return filepath.Join(h.Bin, nameMesh) }

// Setenv adds to the environment of what is started from now on.
func (h *Home) Setenv(kv ...string) { h.env = append(h.env, kv...) }

// Environ is the environment of what is started here: nothing of the test's own.
func (h *Home) Environ() []string { return slices.Clone(h.env) }

// Settings writes the user's settings.json.
func (h *Home) Settings(v any) { h.write(filepath.Join(".claude", "settings.json"), v) }

// write makes a file of the HOME.
func (h *Home) write(name string, v any) {
	h.T.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		h.T.Fatal(err)
	}
	path := filepath.Join(h.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		h.T.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		h.T.Fatal(err)
	}
}
