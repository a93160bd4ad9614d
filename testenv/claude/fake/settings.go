//go:build unix

package fake

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// settings are what this client reads of a settings file.
type settings struct {
	Hooks map[string][]hookGroup `json:"hooks"`
}

// hookGroup is the hooks for some tools, or all.
type hookGroup struct {
	Matcher string `json:"matcher"`
	Hooks   []hook `json:"hooks"`
}

// hook is a command. Timeout is in seconds.
type hook struct {
	Type        string `json:"type"`
	Command     string `json:"command"`
	Timeout     int    `json:"timeout"`
	Async       bool   `json:"async"`
	AsyncRewake bool   `json:"asyncRewake"`
}

// server is how an MCP server is started.
type server struct {
	Type    string            `json:"type"`
	Command string            `json:"command"`
	Args    []string          `json:"args"`
	Env     map[string]string `json:"env"`
}

type mcpConfig struct {
	Servers map[string]server `json:"mcpServers"`
}

// inlineOrFile reads JSON that is given as text or as the name of a file. What does not parse as JSON is taken for a name.
func inlineOrFile(what, value string, v any) error {
	if json.Unmarshal([]byte(value), v) == nil {
		return nil
	}
	b, err := os.ReadFile(value)
	if err != nil {
		return fmt.Errorf("Error: %s file not found: %s", what, value)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("Error: %s file is not JSON: %w", what, err)
	}
	return nil
}

// readFile reads JSON of the user's; a file that is not there holds nothing.
func readFile(path string, v any) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// loadHooks are those of the user, of the project and of the command line, all of which run.
func loadHooks(home, project, inline string) (map[string][]hookGroup, error) {
	all := map[string][]hookGroup{}
	var given settings
	if inline != "" {
		if err := inlineOrFile("Settings", inline, &given); err != nil {
			return nil, err
		}
	}
	var user, local settings
	if err := errors.Join(readFile(filepath.Join(home, ".claude", "settings.json"), &user), readFile(filepath.Join(project, ".claude", "settings.json"), &local)); err != nil {
		return nil, err
	}
	for _, s := range []settings{user, local, given} {
		for event, groups := range s.Hooks {
			all[event] = append(all[event], groups...)
		}
	}
	return all, nil
}

// loadServers are those of the command line and, unless strict, of the user.
func loadServers(home string, a args) (map[string]server, error) {
	all := mcpConfig{Servers: map[string]server{}}
	if !a.strictMCP {
		if err := readFile(filepath.Join(home, ".claude.json"), &all); err != nil {
			return nil, err
		}
	}
	for _, value := range a.mcpConfig {
		var given mcpConfig
		if err := inlineOrFile("MCP config", value, &given); err != nil {
			return nil, err
		}
		for name, s := range given.Servers {
			all.Servers[name] = s
		}
	}
	return all.Servers, nil
}

// variable is ${NAME} or ${NAME:-default}.
var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}`)

// expand puts variables of the environment into a text of the MCP configuration.
func expand(s string, getenv func(string) string) string {
	return variable.ReplaceAllStringFunc(s, func(found string) string {
		m := variable.FindStringSubmatch(found)
		if v := getenv(m[1]); v != "" || m[2] == "" {
			return v
		}
		return m[3]
	})
}

// projectDir is where the client keeps what belongs to a working directory.
func projectDir(home, cwd string) string {
	return filepath.Join(home, ".claude", "projects", strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, cwd))
}
