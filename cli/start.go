package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"claudemesh/bus"
	"claudemesh/mcp/feed"
)

// Starting the daemon. A daemon runs when its lock is held, and only then; nothing here removes or replaces a file of it. Whoever starts one holds the
// spawn lock until it answers, so any number of commands at once start one daemon.

// Files in the daemon directory that belong to starting it.
const (
	spawnLockFile = "spawn.lock"
	logFile       = "daemon.log"
	tokenFile     = "local-token" // written by the daemon at its first start
)

// Limits. Polling is every pollEvery.
const (
	pollEvery   = 5 * time.Millisecond
	startLimit  = 10 * time.Second // from spawn to first answer
	verbLimit   = 3 * time.Second  // the same, of a command that can do without
	answerLimit = 3 * time.Second  // of a daemon that has been ready before
	tailBytes   = 2 << 10
	tailLines   = 3
	noSpawnEnv  = "CLAUDEMESH_INTERNAL_NO_AUTOSPAWN"
)

// daemonDir is where the daemon lives.
func (c *call) daemonDir() (string, error) { return daemonDir(c.getenv) }

// spawnOptions say how to start a daemon.
type spawnOptions struct {
	args  []string      // further arguments of daemon up
	force bool          // try although a start failed just now
	limit time.Duration // from spawn to first answer
}

// spawnLock takes the lock of whoever starts the daemon.
func (c *call) spawnLock(ctx context.Context, dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make daemon directory: %w", err)
	}
	lock := flock.New(filepath.Join(dir, spawnLockFile), flock.SetPermissions(0o600))
	if _, err := lock.TryLockContext(ctx, pollEvery); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("wait for another command that starts the daemon: %w", err)
	}
	return func() { _ = lock.Close() }, nil
}

// spawn starts a daemon and returns when it answers, or when another one is found to run. started is false in the second case.
func (c *call) spawn(ctx context.Context, dir string, o spawnOptions) (started bool, err error) {
	if c.getenv(noSpawnEnv) == "1" && !o.force {
		return false, errNoAutospawn
	}
	waiting, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	unlock, err := c.spawnLock(waiting, dir)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return false, &startingError{o.limit.String()}
	}
	if err != nil {
		return false, err
	}
	defer unlock()
	if bus.Held(dir) {
		return false, nil
	}
	if !o.force {
		if err := c.failedLately(dir); err != nil {
			return false, err
		}
	}
	if err := c.start(ctx, dir, o); err != nil {
		return false, err
	}
	return true, nil
}

// start starts a daemon, under the spawn lock, and returns when it answers.
func (c *call) start(ctx context.Context, dir string, o spawnOptions) error {
	if len(o.args) == 0 && c.startService(ctx, dir, o.limit) {
		return forgetFailure(dir)
	}
	if err := c.launch(ctx, dir, o); err != nil {
		var e *startError
		if errors.As(err, &e) {
			c.remember(dir, e)
		}
		return err
	}
	return forgetFailure(dir)
}

// launch runs this program as a daemon of its own session and waits for its first answer.
func (c *call) launch(ctx context.Context, dir string, o spawnOptions) error {
	exe, err := c.executable()
	if err != nil {
		return fmt.Errorf("find own executable: %w", err)
	}
	log, err := os.OpenFile(filepath.Join(dir, logFile), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open daemon log: %w", err)
	}
	defer log.Close()
	from, err := log.Seek(0, 2)
	if err != nil {
		return fmt.Errorf("open daemon log: %w", err)
	}
	cmd := exec.Command(exe, append([]string{"daemon", "up", "--foreground"}, o.args...)...)
	cmd.Stdout, cmd.Stderr, cmd.Dir, cmd.Env = log, log, dir, daemonEnviron(c.environ())
	detach(cmd)
	if err := cmd.Start(); err != nil {
		return &startError{reason: err.Error(), log: log.Name()}
	}
	// This goroutine ends with the daemon, which outlives the program unless it fails.
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	limit := c.clock.NewTimer(o.limit)
	defer limit.Stop()
	poll := c.clock.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		select {
		case err := <-ended:
			if bus.Held(dir) {
				// Somebody started one by hand meanwhile; ours saw that and left.
				ended = nil
				continue
			}
			reason := "it ended at once"
			if err != nil {
				reason = err.Error()
			}
			return &startError{reason: reason, log: log.Name(), tail: tail(log.Name(), from)}
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.Chan():
			if o.limit < startLimit { // it may still come
				return &startingError{o.limit.String()}
			}
			return &startError{reason: fmt.Sprintf("no answer within %s", o.limit), log: log.Name(), tail: tail(log.Name(), from)}
		case <-poll.Chan():
			// Its bus.json says that all of it answers. When another daemon was faster, ours has ended.
			info, err := bus.ReadInfo(dir)
			if err != nil || ended != nil && info.PID != cmd.Process.Pid {
				continue
			}
			if _, err := c.ping(ctx, dir); err == nil {
				return nil
			}
		}
	}
}

// daemonEnviron is the environment of a daemon: the caller's, without what makes the caller a session.
func daemonEnviron(environ []string) []string {
	var out []string
	for _, kv := range environ {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case feed.EnvSession, feed.EnvTokenFile, feed.EnvToken, feed.EnvMesh, feed.EnvName, noSpawnEnv:
		default:
			out = append(out, kv)
		}
	}
	return append(out, noSpawnEnv+"=1")
}

// tail is the end of what was written to a log since from.
func tail(path string, from int64) string {
	b, err := os.ReadFile(path)
	if err == nil && int64(len(b)) < from { // a new one was begun meanwhile
		from = 0
	}
	if err != nil || int64(len(b)) <= from {
		return ""
	}
	b = b[from:]
	b = b[max(0, len(b)-tailBytes):]
	lines := strings.Split(strings.TrimSpace(clean(string(b))), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}

// ping asks a daemon who it is, as the user.
func (c *call) ping(ctx context.Context, dir string) (bus.Version, error) {
	var v bus.Version
	if !bus.Held(dir) {
		return v, bus.ErrNoDaemon
	}
	token, err := userToken(dir)
	if err != nil {
		return v, err
	}
	client, err := bus.Connect(ctx, bus.ClientConfig{Dir: dir, Token: token, Actor: bus.User, Name: "claudemesh"})
	if err != nil {
		return v, err
	}
	defer client.Close()
	err = client.Do(ctx, bus.DaemonSubject(bus.User, bus.OpVersion), nil, &v)
	return v, err
}

func userToken(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, tokenFile))
	if err != nil {
		return "", fmt.Errorf("read the user's token: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
