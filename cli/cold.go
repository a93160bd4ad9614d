package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"claudemesh/bus"
	"claudemesh/daemon"
	"claudemesh/mesh"
)

// The cold path of a command: the same requests, answered by links of its own (daemon.Cold). Verbs do not know, but those that listen, which need the bus.

// coldCaller is the cold path, and why it was taken.
type coldCaller struct {
	c    *call
	dir  string
	cold *daemon.Cold
	// why no daemon could be had; nil when none was wanted.
	why  error
	warm *conn // once a daemon that was slow to start has come after all
}

// cold opens the cold path.
func (c *call) cold(dir string, why error) (*conn, error) {
	if c.inSession() {
		if why != nil {
			return nil, why
		}
		return nil, &bus.APIError{Code: 409, Reason: daemon.ReasonNeedsDaemon, Detail: "this cannot be done without the daemon: a session speaks with a key that only the daemon has"}
	}
	configDir, err := mesh.ConfigDir(c.getenv)
	if err != nil {
		return nil, err
	}
	cold, err := daemon.OpenCold(daemon.Options{
		Dir: dir, ConfigDir: configDir, CAFile: c.getenv(caEnv), Version: c.release, Clock: c.clock, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	return &conn{caller: &coldCaller{c: c, dir: dir, cold: cold, why: why}, actor: bus.User}, nil
}

// Do asks without a daemon. Where that is not enough, the reason why there is no daemon is what the user has to hear; a daemon that is only slow to start is
// waited for.
func (l *coldCaller) Do(ctx context.Context, subject string, in, out any) error {
	if l.warm != nil {
		return l.warm.Do(ctx, subject, in, out)
	}
	err := l.cold.Do(ctx, subject, in, out)
	var api *bus.APIError
	switch {
	case l.why == nil:
		return err
	case errors.As(err, &api) && (api.Reason == daemon.ReasonNeedsDaemon || api.Reason == "mesh_down"):
		var slow *startingError
		if !errors.As(l.why, &slow) {
			return l.why
		}
		if l.warm, err = l.c.reach(ctx, l.dir, startLimit); err != nil {
			return err
		}
		return l.warm.Do(ctx, subject, in, out)
	case err == nil:
		l.c.tell("warn", "%v; went to the broker directly, which is slower", l.why)
	}
	return err
}

// Close ends the links.
func (l *coldCaller) Close() {
	l.cold.Close()
	if l.warm != nil {
		l.warm.Close()
	}
}

// refuse is the answer to what needs the bus where there is none.
func (n *conn) refuse(what string) error {
	if l, cold := n.caller.(*coldCaller); cold && l.why != nil {
		return l.why
	}
	return &bus.APIError{Code: 409, Reason: daemon.ReasonNeedsDaemon, Detail: "this cannot be done without the daemon: " + what}
}

// via is what a result says about the way it took.
func (n *conn) via() string {
	if l, cold := n.caller.(*coldCaller); cold && l.warm == nil {
		return "cold"
	}
	return "daemon"
}

// startingError: a daemon was started, or is being started by another command, and does not answer yet. Nothing has failed.
type startingError struct{ waited string }

func (e *startingError) Error() string {
	return fmt.Sprintf("the daemon is still starting after %s", e.waited)
}

// unavailable reports whether an error of warm means that there is no daemon, and not that one has something against us or is paused: the messages that a
// paused daemon holds must not be overtaken.
func unavailable(err error) bool {
	var start *startError
	var slow *startingError
	return errors.As(err, &start) || errors.As(err, &slow) || errors.Is(err, errNoAutospawn) || errors.Is(err, bus.ErrNoDaemon)
}
