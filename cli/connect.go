package cli

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/nats-io/nats.go"

	"claudemesh/bus"
	"claudemesh/mcp/feed"
	"claudemesh/mesh"
)

func daemonDir(getenv func(string) string) (string, error) { return mesh.DaemonDir(getenv) }

// caller is what a verb asks through: the daemon's bus, or the cold path. What Do promises is told at [bus.Client.Do].
type caller interface {
	Do(ctx context.Context, subject string, in, out any) error
	Close()
}

// conn is a way to ask, and in whose name.
type conn struct {
	caller
	live    *bus.Client // the bus, nil on the cold path
	dir     string      // of the daemon, empty on the cold path
	actor   string
	session bool
}

// Conn is the connection to the bus, which connectDaemon promises.
func (n *conn) Conn() *nats.Conn { return n.live.Conn() }

// Subscribe listens on the bus, which connectDaemon promises.
func (n *conn) Subscribe(subject string, fn func(*nats.Msg)) (*nats.Subscription, error) {
	return n.live.Subscribe(subject, fn)
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

// connect is the way a verb asks: through the daemon, which is started when none runs; without it, if that is wanted, or nothing else is possible.
func (c *call) connect(ctx context.Context) (*conn, error) {
	dir, err := c.daemonDir()
	if err != nil {
		return nil, err
	}
	switch c.daemonUse() {
	case useNone:
		return c.cold(dir, nil)
	case useDaemon:
		return c.warm(ctx, dir, startLimit)
	}
	n, err := c.warm(ctx, dir, verbLimit)
	if unavailable(err) {
		return c.cold(dir, err)
	}
	return n, err
}

// connectDaemon is connect for verbs that listen: without a daemon there is nothing to listen to.
func (c *call) connectDaemon(ctx context.Context) (*conn, error) {
	if c.daemonUse() == useNone {
		return nil, (&conn{}).refuse("it brings what this listens to")
	}
	return c.mustConnect(ctx)
}

// mustConnect is connect for verbs that make sense with a daemon only, whatever the policy: they register with it.
func (c *call) mustConnect(ctx context.Context) (*conn, error) {
	dir, err := c.daemonDir()
	if err != nil {
		return nil, err
	}
	return c.warm(ctx, dir, startLimit)
}

// warm reaches the daemon, starting one when none runs, and replacing one that an older program left behind. limit is what a start may take.
func (c *call) warm(ctx context.Context, dir string, limit time.Duration) (*conn, error) {
	// A few times: a daemon that was stopping may hold its lock until after the first look, and one may be replaced.
	for range 5 {
		if !bus.Held(dir) {
			begin := c.clock.Now()
			started, err := c.spawn(ctx, dir, spawnOptions{limit: limit})
			if err != nil {
				return nil, err
			}
			if started {
				c.tell("info", "daemon started automatically (took %dms)", c.clock.Since(begin).Milliseconds())
			}
		}
		n, err := c.reach(ctx, dir, limit)
		if errors.Is(err, bus.ErrNoDaemon) {
			continue
		}
		if err != nil {
			return nil, err
		}
		again, err := c.mend(ctx, dir, n)
		if err != nil {
			return nil, err
		}
		if !again {
			return n, nil
		}
	}
	return nil, bus.ErrNoDaemon
}

// tell notes something about the daemon, at most once in a run of the program.
func (c *call) tell(level, format string, args ...any) {
	if !c.told {
		c.told = true
		c.ui.note("[claudemesh] "+level+" "+format, args...)
	}
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
	return c.reach(ctx, dir, startLimit)
}

// reach connects to the daemon that holds the lock. It returns bus.ErrNoDaemon when the lock is given free.
//
// A daemon writes bus.json when everything in it answers, and removes it when it stops. One that has done so and is silent for answerLimit is reported as
// paused; one that has not gets starting.
func (c *call) reach(ctx context.Context, dir string, starting time.Duration) (*conn, error) {
	begin := c.clock.Now()
	var silent time.Time // since when it should have answered
	for {
		info, err := bus.ReadInfo(dir)
		ready := err == nil && alive(info.PID)
		if ready && silent.IsZero() {
			silent = c.clock.Now()
		}
		limit := begin.Add(starting)
		if ready {
			limit = silent.Add(answerLimit)
		}
		// The file may be lost, too: it is a hint, and not waited for without end.
		if ready || c.clock.Since(begin) > infoLimit {
			n, err := c.dial(ctx, dir, limit, !ready)
			if err == nil || errors.Is(err, bus.ErrUnauthorized) || errors.Is(err, feed.ErrNoToken) {
				return n, err
			}
		}
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !bus.Held(dir):
			return nil, bus.ErrNoDaemon
		case !c.clock.Now().Before(limit) && !ready && starting < startLimit:
			return nil, &startingError{starting.String()}
		case !c.clock.Now().Before(limit):
			paused := &pausedError{}
			if ready {
				paused.pid = info.PID
			}
			return nil, paused
		}
		select {
		case <-ctx.Done():
		case <-c.clock.After(pollEvery):
		}
	}
}

// dial makes one attempt, until limit. With probe it also makes sure that requests are answered.
func (c *call) dial(ctx context.Context, dir string, limit time.Time, probe bool) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, limit.Sub(c.clock.Now()))
	defer cancel()
	cred, session, err := c.who(dir)
	if err != nil {
		return nil, err
	}
	client, err := bus.Connect(ctx, bus.ClientConfig{Dir: dir, Token: cred.Token, Actor: cred.Actor, Name: "claudemesh"})
	if err != nil {
		return nil, err
	}
	n := &conn{caller: client, live: client, dir: dir, actor: cred.Actor, session: session}
	if probe {
		if err := n.daemon(ctx, bus.OpVersion, nil, nil); err != nil {
			n.Close()
			return nil, err
		}
	}
	return n, nil
}

// infoLimit is how long a daemon that holds the lock is given to write bus.json before it is asked all the same.
const infoLimit = time.Second

// openingLimit is how long a request waits for a link that is just being opened.
const openingLimit = 3 * time.Second

// whenOpen asks something of a mesh's broker. A link that is just being opened, after the daemon's start or a join, gets a moment; one that is known to be
// down does not.
func (n *conn) whenOpen(ctx context.Context, clock clockwork.Clock, slug string, ask func() error) error {
	for deadline := clock.Now().Add(openingLimit); ; {
		err := ask()
		if !errors.Is(err, &bus.APIError{Reason: "mesh_down"}) || !clock.Now().Before(deadline) || !n.opening(ctx, slug) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-clock.After(pollEvery):
		}
	}
}

// opening reports whether a mesh's link is being opened, or has just become open.
func (n *conn) opening(ctx context.Context, slug string) bool {
	var list bus.MeshList
	if n.daemon(ctx, bus.OpMeshList, nil, &list) != nil {
		return false
	}
	return slices.ContainsFunc(list.Meshes, func(m bus.MeshStatus) bool { return m.Mesh == slug && (m.Link == "connecting" || m.Link == "open") })
}
