//go:build unix

package fake

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// args are the flags that the client was started with.
type args struct {
	session, resume string
	cont            bool
	mcpConfig       []string
	strictMCP       bool
	settings        string
	channels        []string // of --dangerously-load-development-channels and --channels
	debugFile       string
	appendSystem    string
	version         bool
}

// parseArgs reads the flags of the real client that claudemesh or a test gives it; a flag that it does not know is an error there, too.
func parseArgs(argv []string) (a args, err error) {
	many := map[string]*[]string{"--mcp-config": &a.mcpConfig, "--dangerously-load-development-channels": &a.channels, "--channels": &a.channels, "--allowedTools": nil, "--add-dir": nil}
	one := map[string]*string{
		"--session-id": &a.session, "--resume": &a.resume, "-r": &a.resume, "--settings": &a.settings, "--debug-file": &a.debugFile,
		"--append-system-prompt": &a.appendSystem, "--system-prompt": nil, "--permission-mode": nil, "--setting-sources": nil, "--name": nil, "-n": nil, "--model": nil,
		"--system-prompt-snapshot": nil,
	}
	flag := map[string]*bool{
		"--continue": &a.cont, "-c": &a.cont, "--strict-mcp-config": &a.strictMCP, "--dangerously-skip-permissions": nil, "--version": &a.version, "-v": &a.version, "--verbose": nil,
	}
	for i := 0; i < len(argv); i++ {
		name, value, joined := strings.Cut(argv[i], "=")
		if !strings.HasPrefix(name, "-") {
			continue // a first prompt: none of ours gives one
		}
		if to, ok := flag[name]; ok {
			if to != nil {
				*to = true
			}
			continue
		}
		toOne, isOne := one[name]
		toMany, isMany := many[name]
		if !isOne && !isMany {
			return a, fmt.Errorf("error: unknown option '%s'", name)
		}
		if !joined {
			if i++; i == len(argv) {
				return a, fmt.Errorf("error: option '%s' argument missing", name)
			}
			value = argv[i]
		}
		if isOne {
			if toOne != nil {
				*toOne = value
			}
			continue
		}
		values := []string{value}
		for !joined && i+1 < len(argv) && !strings.HasPrefix(argv[i+1], "-") {
			i++
			values = append(values, argv[i])
		}
		if toMany != nil {
			*toMany = append(*toMany, values...)
		}
	}
	if a.session != "" {
		if _, err := uuid.Parse(a.session); err != nil {
			return a, errors.New("error: invalid session ID, must be a valid UUID")
		}
	}
	return a, nil
}
