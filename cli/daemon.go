package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/daemon"
	"claudemesh/daemon/spans"
	"claudemesh/mesh"
)

// rooms are the long-running parts of the program that the CLI only starts.
type rooms struct {
	daemon func(context.Context, daemon.Options) error
	broker func(context.Context, daemon.BrokerOptions) error
	store  func(context.Context, daemon.BrokerOptions) error // a broker's, alone
}

// spansLimit is how long a daemon that ends waits for the last spans to be taken.
const spansLimit = 2 * time.Second

// stopLimit is how long daemon down waits for the daemon to be gone.
const stopLimit = 10 * time.Second

func daemonVerb() verb {
	return verb{name: "daemon", short: "the background process that keeps messages and links", subs: []verb{
		daemonUpVerb(), daemonDownVerb(), daemonRestartVerb(), daemonStatusVerb(), daemonLogsVerb(), daemonVersionVerb(), outboxVerb(),
		daemonInstallServiceVerb(), daemonUninstallServiceVerb(), daemonAcceptHostVerb(), daemonRemintVerb(),
	}}
}

func daemonUpVerb() verb {
	return verb{
		name: "up", aliases: []string{"start"}, args: "", short: "start the daemon",
		long: `Starts the daemon in the background and returns when it answers. It is no error when it runs already. Other commands start it by
themselves when they need it. --foreground stays and logs to stderr; it ends with an interrupt.`,
		examples: []string{"claudemesh daemon up", "claudemesh daemon up --foreground --no-tcp"},
		fails:    []string{"1  with --foreground: one runs already", "8  it does not start; its last words are shown", "10  its outbox is damaged; the file is kept"},
		flags: append([]urfave.Flag{
			&urfave.BoolFlag{Name: "foreground", Usage: "stay, and log to stderr"},
			&urfave.BoolFlag{Name: "supervised", Hidden: true, Usage: "with --foreground: end with success where a new start cannot help, for a service manager that starts it again after each failure"},
			&caFlag,
		}, doorFlags()...),
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh daemon up"); err != nil {
				return err
			}
			if c.cmd.Bool("foreground") {
				return c.foreground(ctx)
			}
			return c.up(ctx)
		},
	}
}

// foreground is the daemon itself.
func (c *call) foreground(ctx context.Context) error {
	dir, err := c.daemonDir()
	if err != nil {
		return err
	}
	configDir, err := mesh.ConfigDir(c.getenv)
	if err != nil {
		return err
	}
	ca, err := c.caFile()
	if err != nil {
		return err
	}
	log, path, closeLog, err := c.daemonLog(dir)
	if err != nil {
		return err
	}
	o := daemon.Options{Dir: dir, ConfigDir: configDir, CAFile: ca, Version: c.release, Args: c.upArgs(), LogPath: path, Log: log}
	c.doors(&o)
	o.Spans = spans.FromEnv(c.getenv, c.release, log)
	err = c.rooms.daemon(ctx, o)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), spansLimit)
	defer cancel()
	if err = errors.Join(err, o.Spans.Close(last), closeLog()); err != nil && c.cmd.Bool("supervised") {
		if f := explain(err); slices.Contains(hopeless(), f.Exit) {
			c.ui.fail(f)
			return nil
		}
	}
	return err
}

// hopeless are the exit codes of a daemon that a new start cannot cure: another daemon runs, its arguments are wrong, its files are of another host or damaged.
func hopeless() []int { return []int{exitFailed, exitUsage, exitConflict, exitIO} }

// upArgs are the flags of daemon up that a daemon in the place of this one needs, too.
func (c *call) upArgs() (out []string) {
	for _, f := range c.cmd.Flags {
		name := f.Names()[0]
		if name != "foreground" && c.cmd.IsSet(name) {
			out = append(out, fmt.Sprintf("--%s=%v", name, c.cmd.Value(name)))
		}
	}
	return out
}

func (c *call) up(ctx context.Context) error {
	dir, err := c.daemonDir()
	if err != nil {
		return err
	}
	begin := c.clock.Now()
	started := false
	if !bus.Held(dir) {
		args := c.doorArgs()
		ca, err := c.caFile()
		if err != nil {
			return err
		}
		if ca != "" {
			args = append(args, "--ca-file="+ca)
		}
		if started, err = c.spawn(ctx, dir, spawnOptions{args: args, force: true, limit: startLimit}); err != nil {
			return err
		}
	}
	n, err := c.reach(ctx, dir, startLimit)
	if err != nil {
		return err
	}
	defer n.Close()
	var v bus.Version
	if err := n.daemon(ctx, bus.OpVersion, nil, &v); err != nil {
		return err
	}
	log := filepath.Join(dir, logFile)
	out := struct {
		OK             bool   `json:"ok"`
		PID            int    `json:"pid"`
		Detached       bool   `json:"detached"`
		AlreadyRunning bool   `json:"already_running"`
		Version        string `json:"version"`
		Log            string `json:"log"`
	}{true, v.PID, true, !started, v.Version, log}
	return c.ui.result(out, func() error {
		if !started {
			return c.ui.print("the daemon runs already (pid %d)", v.PID)
		}
		return c.ui.print("the daemon is up (pid %d, took %d ms)\n  log  %s", v.PID, c.clock.Since(begin).Milliseconds(), log)
	})
}

func daemonDownVerb() verb {
	return verb{
		name: "down", aliases: []string{"stop"}, args: "", short: "stop the daemon",
		long:     `Asks the daemon to stop and waits until it is gone. It is no error when none runs. What was accepted is kept.`,
		examples: []string{"claudemesh daemon down"},
		fails:    []string{"7  sessions may not stop it", "8  it did not stop within 10 seconds"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh daemon down"); err != nil {
				return err
			}
			pid, err := c.down(ctx)
			if err != nil {
				return err
			}
			if pid == 0 {
				return c.ui.result(map[string]any{"ok": true, "stopped": false, "reason": "not_running"}, func() error { return c.ui.print("the daemon is not running") })
			}
			return c.ui.result(map[string]any{"ok": true, "stopped": true, "pid": pid}, func() error { return c.ui.print("the daemon is stopped (pid %d)", pid) })
		},
	}
}

// down stops the daemon and returns its pid, 0 when none ran.
func (c *call) down(ctx context.Context) (pid int, err error) {
	dir, err := c.daemonDir()
	if err != nil || !bus.Held(dir) {
		return 0, err
	}
	pid, err = c.requestStop(ctx, dir)
	switch {
	case errors.Is(err, bus.ErrNoDaemon), errors.Is(err, bus.ErrInterrupted):
		// It was on its way out, or went before it could answer.
	case refusal(err):
		return 0, err
	case err != nil:
		// It does not answer. The lock says that it lives; only then its pid may be believed.
		info, infoErr := bus.ReadInfo(dir)
		if infoErr != nil || !bus.Held(dir) {
			break
		}
		pid = info.PID
		if err := terminate(pid); err != nil {
			return 0, fmt.Errorf("stop daemon (pid %d): %w", pid, err)
		}
	}
	limit := c.clock.NewTimer(stopLimit)
	defer limit.Stop()
	for bus.Held(dir) {
		select {
		case <-ctx.Done():
			return 0, errCancelled
		case <-limit.Chan():
			return 0, &stopError{pid}
		case <-c.clock.After(pollEvery):
		}
	}
	if pid == 0 {
		pid = -1 // it ran, and nobody knows its number any more
	}
	return pid, nil
}

func (c *call) requestStop(ctx context.Context, dir string) (int, error) {
	n, err := c.reach(ctx, dir, startLimit)
	if err != nil {
		return 0, err
	}
	defer n.Close()
	var v bus.Version
	if err := n.daemon(ctx, bus.OpVersion, nil, &v); err != nil {
		return 0, err
	}
	return v.PID, n.daemon(ctx, bus.OpShutdown, nil, nil)
}

// refusal reports whether a daemon answered, and said no.
func refusal(err error) bool {
	var api *bus.APIError
	return errors.As(err, &api) || errors.Is(err, bus.ErrDenied) || errors.Is(err, bus.ErrUnauthorized)
}

// stopError: the daemon was asked to stop and still holds its lock.
type stopError struct{ pid int }

func (e *stopError) Error() string {
	return fmt.Sprintf("the daemon (pid %d) was asked to stop and is still there after %s", e.pid, stopLimit)
}

func daemonRestartVerb() verb {
	return verb{
		name: "restart", args: "", short: "stop the daemon and start it again",
		long:     `Sessions stay registered, and accepted messages are kept. It starts the daemon when none ran.`,
		examples: []string{"claudemesh daemon restart"},
		fails:    []string{"7  sessions may not do this", "8  the daemon does not end, or does not start"},
		flags:    []urfave.Flag{&urfave.BoolFlag{Name: "no-tcp", Usage: "no loopback TCP door"}, &caFlag},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh daemon restart"); err != nil {
				return err
			}
			if _, err := c.down(ctx); err != nil {
				return err
			}
			return c.up(ctx)
		},
	}
}
