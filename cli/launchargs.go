package cli

import (
	"slices"
	"strings"

	"github.com/google/uuid"

	"claudemesh/cli/claudeconf"
)

// The command line and the environment of Claude Code.

// passedOn is what stood behind "--", with the flags taken out that launch gives itself, because what they say matters to it.
type passedOn struct {
	args      []string
	resume    string
	resumes   bool // --resume, perhaps without a value: the client asks which conversation
	goesOn    bool // --continue
	forks     bool // --fork-session: the conversation gets a new id
	sessionID string
	prompt    bool // a --system-prompt
	settings  bool // a --settings
}

// readPassedOn understands the client's own flags where they overlap with ours.
func readPassedOn(args []string) (p passedOn) {
	for i := 0; i < len(args); i++ {
		name, value, attached := strings.Cut(args[i], "=")
		next := func() string {
			if !attached && i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
				i++
				value = args[i]
			}
			return value
		}
		switch name {
		case "--":
			p.args = append(p.args, args[i:]...)
			return p
		case "--resume", "-r":
			p.resumes, p.resume = true, next()
		case "--continue", "-c":
			p.goesOn = true
		case "--session-id":
			p.sessionID = next()
		case "--dangerously-load-development-channels":
			next()
		case "--fork-session":
			p.forks = true
			p.args = append(p.args, args[i])
		default:
			p.prompt = p.prompt || name == "--system-prompt"
			p.settings = p.settings || name == "--settings"
			p.args = append(p.args, args[i])
		}
	}
	return p
}

// isConversation reports whether a text can be the id of a conversation; the client also takes a name, which says nothing about the key it had.
func isConversation(s string) bool {
	id, err := uuid.Parse(s)
	return err == nil && id.String() == s
}

// clientArgs are the arguments of the client. Those with JSON are of the form --flag=value: the client would take a text behind them for another value.
func (l *launch) clientArgs() ([]string, error) {
	var args []string
	if l.files.HasServer(l.req.Cwd) {
		l.installed = true
	} else {
		config, err := claudeconf.InlineConfig(l.binary)
		if err != nil {
			return nil, err
		}
		args = append(args, "--mcp-config="+config)
	}
	if !l.installed && !l.rest.settings && !l.files.HasHooks() {
		settings, err := claudeconf.InlineSettings(l.binary)
		if err != nil {
			return nil, err
		}
		args = append(args, "--settings="+settings)
	}
	args = append(args, "--dangerously-load-development-channels", "server:"+claudeconf.ServerName)
	if l.newID != "" {
		args = append(args, "--session-id", l.newID)
	}
	switch {
	case l.rest.resumes && l.resume == "":
		args = append(args, "--resume")
	case l.resume != "":
		args = append(args, "--resume", l.resume)
	}
	if l.goesOn {
		args = append(args, "--continue")
	}
	if l.yes && !slices.Contains(l.rest.args, skipPermissions) {
		args = append(args, skipPermissions)
	}
	if l.prompt != "" {
		args = append(args, "--system-prompt", l.prompt)
	}
	return append(args, l.rest.args...), nil
}

const skipPermissions = "--dangerously-skip-permissions"

// Defaults of the client's environment: an MCP server that starts a daemon first is slow to answer, and an inbox is longer than most answers.
const (
	mcpTimeout = "MCP_TIMEOUT=30000"
	mcpOutput  = "MAX_MCP_OUTPUT_TOKENS=50000"
)

// withDefaults adds variables that are not set, or empty.
func withDefaults(environ []string, defaults ...string) []string {
	for _, d := range defaults {
		name, _, _ := strings.Cut(d, "=")
		if !slices.ContainsFunc(environ, func(kv string) bool { return strings.HasPrefix(kv, name+"=") && kv != name+"=" }) {
			environ = append(environ, d)
		}
	}
	return environ
}
