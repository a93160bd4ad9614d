package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/daemon"
	"claudemesh/daemon/service"
)

// ciError: a machine that is thrown away soon is no place for a service.
type ciError struct{ variable string }

func (e *ciError) Error() string {
	return "this looks like a CI job (" + e.variable + " is set): no service is installed there"
}

// ciVariables are set by the usual CI systems.
func ciVariables() []string {
	return []string{"CI", "GITHUB_ACTIONS", "GITLAB_CI", "BUILDKITE", "CIRCLECI", "JENKINS_URL", "TF_BUILD", "TEAMCITY_VERSION"}
}

func daemonInstallServiceVerb() verb {
	return verb{
		name: "install-service", args: "", short: "start the daemon with your login: systemd, launchd, or the Startup folder of Windows",
		long: `Writes the service's file, stops a daemon that runs, and starts the service. It may be repeated. The service serves every mesh that is
joined, now or later, and logs to daemon.log. On Linux it ends with your last login; to have it always: loginctl enable-linger. A crash is
followed by a new start, after pauses that grow; on Windows by the next command that needs the daemon.

CLAUDEMESH_CONFIG_DIR, CLAUDEMESH_DAEMON_DIR, CLAUDEMESH_CA_FILE and CLAUDEMESH_HOST_ID are kept for the service when they are set. --json prints {"ok", "action", "file"}.`,
		examples: []string{"claudemesh daemon install-service"},
		fails:    []string{"3  this program is a passing one (go run)", "6  this is a CI job, or no service manager runs here", "8  the service does not start"},
		flags:    []urfave.Flag{&urfave.BoolFlag{Name: "force", Usage: "also in a CI job"}},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh daemon install-service"); err != nil {
				return err
			}
			binary, _, err := c.stableBinary()
			if err != nil {
				return err
			}
			outcome, file, err := c.installService(ctx, binary, c.cmd.Bool("force"))
			if err != nil {
				return err
			}
			return c.serviceResult(outcome, file)
		},
	}
}

func daemonUninstallServiceVerb() verb {
	return verb{
		name: "uninstall-service", args: "", short: "stop the daemon's service and remove it",
		long:     `It is no error when there is none. What was accepted is kept; the daemon starts again with the next command that needs it. --json prints {"ok", "action", "file"}.`,
		examples: []string{"claudemesh daemon uninstall-service"},
		fails:    []string{"6  this system has no service manager", "8  the service does not stop"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh daemon uninstall-service"); err != nil {
				return err
			}
			outcome, file, err := c.removeService(ctx)
			if err != nil {
				return err
			}
			return c.serviceResult(outcome, file)
		},
	}
}

func (c *call) serviceResult(outcome, file string) error {
	return c.ui.result(map[string]any{"ok": true, "action": outcome, "file": file}, func() error { return c.ui.print("service %s  %s", outcome, file) })
}

// manager is this system's service manager.
func (c *call) manager() (*service.Manager, error) {
	m, err := service.Host(c.getenv, service.Run(c.environ()))
	return m, serviceFailure(err)
}

// installService makes the daemon a service and returns when it answers. Its log is made here, for the user alone.
func (c *call) installService(ctx context.Context, binary string, force bool) (outcome, file string, err error) {
	for _, name := range ciVariables() {
		if v := c.getenv(name); v != "" && v != "false" && v != "0" && !force {
			return "", "", &ciError{name}
		}
	}
	m, err := c.manager()
	if err != nil {
		return "", "", err
	}
	dir, err := c.daemonDir()
	if err != nil {
		return "", m.File, err
	}
	spec := c.serviceSpec(binary, dir)
	var from int64 // of what the new daemon writes to its log
	outcome, err = m.Install(ctx, spec, c.staleDaemon(dir), func(ctx context.Context) error {
		if _, err := c.down(ctx); err != nil {
			return err
		}
		from, err = makeLog(spec.Log)
		return err
	})
	if err != nil {
		return "", m.File, serviceFailure(err)
	}
	if err := c.awaitService(ctx, dir, startLimit); err != nil {
		return "", m.File, &startError{reason: "the service was started, and " + err.Error(), log: spec.Log, tail: tail(spec.Log, from)}
	}
	return outcome, m.File, nil
}

// staleDaemon reports whether a daemon runs that is of another version than this program.
func (c *call) staleDaemon(dir string) bool {
	info, err := bus.ReadInfo(dir)
	return err == nil && bus.Held(dir) && info.Version != c.release
}

// serviceSpec is the service of the daemon of a directory.
func (c *call) serviceSpec(binary, dir string) service.Spec {
	spec := service.Spec{
		Binary: binary, Log: filepath.Join(dir, logFile),
		NoRestart: hopeless(),
	}
	for _, name := range []string{"CLAUDEMESH_CONFIG_DIR", "CLAUDEMESH_DAEMON_DIR", caEnv, daemon.HostIDEnv} {
		if v := c.getenv(name); v != "" {
			spec.Env = append(spec.Env, [2]string{name, v})
		}
	}
	return spec
}

// startService starts the daemon as the service that it is, where it is one: a daemon beside it would be one that nobody starts again. It reports false when
// there is no such service, or it does not come up.
func (c *call) startService(ctx context.Context, dir string, limit time.Duration) bool {
	m, err := c.manager()
	if err != nil || !m.Installed() {
		return false
	}
	binary, _, err := c.stableBinary()
	if err != nil {
		return false
	}
	started, err := m.Start(ctx, c.serviceSpec(binary, dir))
	return started && err == nil && c.awaitService(ctx, dir, limit) == nil
}

// makeLog makes the daemon's log for the user alone, where a service manager would let others read it, and returns its size.
func makeLog(path string) (int64, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return 0, fmt.Errorf("make daemon directory: %w", err)
	}
	log, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return 0, fmt.Errorf("open daemon log: %w", err)
	}
	st, err := log.Stat()
	if err = errors.Join(err, log.Close()); err != nil {
		return 0, fmt.Errorf("open daemon log: %w", err)
	}
	return st.Size(), nil
}

// awaitService waits until the daemon that the service manager starts answers.
func (c *call) awaitService(ctx context.Context, dir string, within time.Duration) error {
	limit := c.clock.NewTimer(within)
	defer limit.Stop()
	for {
		if _, err := c.ping(ctx, dir); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errCancelled
		case <-limit.Chan():
			return fmt.Errorf("does not answer within %s", within)
		case <-c.clock.After(pollEvery):
		}
	}
}

// removeService stops and removes the service. A daemon that it left behind is stopped as well.
func (c *call) removeService(ctx context.Context) (outcome, file string, err error) {
	m, err := c.manager()
	if err != nil {
		return "", "", err
	}
	outcome, err = m.Remove(ctx)
	if err == nil && outcome == service.Removed {
		if dir, dirErr := c.daemonDir(); dirErr == nil && bus.Held(dir) {
			_, err = c.down(ctx)
		}
	}
	return outcome, m.File, serviceFailure(err)
}

// serviceFailure gives what the service manager refused a name and a code.
func serviceFailure(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, service.ErrUnsupported), errors.Is(err, service.ErrNoManager):
		return &noServiceError{err}
	case errors.Is(err, service.ErrBadPath):
		return usagef("%v", err)
	}
	return err
}

// noServiceError: there is no service manager for this user.
type noServiceError struct{ cause error }

func (e *noServiceError) Error() string { return e.cause.Error() }
func (e *noServiceError) Unwrap() error { return e.cause }
