//go:build unix

package fake

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"time"
)

// hookLimit is how long a hook may take that says nothing else.
const hookLimit = 60 * time.Second

// hookRunner starts hooks and keeps those that go on by themselves.
type hookRunner struct {
	groups map[string][]hookGroup
	dir    string
	wake   func(hookName, stderr string) // an asyncRewake hook has ended with exit code 2

	mu      sync.Mutex
	waiting map[*exec.Cmd]bool
	tasks   sync.WaitGroup
}

// outcome is what one hook said.
type outcome struct {
	command        string
	code           int
	stdout, stderr string
	context        string // to be given to the model
	block          bool   // Stop: go on
	reason         string
}

// run runs the hooks of an event at once and returns when all have ended but those that are asynchronous. name is the event with what it is about.
func (r *hookRunner) run(ctx context.Context, event, name, tool string, input object, env []string) []outcome {
	stdin, err := json.Marshal(input)
	if err != nil {
		return nil
	}
	var hooks []hook
	for _, g := range r.groups[event] {
		if matches(g.Matcher, tool) {
			hooks = append(hooks, g.Hooks...)
		}
	}
	all := make([]outcome, len(hooks))
	var wait sync.WaitGroup
	for i, h := range hooks {
		switch {
		case h.Type != "command":
		case h.Async || h.AsyncRewake:
			r.startAsync(h, name, stdin, env)
		default:
			wait.Go(func() { all[i] = r.runOne(ctx, h, event, stdin, env) })
		}
	}
	wait.Wait()
	return all
}

// matches: a group without a matcher, or with "*", is for every tool.
func matches(matcher, tool string) bool {
	if matcher == "" || matcher == "*" || tool == "" {
		return true
	}
	re, err := regexp.Compile("^(?:" + matcher + ")$")
	return err == nil && re.MatchString(tool)
}

// command is a hook's process: a shell's, in a group of its own.
func (r *hookRunner) command(h hook, stdin []byte, env []string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	cmd = exec.Command("/bin/sh", "-c", h.Command)
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Dir, cmd.Env = r.dir, env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(append(stdin, '\n')), stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = time.Second // a grandchild that keeps the pipe
	return cmd, stdout, stderr
}

func limit(h hook) time.Duration {
	if h.Timeout > 0 {
		return time.Duration(h.Timeout) * time.Second
	}
	return hookLimit
}

// terminate ends a hook and all that it started.
func terminate(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }

func (r *hookRunner) runOne(ctx context.Context, h hook, event string, stdin []byte, env []string) outcome {
	cmd, stdout, stderr := r.command(h, stdin, env)
	o := outcome{command: h.Command}
	if err := cmd.Start(); err != nil {
		o.code, o.stderr = 127, err.Error()
		return o
	}
	end := time.AfterFunc(limit(h), func() { terminate(cmd) })
	defer end.Stop()
	stop := context.AfterFunc(ctx, func() { terminate(cmd) })
	defer stop()
	o.code = exitCode(cmd.Wait())
	o.stdout, o.stderr = stdout.String(), stderr.String()
	if o.code == 2 && event == "Stop" {
		o.block, o.reason = true, o.stderr
	}
	if o.code == 0 {
		o.read(event)
	}
	return o
}

// read understands what a hook printed: JSON, or for two events any text.
func (o *outcome) read(event string) {
	var out struct {
		Decision string `json:"decision"`
		Reason   string `json:"reason"`
		Specific struct {
			Event   string `json:"hookEventName"`
			Context string `json:"additionalContext"`
		} `json:"hookSpecificOutput"`
	}
	if json.Unmarshal([]byte(o.stdout), &out) != nil {
		if event == "UserPromptSubmit" || event == "SessionStart" {
			o.context = o.stdout
		}
		return
	}
	if out.Specific.Event == event {
		o.context = out.Specific.Context
	}
	if event == "Stop" && out.Decision == "block" {
		o.block, o.reason = true, out.Reason
	}
}

// startAsync starts a hook that goes on while the session does.
func (r *hookRunner) startAsync(h hook, name string, stdin []byte, env []string) {
	cmd, _, stderr := r.command(h, stdin, env)
	r.mu.Lock()
	defer r.mu.Unlock()
	if cmd.Start() != nil {
		return
	}
	r.waiting[cmd] = true
	end := time.AfterFunc(limit(h), func() { terminate(cmd) })
	r.tasks.Go(func() {
		code := exitCode(cmd.Wait())
		end.Stop()
		r.mu.Lock()
		delete(r.waiting, cmd)
		r.mu.Unlock()
		if code == 2 && h.AsyncRewake {
			r.wake(name, stderr.String())
		}
	})
}

// stop ends those that still wait, as the client does before it says goodbye.
func (r *hookRunner) stop() {
	r.mu.Lock()
	for cmd := range r.waiting {
		terminate(cmd)
	}
	r.mu.Unlock()
	r.tasks.Wait()
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return 127
}
