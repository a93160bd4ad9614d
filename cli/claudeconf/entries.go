package claudeconf

import (
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// ServerName is how the client names our MCP server: channel messages carry it as their source.
const ServerName = "claudemesh"

// Seconds. A hook at a turn boundary is done in milliseconds, and one that waits is meant to wait as long as the session lasts.
const (
	hookTimeout = 10
	waitTimeout = 24 * 60 * 60
)

type server struct {
	Type    string   `json:"type"`
	Command string   `json:"command"`
	Args    []string `json:"args"`
}

type hook struct {
	Type        string `json:"type"`
	Command     string `json:"command"`
	AsyncRewake bool   `json:"asyncRewake,omitempty"`
	Timeout     int    `json:"timeout"`
}

// group is what the client's settings hold per event: hooks, for the tools that match.
type group struct {
	Matcher string `json:"matcher,omitempty"`
	Hooks   []hook `json:"hooks"`
}

type statusLine struct {
	Type    string `json:"type"`
	Command string `json:"command"`
}

// Rules are the permission rules that install adds: what a model needs to take part, and no more than it may say or read anyway. Not among them is whatever
// changes who may do what (join, share, kick, ban, delete, grant), touches files or secrets, or starts a program.
func Rules() []string {
	verbs := []string{"send", "inbox", "peer list", "peers", "info", "state get", "state list", "recall", "topic list", "status set", "trace"}
	rules := make([]string, len(verbs))
	for i, v := range verbs {
		rules[i] = "Bash(claudemesh " + v + ":*)"
	}
	return rules
}

// events are the events with a hook of ours, in the order in which they are put in.
func events() []string {
	return []string{"SessionStart", "UserPromptSubmit", "PostToolUse", "Stop", "Notification", "SessionEnd"}
}

// hooksOf are our hooks for an event: presence tells the daemon what the session does, drain hands over what waits at a turn boundary, wait sits beside an
// idle session and wakes it.
func hooksOf(binary, event string) group {
	short := func(word string) hook {
		return hook{Type: "command", Command: shellQuote(binary) + " hook " + word, Timeout: hookTimeout}
	}
	wait := hook{Type: "command", Command: shellQuote(binary) + " hook wait", AsyncRewake: true, Timeout: waitTimeout}
	switch event {
	case "SessionStart":
		return group{Hooks: []hook{short("presence"), wait}}
	case "UserPromptSubmit":
		return group{Hooks: []hook{short("drain")}}
	case "PostToolUse":
		return group{Matcher: "*", Hooks: []hook{short("drain")}}
	case "Stop":
		return group{Hooks: []hook{short("drain"), wait}}
	}
	return group{Hooks: []hook{short("presence")}}
}

// ours recognises a command of the client's settings that runs this program, wherever it was installed: its words behind the program's name.
func ours(command string) (words string, ok bool) {
	m := regexp.MustCompile(`^\s*(?:'([^']*)'|"([^"]*)"|(\S+))\s+(.*?)\s*$`).FindStringSubmatch(command)
	if m == nil {
		return "", false
	}
	name := m[1] + m[2] + m[3]
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	return m[4], strings.TrimSuffix(name, ".exe") == "claudemesh"
}

// isHook recognises a hook of ours, and of the program that ours replaces (idle, working, dnd).
func isHook(command string) bool {
	words, ok := ours(command)
	if !ok {
		return false
	}
	switch words {
	case "hook presence", "hook drain", "hook wait", "hook idle", "hook working", "hook dnd":
		return true
	}
	return false
}

func isStatusLine(command string) bool {
	words, ok := ours(command)
	return ok && words == "status-line"
}

// shellQuote makes one word of a path for the shell that the client gives commands to.
func shellQuote(path string) string {
	if runtime.GOOS == "windows" {
		return `"` + filepath.ToSlash(path) + `"` // its shell is bash, if there is one, else cmd: both read this
	}
	if regexp.MustCompile(`^[A-Za-z0-9_@%+:,./-]+$`).MatchString(path) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
