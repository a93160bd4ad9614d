package cli

import (
	"errors"
	"os/exec"
	"path/filepath"
)

// envClaude names the client's program when it is not the one on PATH.
const envClaude = "CLAUDE_BIN"

// claude finds Claude Code: what CLAUDE_BIN names, else on PATH, else where its installers put it, which a shell that was open before them does not know.
// What CLAUDE_BIN names and is not there is an error: another program than the one that was asked for is not started.
func (c *call) claude() (string, error) {
	if named := c.getenv(envClaude); named != "" {
		path, err := exec.LookPath(named)
		if err != nil {
			return "", noClaude(envClaude+" names "+quoted(named)+", which cannot be run: "+reason(err), "correct "+envClaude+", or unset it to use the claude on PATH")
		}
		return path, nil
	}
	path, err := exec.LookPath("claude")
	if err == nil {
		return path, nil
	}
	places := []string{"/usr/local/bin/claude"}
	if home := c.getenv("HOME"); home != "" {
		places = []string{filepath.Join(home, ".local", "bin", "claude"), places[0], filepath.Join(home, ".claude", "bin", "claude")}
	}
	for _, place := range places {
		if path, err := exec.LookPath(place); err == nil {
			return path, nil
		}
	}
	return "", noClaude("Claude Code is not there: no program claude on PATH", "install it: npm install -g @anthropic-ai/claude-code\nor name the program: "+envClaude+"=/path/to/claude claudemesh launch")
}

func noClaude(message, hint string) *failure {
	return &failure{Code: "claude_not_found", Message: message, Hint: hint, Exit: exitNoCommand}
}

// reason is why a program cannot be run, without its name.
func reason(err error) string {
	var e *exec.Error
	if errors.As(err, &e) {
		return e.Err.Error()
	}
	return err.Error()
}
