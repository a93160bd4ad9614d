package service

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// commandLimit bounds one command of the service manager: it stops services, too.
const commandLimit = 30 * time.Second

// Run is the Runner of the real world. environ is what the command gets. Its error ends with what the command printed last.
func Run(environ []string) Runner {
	return func(ctx context.Context, name string, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, commandLimit)
		defer cancel()
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Env = environ
		out, err := cmd.CombinedOutput()
		if err != nil {
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			return string(out), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, lines[len(lines)-1])
		}
		return string(out), nil
	}
}
