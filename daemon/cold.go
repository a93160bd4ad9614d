package daemon

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// The cold path: one run of a program asks a broker by itself, because no daemon is wanted, or can be had.

// ReasonNeedsDaemon is the reason of an [bus.APIError] with which Cold refuses what only a daemon can do.
const ReasonNeedsDaemon = "needs_daemon"

// Limits of the cold path.
const (
	coldOpen = 5 * time.Second // from the first look at a broker to its welcome
	coldAck  = 10 * time.Second
	// coldPause is the unit of a link's pauses. A link that was refused or lost is not used again, so that what counts is that it does not come back by itself.
	coldPause = time.Minute
)

// Cold answers requests of the local API without a daemon, as the user: each mesh that is asked about is reached by a link of its own, under the member's key.
// It is what a program uses in place of a [bus.Client], for the time of one command.
//
// What it promises is less than what a daemon does, and it says so: a message is sent or refused while the caller waits, and kept nowhere. It carries the
// client message id and the fingerprint that a daemon's would, so that the broker knows a repeat, by whichever way it comes. It takes no mail: what the
// broker pushes meanwhile is neither stored nor acknowledged, and so waits for the daemon.
//
// What needs what only a daemon has (keys of sessions and topics, inbox, outbox, the connection on which a presence lives) is refused with ReasonNeedsDaemon.
type Cold struct {
	opt    Options
	config *mesh.Config
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu    sync.Mutex
	links map[string]*coldLink // by slug
}

// coldLink is the link to the broker of one mesh.
type coldLink struct {
	*bridge.Link
	opened chan struct{} // closed when it is known whether the broker let us in
	once   sync.Once
	err    error // why it did not; written before opened is closed
}

// OpenCold reads the configuration of o.ConfigDir; nothing is dialled before something is asked. Close ends its links.
func OpenCold(o Options) (*Cold, error) {
	dial := o.Dial // nil means more to a link than to a daemon: the proxy of the environment
	o = o.withDefaults()
	o.Dial = dial
	if o.ConfigDir == "" {
		return nil, ErrNoDir
	}
	config, err := mesh.LoadConfig(o.ConfigDir)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	c := &Cold{opt: o, config: config, links: map[string]*coldLink{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// Close ends the links, and returns when they have ended.
func (c *Cold) Close() {
	c.cancel()
	c.tasks.Wait()
}

// Do answers what [bus.Client.Do] would be asked, in the same terms: a *bus.APIError when it refuses, bus.ErrInterrupted when it is not known whether a
// message was sent. Only the user is served.
func (c *Cold) Do(ctx context.Context, subject string, in, out any) error {
	s, err := bus.ParseSubject(subject)
	if err != nil {
		return err
	}
	if s.Actor != bus.User {
		return needsDaemon("a session speaks with a key that only the daemon has")
	}
	var data []byte
	if in != nil {
		if data, err = json.Marshal(in); err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
	}
	var reply any
	switch s.Kind {
	case bus.KindSend:
		reply, err = c.send(ctx, s, data)
	case bus.KindCall:
		reply, err = c.call(ctx, s, data)
	case bus.KindDaemon:
		reply, err = c.self(s.Name)
	default:
		err = bus.ErrBadSubject
	}
	if err != nil || out == nil {
		return err
	}
	if data, err = json.Marshal(reply); err == nil {
		err = json.Unmarshal(data, out)
	}
	if err != nil {
		return fmt.Errorf("decode reply: %w", err)
	}
	return nil
}

// needsDaemon refuses what cannot be done here, and says why.
func needsDaemon(why string) error {
	return &bus.APIError{Code: 409, Reason: ReasonNeedsDaemon, Detail: "this cannot be done without the daemon: " + why}
}

// joined finds a joined mesh; the error lists the joined ones.
func (c *Cold) joined(slug string) (mesh.Joined, error) {
	for _, j := range c.config.Meshes {
		if j.Slug == slug {
			return j, nil
		}
	}
	return mesh.Joined{}, &bus.APIError{Code: 404, Reason: "mesh_not_joined", Detail: fmt.Sprintf("no mesh %q is joined here", slug), Data: map[string]any{"joined": c.config.Slugs()}}
}

// open is the open link to the broker of a mesh, one for all requests while it lasts.
func (c *Cold) open(ctx context.Context, j mesh.Joined) (*bridge.Link, error) {
	member, err := j.Identity()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	l := c.links[j.Slug]
	if l == nil || l.State().Phase == bridge.Waiting || l.State().Phase == bridge.Closed && l.decided() {
		l = c.dial(j, member)
		c.links[j.Slug] = l
	}
	c.mu.Unlock()
	limit := c.opt.Clock.NewTimer(coldOpen)
	defer limit.Stop()
	select {
	case <-l.opened:
		if l.err != nil {
			return nil, coldDown(j.Slug, l.err.Error())
		}
		return l.Link, nil
	case <-limit.Chan():
		return nil, coldDown(j.Slug, fmt.Sprintf("no answer within %s", coldOpen))
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *coldLink) decided() bool {
	select {
	case <-l.opened:
		return true
	default:
		return false
	}
}

func coldDown(slug, why string) error {
	return &bus.APIError{Code: 503, Reason: "mesh_down", Detail: "the broker of mesh " + slug + " cannot be reached: " + why}
}

// errNoMail refuses what a broker pushes: it is the daemon's to take.
var errNoMail = errors.New("this program takes no mail")

func (c *Cold) dial(j mesh.Joined, member mesh.Identity) *coldLink {
	l := &coldLink{opened: make(chan struct{})}
	host, _ := os.Hostname()
	cwd, _ := os.Getwd()
	var random [8]byte
	_, _ = rand.Read(random[:]) // does not fail
	hello := wire.Hello{
		// It says that it acknowledges, and does not: so a push to it settles nothing. Its session id is its own, or it would evict another connection.
		Capabilities: []string{wire.CapClientAck}, MeshID: j.MeshID, MemberID: j.MemberID, SessionID: "cold-" + hex.EncodeToString(random[:]),
		PID: int64(os.Getpid()), Cwd: cwd, Hostname: host, PeerType: "ai", Channel: "claudemesh-daemon",
	}
	l.Link = bridge.NewLink(bridge.LinkConfig{
		URL: j.BrokerURL, Dial: c.opt.Dial, TLS: c.tls, Backoff: coldPause, Clock: c.opt.Clock, Rand: c.opt.Rand, Log: c.opt.Log.With("mesh", j.Slug),
		Hello: func(now time.Time) (any, error) {
			h := wire.SignHello(hello, member, now)
			return h, h.Validate()
		},
		OnPush:    func(context.Context, []wire.Push) ([]wire.ClientAck, error) { return nil, errNoMail },
		OnReceipt: func(context.Context, []wire.Receipt) error { return errNoMail },
		OnState: func(s bridge.State) {
			switch s.Phase {
			case bridge.Open:
				l.once.Do(func() { close(l.opened) })
			case bridge.Waiting, bridge.Closed:
				l.once.Do(func() { l.err = errors.New(s.Err); close(l.opened) })
			}
		},
	})
	c.tasks.Go(func() { _ = l.Run(c.ctx) }) // its end is in its state
	return l
}

func (c *Cold) tls() (*tls.Config, error) { return authorities(c.opt) }

// ask is the asker of a mesh.
func (c *Cold) ask(j mesh.Joined) asker {
	return func(ctx context.Context, op string, fields []byte) ([]byte, error) {
		link, err := c.open(ctx, j)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		reply, err := link.Call(ctx, op, fields)
		switch {
		case err == nil:
			return reply, nil
		case errors.Is(err, bridge.ErrNotOpen), errors.Is(err, bridge.ErrLost):
			return nil, coldDown(j.Slug, link.State().Err)
		}
		return nil, callError(j.Slug, op, callTimeout, err)
	}
}
