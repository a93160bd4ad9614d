package claudeconf

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/tailscale/hujson"
)

// What a client needs of us that was not installed, given on its command line. There is no secret in it: everybody on the machine can read that line.

// InlineConfig is the text for the client's --mcp-config.
func InlineConfig(binary string) (string, error) {
	return inline(map[string]any{"mcpServers": map[string]server{ServerName: {Type: "stdio", Command: binary, Args: []string{"mcp"}}}})
}

// InlineSettings is the text for the client's --settings: our hooks.
func InlineSettings(binary string) (string, error) {
	hooks := map[string][]group{}
	for _, event := range events() {
		hooks[event] = []group{hooksOf(binary, event)}
	}
	return inline(map[string]any{"hooks": hooks})
}

func inline(v any) (string, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encode for the client: %w", err)
	}
	return string(text), nil
}

// HasServer reports whether a client that runs in project finds our MCP server in its configuration: the user's, or the one it keeps for that project.
// A file that cannot be understood has nothing in it.
func (f Files) HasServer(project string) bool {
	type servers struct {
		Servers map[string]json.RawMessage `json:"mcpServers"`
	}
	var config struct {
		servers
		Projects map[string]servers `json:"projects"`
	}
	readLoosely(f.Config, &config)
	_, user := config.Servers[ServerName]
	_, here := config.Projects[project].Servers[ServerName]
	return user || here
}

// HasHooks reports whether the client's settings have a hook of ours.
func (f Files) HasHooks() bool {
	var settings struct {
		Hooks map[string][]group `json:"hooks"`
	}
	readLoosely(f.Settings, &settings)
	for _, groups := range settings.Hooks {
		for _, g := range groups {
			if slices.ContainsFunc(g.Hooks, func(h hook) bool { return isHook(h.Command) }) {
				return true
			}
		}
	}
	return false
}

// readLoosely decodes what it can of a file.
func readLoosely(path string, into any) {
	text, absent, err := readFile(path)
	if absent || err != nil || len(text) > maxBytes || depth(text) > maxDepth {
		return
	}
	if text, err = hujson.Standardize(text); err == nil {
		_ = json.Unmarshal(text, into) // what is of another shape is not ours
	}
}
