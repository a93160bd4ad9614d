package daemon

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// meshRun is one joined mesh while the daemon runs: its links, its roster, its drain. A mesh that is down delays no other, because none of this is shared.
type meshRun struct {
	d      *Daemon
	joined mesh.Joined
	member mesh.Identity
	links  *bridge.Mesh
	roster *roster
	topics *topics
	wake   chan struct{} // capacity 1: something may be due
	late   surfacedQueue // surfaced reports that wait for the link
	offers *services
	trust  *trust

	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	gate sync.RWMutex // held while a row is accepted
	left bool         // guarded by gate: the mesh is not joined any more

	disbelieved atomic.Int64 // receipts that proved nothing

	leaving atomic.Bool // this daemon has asked the broker to end the membership

	mu      sync.Mutex
	ended   error // why the links gave up for good, nil while they run
	restEnd time.Time
	rng     *rand.Rand
	said    map[string]*said // by session id; "" is the member
	mode    string           // the member's message mode
}

// attach starts a joined mesh. Attaching a slug twice is an error.
func (d *Daemon) attach(j mesh.Joined) error {
	member, err := j.Identity()
	if err != nil {
		return fmt.Errorf("member key: %w", err)
	}
	if !mesh.ValidSlug(j.Slug) {
		return fmt.Errorf("slug %q cannot be a subject token", j.Slug)
	}
	m := &meshRun{d: d, joined: j, member: member, wake: make(chan struct{}, 1), rng: newRand(d.opt.Rand), said: map[string]*said{}}
	m.roster, m.topics, m.offers, m.trust = newRoster(m), newTopics(m), newServices(m), newTrust(m)
	m.ctx, m.cancel = context.WithCancel(d.ctx)
	host, _ := os.Hostname()
	cwd, _ := os.Getwd()
	m.links = bridge.NewMesh(bridge.MeshConfig{
		Slug: j.Slug, MeshID: j.MeshID, MemberID: j.MemberID, BrokerURL: j.BrokerURL, Member: member,
		// No display name: the broker knows the one that the member joined with.
		Hostname: host, Cwd: cwd, PID: os.Getpid(),
		Dial: d.dial, TLS: d.tls, Clock: d.opt.Clock, Rand: d.opt.Rand, Log: d.opt.Log.With("mesh", j.Slug), Handler: m,
	})
	d.mu.Lock()
	if _, taken := d.meshes[j.Slug]; taken {
		d.mu.Unlock()
		m.cancel()
		return fmt.Errorf("mesh %s is attached already", j.Slug)
	}
	d.meshes[j.Slug] = m
	d.mu.Unlock()
	m.tasks.Go(func() {
		if err := m.links.Run(m.ctx); err != nil && m.ctx.Err() == nil {
			m.mu.Lock()
			m.ended = err
			m.mu.Unlock()
			if m.leaving.Load() {
				return
			}
			d.notice(fmt.Sprintf("mesh %s: the broker ended this membership: %v; remove it here with: claudemesh leave %[1]s --local", j.Slug, err))
		}
	})
	m.tasks.Go(m.drain)
	m.tasks.Go(m.roster.run)
	m.tasks.Go(m.topics.run)
	m.tasks.Go(m.offers.run)
	return nil
}

func (d *Daemon) memberName() string {
	if c, err := mesh.LoadConfig(d.opt.ConfigDir); err == nil && c.DisplayName != "" {
		return c.DisplayName
	}
	return d.opt.DisplayName
}

// mesh finds a joined mesh; the error lists the joined ones.
func (d *Daemon) mesh(slug string) (*meshRun, error) {
	d.mu.RLock()
	m, ok := d.meshes[slug]
	d.mu.RUnlock()
	if ok {
		return m, nil
	}
	return nil, d.notJoined(slug)
}

func (d *Daemon) notJoined(slug string) error {
	return &bus.APIError{Code: 404, Reason: "mesh_not_joined", Detail: fmt.Sprintf("no mesh %q is joined here", slug), Data: map[string]any{"joined": d.slugs()}}
}

func (d *Daemon) slugs() []string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	out := make([]string, 0, len(d.meshes))
	for s := range d.meshes {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// each calls fn for every mesh, ordered by slug.
func (d *Daemon) each(fn func(*meshRun)) {
	for _, slug := range d.slugs() {
		if m, err := d.mesh(slug); err == nil {
			fn(m)
		}
	}
}

// signal wakes the drain.
func (m *meshRun) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// online reports whether the member link is open: without it nothing is sent and no peer can be looked up.
func (m *meshRun) online() bool { return m.links.Member().State().Phase == bridge.Open }

// State is called by the bridge when a link changes.
func (m *meshRun) State(src bridge.Source, s bridge.State) {
	if src.Session == "" {
		data := map[string]any{"mesh": m.joined.Slug, "status": string(s.Phase)}
		if s.Err != "" {
			data["error"] = s.Err
		}
		m.d.publishEvent(m.joined.Slug, "broker_status", data)
		m.d.opt.Log.Info("broker_status", "mesh", m.joined.Slug, "status", string(s.Phase), "error", s.Err)
	}
	if s.Phase != bridge.Open {
		if src.Session == "" {
			m.roster.lost()
			m.topics.lost()
		}
		return
	}
	if src.Session == "" {
		m.setMessageMode(s.MessageMode)
		m.roster.refresh()
		m.topics.refresh()
		m.late.flush(m)
	}
	m.tasks.Go(func() { m.offers.reopened(src.Session) })
	m.tasks.Go(func() { m.sayAgain(src.Session) })
	// Rows whose backoff runs are worth a try at once: the reason for the last failure may have gone with the old connection.
	if err := m.d.outbox.WakeAll(m.ctx, m.joined.Slug); err != nil && m.ctx.Err() == nil {
		m.d.opt.Log.Error("outbox_wake_failed", "mesh", m.joined.Slug, "error", err)
	}
	m.signal()
}

func (m *meshRun) status(ctx context.Context) bus.MeshStatus {
	st := m.links.Member().State()
	s := bus.MeshStatus{
		Mesh: m.joined.Slug, Name: m.joined.Name, MeshID: m.joined.MeshID, MemberID: m.joined.MemberID, Pubkey: m.joined.Pubkey,
		DisplayName: m.roster.name(m.joined.Pubkey), BrokerURL: m.joined.BrokerURL, Link: string(st.Phase), Error: st.Err, Since: st.Since.UnixMilli(), Outbox: map[string]int{},
		Peers: m.roster.connected(), Disbelieved: int(m.disbelieved.Load()),
	}
	m.mu.Lock()
	if m.ended != nil {
		s.Link, s.Error = string(bridge.Closed), m.ended.Error()
	}
	m.mu.Unlock()
	if n, err := m.d.inbox.CountUnread(ctx, "", m.joined.Slug); err == nil {
		s.Unread = int(n)
	}
	if counts, err := m.d.outbox.Counts(ctx); err == nil {
		for _, c := range counts {
			if c.Mesh == m.joined.Slug {
				s.Outbox[string(c.Status)] = int(c.Rows)
			}
		}
	}
	if live, err := m.d.session.Live(ctx); err == nil {
		for _, l := range live {
			if l.Mesh == m.joined.Slug {
				s.Sessions++
			}
		}
	}
	return s
}

// call carries one broker operation. Errors: 503 mesh_down, 504 broker_timeout, 502 with the broker's own code.
func (m *meshRun) call(ctx context.Context, link *bridge.Link, op string, fields []byte) ([]byte, error) {
	limit := callTimeout
	if op == wire.TypeMCPCall {
		limit = callWaits + callOverhead
	}
	m.letIn(ctx, link)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	reply, err := link.Call(ctx, op, fields)
	var refused *bridge.BrokerError
	switch {
	case err == nil:
		return reply, nil
	case errors.As(err, &refused):
		return nil, &bus.APIError{Code: 502, Reason: "broker_refused", Detail: fmt.Sprintf("the broker refused %s: %s (%s)", op, refused.Message, refused.Code), Data: map[string]any{"broker_code": refused.Code}}
	case errors.Is(err, bridge.ErrBadOp), errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrTooLarge):
		return nil, &bus.APIError{Code: 400, Reason: "bad_operation", Detail: fmt.Sprintf("the broker cannot be asked for %s: %v", op, err)}
	case link != m.links.Member() && m.online() && (errors.Is(err, bridge.ErrNotOpen) || errors.Is(err, bridge.ErrLost)):
		return nil, m.sessionDown(link)
	case errors.Is(err, bridge.ErrNotOpen), errors.Is(err, bridge.ErrLost):
		return nil, m.down()
	case errors.Is(err, context.DeadlineExceeded):
		return nil, &bus.APIError{Code: 504, Reason: "broker_timeout", Detail: fmt.Sprintf("the broker of mesh %s did not answer %s within %s", m.joined.Slug, op, limit)}
	default:
		return nil, fmt.Errorf("call %s: %w", op, err)
	}
}

const (
	callTimeout = 5 * time.Second
	// letInTime is how long a call of a session waits for the session's own link when the member's is open: a session asks for things as soon as it has started.
	letInTime = 2 * time.Second
)

// letIn waits a moment for a session's link that is about to open. Whether it has is told by the call that follows.
func (m *meshRun) letIn(ctx context.Context, link *bridge.Link) {
	if link == m.links.Member() || link.State().Phase == bridge.Open || !m.online() {
		return
	}
	link.Kick()
	ctx, cancel := context.WithTimeout(ctx, letInTime)
	defer cancel()
	_ = link.WaitOpen(ctx)
}

// sessionDown is the answer to a request that goes over a session's own link, while that is not open and the member's is.
func (m *meshRun) sessionDown(link *bridge.Link) *bus.APIError {
	detail := "the broker of mesh " + m.joined.Slug + " has not let this session in"
	if e := link.State().Err; e != "" {
		detail += ": " + e
	}
	return &bus.APIError{Code: 503, Reason: "mesh_down", Detail: detail}
}

// down is the answer to a request that needs the broker while there is none.
func (m *meshRun) down() *bus.APIError {
	detail := "the broker of mesh " + m.joined.Slug + " cannot be reached"
	if e := m.links.Member().State().Err; e != "" {
		detail += ": " + e
	}
	return &bus.APIError{Code: 503, Reason: "mesh_down", Detail: detail}
}

func (m *meshRun) listPeers(ctx context.Context) ([]wire.Peer, error) {
	reply, err := m.call(ctx, m.links.Member(), wire.TypeListPeers, nil)
	if err != nil {
		return nil, err
	}
	var list wire.PeersList
	if err := wire.Decode(reply, &list); err != nil {
		return nil, fmt.Errorf("list peers: %w", err)
	}
	return list.Peers, nil
}
