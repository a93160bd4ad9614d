package cli

import (
	"context"
	"errors"
	"fmt"

	"claudemesh/bus"
	"claudemesh/mcp/feed"
	"claudemesh/mesh"
)

func daemonDir(getenv func(string) string) (string, error) { return mesh.DaemonDir(getenv) }

// conn is a connection to the daemon, and in whose name.
type conn struct {
	*bus.Client
	actor   string
	session bool
}

// daemon asks the daemon itself.
func (n *conn) daemon(ctx context.Context, op string, in, out any) error {
	return n.Do(ctx, bus.DaemonSubject(n.actor, op), in, out)
}

// who says in whose name to act: the session this process belongs to, else the user. A session whose token cannot be read is an error: to act as the user
// instead would be a wider right than was given.
func (c *call) who(dir string) (feed.Credential, bool, error) {
	cred, ok, err := feed.SessionCredential(c.getenv)
	if ok || err != nil {
		return cred, ok, err
	}
	token, err := userToken(dir)
	return feed.Credential{Actor: bus.User, Token: token}, false, err
}

// connect reaches the daemon, starting one when none runs.
func (c *call) connect(ctx context.Context) (*conn, error) {
	dir, err := c.daemonDir()
	if err != nil {
		return nil, err
	}
	// Twice: a daemon that was stopping may hold its lock until after the first look.
	for range 2 {
		if !bus.Held(dir) {
			begin := c.clock.Now()
			started, err := c.spawn(ctx, dir, spawnOptions{})
			if err != nil {
				return nil, err
			}
			if started {
				c.ui.note("[claudemesh] info daemon started automatically (took %dms)", c.clock.Since(begin).Milliseconds())
			}
		}
		n, err := c.reach(ctx, dir)
		if !errors.Is(err, bus.ErrNoDaemon) {
			return n, err
		}
	}
	return nil, bus.ErrNoDaemon
}

// running is connect for verbs that never start a daemon: bus.ErrNoDaemon when none runs.
func (c *call) running(ctx context.Context) (*conn, error) {
	dir, err := c.daemonDir()
	if err != nil {
		return nil, err
	}
	if !bus.Held(dir) {
		return nil, bus.ErrNoDaemon
	}
	return c.reach(ctx, dir)
}

// reach connects to the daemon that holds the lock. One that is just starting gets the time for it; one that was ready before and is silent now is reported
// as paused. It returns bus.ErrNoDaemon when the lock is given free.
func (c *call) reach(ctx context.Context, dir string) (*conn, error) {
	pid, limit := 0, startLimit
	if info, err := bus.ReadInfo(dir); err == nil && alive(info.PID) {
		pid, limit = info.PID, answerLimit
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, &pausedError{pid})
	defer cancel()
	var last error
	for {
		n, err := c.dial(ctx, dir)
		if err == nil || errors.Is(err, bus.ErrUnauthorized) || errors.Is(err, feed.ErrNoToken) {
			return n, err
		}
		if !bus.Held(dir) {
			return nil, bus.ErrNoDaemon
		}
		if last == nil || !errors.Is(err, context.DeadlineExceeded) {
			last = err
		}
		select {
		case <-ctx.Done():
			cause := context.Cause(ctx)
			var paused *pausedError
			if errors.As(cause, &paused) {
				return nil, fmt.Errorf("%w (%w)", cause, last)
			}
			return nil, cause
		case <-c.clock.After(pollEvery):
		}
	}
}

func (c *call) dial(ctx context.Context, dir string) (*conn, error) {
	cred, session, err := c.who(dir)
	if err != nil {
		return nil, err
	}
	client, err := bus.Connect(ctx, bus.ClientConfig{Dir: dir, Token: cred.Token, Actor: cred.Actor, Name: "claudemesh", Timeout: 0})
	if err != nil {
		return nil, err
	}
	return &conn{Client: client, actor: cred.Actor, session: session}, nil
}
