package testenv

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/nats-io/nats.go"

	"claudemesh/bus"
	"claudemesh/daemon"
	"claudemesh/mesh"
)

// Patience is how long any wait of a test lasts before it fails: far more than a loaded two-core machine needs.
const Patience = 60 * time.Second

// Option changes a machine before it starts.
type Option func(*daemon.Options)

// WithClock injects time.
func WithClock(c clockwork.Clock) Option { return func(o *daemon.Options) { o.Clock = c } }

// WithName sets the member's display name.
func WithName(name string) Option { return func(o *daemon.Options) { o.DisplayName = name } }

// WithDial replaces how the daemon reaches brokers other than its own.
func WithDial(dial func(ctx context.Context, network, addr string) (net.Conn, error)) Option {
	return func(o *daemon.Options) { o.Dial = dial }
}

// WithGuard keeps the limits that a real daemon has on what one session sends to one peer.
func WithGuard() Option { return func(o *daemon.Options) { o.PairRate, o.PairReplies = 0, 0 } }

// Machine is one user's HOME with a daemon that runs in this process.
type Machine struct {
	T    testing.TB
	Home string
	Log  *Log

	opt    daemon.Options
	mu     sync.Mutex
	daemon *daemon.Daemon
	user   *bus.Client
}

// NewMachine makes a HOME and starts its daemon; both end with the test.
func NewMachine(t testing.TB, options ...Option) *Machine {
	t.Helper()
	m := &Machine{T: t, Home: TempDir(t), Log: &Log{}}
	m.opt = daemon.Options{
		// Tests and figures send thousands of messages from one session to one peer.
		PairRate: -1, PairReplies: -1,
		Dir: filepath.Join(m.Home, ".claudemesh", "daemon"), ConfigDir: filepath.Join(m.Home, ".claudemesh"), Version: "0.0.0-test",
		Log: slog.New(slog.NewJSONHandler(m.Log, nil)), DisplayName: "user",
	}
	for _, o := range options {
		o(&m.opt)
	}
	m.Start()
	t.Cleanup(func() {
		m.Stop()
		if t.Failed() {
			t.Logf("log of %s:\n%s", m.Home, m.Log.Tail(60))
		}
	})
	return m
}

// TempDir is a short temporary directory: a Unix socket's path has about 100 bytes.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "cm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Dir is the daemon directory.
func (m *Machine) Dir() string { return m.opt.Dir }

// Start starts the daemon.
func (m *Machine) Start() {
	m.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	d, err := daemon.Start(ctx, m.opt)
	if err != nil {
		m.T.Fatalf("start daemon: %v", err)
	}
	m.mu.Lock()
	m.daemon, m.user = d, nil
	m.mu.Unlock()
}

// Stop stops the daemon in good order; a machine that is stopped stays so until Start.
func (m *Machine) Stop() {
	m.T.Helper()
	m.mu.Lock()
	d, user := m.daemon, m.user
	m.daemon, m.user = nil, nil
	m.mu.Unlock()
	if user != nil {
		user.Close()
	}
	if d != nil {
		if err := d.Stop(); err != nil {
			m.T.Errorf("stop daemon: %v", err)
		}
	}
}

// User is the user's connection to the bus.
func (m *Machine) User() *bus.Client {
	m.T.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.user != nil {
		return m.user
	}
	m.user = connect(m.T, m.Dir(), filepath.Join(m.Dir(), "local-token"), bus.User)
	return m.user
}

func connect(t testing.TB, dir, tokenFile, actor string) *bus.Client {
	t.Helper()
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		t.Fatalf("read token: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	c, err := bus.Connect(ctx, bus.ClientConfig{Dir: dir, Token: strings.TrimSpace(string(token)), Actor: actor, Name: "test " + actor})
	if err != nil {
		t.Fatalf("connect to bus as %s: %v", actor, err)
	}
	return c
}

// Do asks the daemon as its user and fails the test on refusal.
func (m *Machine) Do(op string, in, out any) {
	m.T.Helper()
	do(m.T, m.User(), bus.DaemonSubject(bus.User, op), in, out)
}

func do(t testing.TB, c *bus.Client, subject string, in, out any) {
	t.Helper()
	if err := Try(c, subject, in, out); err != nil {
		t.Fatalf("%s: %v", subject, err)
	}
}

// Try asks and returns the refusal.
func Try(c *bus.Client, subject string, in, out any) error {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	return c.Do(ctx, subject, in, out)
}

// Create makes a mesh on this machine's own broker and returns its slug.
func (m *Machine) Create(name string) string {
	m.T.Helper()
	var out bus.MeshJoined
	m.Do(bus.OpMeshCreate, bus.MeshCreate{Name: name}, &out)
	return out.Mesh
}

// Share makes an invite for any number of uses.
func (m *Machine) Share(slug string) string {
	m.T.Helper()
	m.WaitLink(slug)
	var out bus.MeshInvite
	m.Do(bus.OpMeshShare, bus.MeshShare{Mesh: slug, MaxUses: 100}, &out)
	return out.Invite
}

// Join joins by invite and returns the slug.
func (m *Machine) Join(invite, name string) string {
	m.T.Helper()
	var out bus.MeshJoined
	m.Do(bus.OpMeshJoin, bus.MeshJoin{Invite: invite, DisplayName: name}, &out)
	return out.Mesh
}

// WaitLink waits until the member link of a mesh is open.
func (m *Machine) WaitLink(slug string) {
	m.T.Helper()
	m.waitEvent(slug, "the link of mesh "+slug+" to open", func() bool {
		var s bus.Status
		m.Do(bus.OpStatus, nil, &s)
		for _, ms := range s.Meshes {
			if ms.Mesh == slug {
				return ms.Link == "open"
			}
		}
		return false
	})
}

// WaitPeer waits until a peer of that name is listed.
func (m *Machine) WaitPeer(slug, name string) bus.Peer {
	m.T.Helper()
	var found bus.Peer
	m.waitEvent(slug, "peer "+name, func() bool {
		var r bus.PeersReply
		if Try(m.User(), bus.CallSubject(slug, bus.User, bus.CallListPeers), nil, &r) != nil {
			return false
		}
		for _, p := range r.Peers {
			if p.DisplayName == name {
				found = p
				return true
			}
		}
		return false
	})
	return found
}

// waitEvent checks a condition now and after each event of the mesh; a slow tick covers changes that have no event.
func (m *Machine) waitEvent(slug, what string, ok func() bool) {
	m.T.Helper()
	poke := make(chan struct{}, 1)
	sub, err := m.User().Subscribe(bus.EventSubject(slug, ">"), func(*nats.Msg) {
		select {
		case poke <- struct{}{}:
		default:
		}
	})
	if err != nil {
		m.T.Fatalf("subscribe to events: %v", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	Wait(m.T, what, poke, ok)
}

// Wait checks a condition now, whenever poke says so, and every 50 ms, and fails the test after Patience.
func Wait(t testing.TB, what string, poke <-chan struct{}, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(Patience)
	defer end.Stop()
	for !ok() {
		select {
		case <-poke:
		case <-tick.C:
		case <-end.C:
			t.Fatalf("waited %s for %s", Patience, what)
		}
	}
}

// Session registers a session of this test's process.
func (m *Machine) Session(slug, name string, groups ...string) *Session {
	m.T.Helper()
	req := bus.SessionStart{Mesh: slug, Name: name, PID: os.Getpid(), Cwd: m.Home}
	for _, g := range groups {
		req.Groups = append(req.Groups, mesh.Group{Name: g})
	}
	return m.SessionWith(req)
}

// SessionWith registers a session as the user.
func (m *Machine) SessionWith(req bus.SessionStart) *Session {
	m.T.Helper()
	var info bus.SessionInfo
	m.Do(bus.OpSessionStart, req, &info)
	s := &Session{Machine: m, Info: info}
	s.Client = connect(m.T, m.Dir(), info.TokenFile, info.ID)
	m.T.Cleanup(s.Client.Close)
	return s
}

// Session is one registered session and its connection.
type Session struct {
	Machine *Machine
	Info    bus.SessionInfo
	Client  *bus.Client
}

// Do asks the daemon as the session.
func (s *Session) Do(op string, in, out any) {
	s.Machine.T.Helper()
	do(s.Machine.T, s.Client, bus.DaemonSubject(s.Info.ID, op), in, out)
}

// Send sends as the session.
func (s *Session) Send(to, body string) bus.SendReply {
	s.Machine.T.Helper()
	var r bus.SendReply
	do(s.Machine.T, s.Client, SendSubject(s.Machine.T, s.Info.Mesh, s.Info.ID, to), bus.SendRequest{To: to, Body: body}, &r)
	return r
}

// Send sends as the user.
func (m *Machine) Send(slug string, req bus.SendRequest) bus.SendReply {
	m.T.Helper()
	var r bus.SendReply
	do(m.T, m.User(), SendSubject(m.T, slug, bus.User, req.To), req, &r)
	return r
}

// TrySend sends as the user and returns the refusal.
func (m *Machine) TrySend(slug string, req bus.SendRequest) (bus.SendReply, error) {
	m.T.Helper()
	var r bus.SendReply
	err := Try(m.User(), SendSubject(m.T, slug, bus.User, req.To), req, &r)
	return r, err
}

// SendSubject is where a message to this target is accepted.
func SendSubject(t testing.TB, slug, actor, to string) string {
	t.Helper()
	target, err := mesh.ParseTarget(to)
	if err != nil {
		return bus.SendSubject(slug, actor, "dm") // the daemon judges it
	}
	return bus.SendSubject(slug, actor, target.SendKind())
}

// Inbox lists what a session has received, oldest first.
func (s *Session) Inbox() []bus.InboxItem {
	s.Machine.T.Helper()
	var l bus.InboxList
	s.Do(bus.OpInboxList, bus.InboxQuery{Limit: 1000}, &l)
	return l.Items
}

// WaitMessage waits until the session's inbox holds a message with this text.
func (s *Session) WaitMessage(body string) bus.InboxItem {
	s.Machine.T.Helper()
	var found bus.InboxItem
	s.WaitInbox("message "+body, func(items []bus.InboxItem) bool {
		for _, it := range items {
			if it.Body == body {
				found = it
				return true
			}
		}
		return false
	})
	return found
}

// WaitInbox waits until the session's inbox satisfies ok.
func (s *Session) WaitInbox(what string, ok func([]bus.InboxItem) bool) {
	s.Machine.T.Helper()
	poke := make(chan struct{}, 1)
	sub, err := s.Client.Subscribe(bus.SessionMsgSubject(s.Info.Mesh, s.Info.ID), func(*nats.Msg) {
		select {
		case poke <- struct{}{}:
		default:
		}
	})
	if err != nil {
		s.Machine.T.Fatalf("subscribe to messages: %v", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	Wait(s.Machine.T, what, poke, func() bool { return ok(s.Inbox()) })
}

// WaitState waits until an accepted message has reached a state.
func (m *Machine) WaitState(slug, id, state string) bus.OutboxItem {
	m.T.Helper()
	poke := make(chan struct{}, 1)
	sub, err := m.User().Subscribe(bus.ReceiptSubject(slug, "*", "*"), func(*nats.Msg) {
		select {
		case poke <- struct{}{}:
		default:
		}
	})
	if err != nil {
		m.T.Fatalf("subscribe to receipts: %v", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	var item bus.OutboxItem
	defer func() {
		if item.State != state {
			m.T.Logf("message %s: %+v", id, item)
		}
	}()
	Wait(m.T, "message "+id+" to be "+state, poke, func() bool {
		m.Do(bus.OpOutboxGet, bus.OutboxGet{ID: id, Mesh: slug}, &item)
		return item.State == state
	})
	return item
}

// Refusal is the machine code of an API refusal, "" for success and for any other error.
func Refusal(err error) string {
	var e *bus.APIError
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

// Log collects a daemon's log for searches.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String is everything logged so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Tail is the last n lines.
func (l *Log) Tail(n int) string {
	lines := strings.Split(strings.TrimRight(l.String(), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// MemberKey is this machine's public key in a mesh.
func (m *Machine) MemberKey(slug string) string {
	m.T.Helper()
	for _, ms := range m.meshes() {
		if ms.Mesh == slug {
			return ms.Pubkey
		}
	}
	m.T.Fatalf("mesh %s is not joined", slug)
	return ""
}

func (m *Machine) meshes() []bus.MeshStatus {
	m.T.Helper()
	var s bus.Status
	m.Do(bus.OpStatus, nil, &s)
	return s.Meshes
}

// WaitDown waits until the member link of a mesh is not open.
func (m *Machine) WaitDown(slug string) {
	m.T.Helper()
	m.waitEvent(slug, "the link of mesh "+slug+" to break", func() bool {
		for _, ms := range m.meshes() {
			if ms.Mesh == slug {
				return ms.Link != "open"
			}
		}
		return false
	})
}

// Resume connects a session again after its daemon was restarted.
func Resume(m *Machine, s *Session) *Session {
	m.T.Helper()
	again := &Session{Machine: m, Info: s.Info, Client: connect(m.T, m.Dir(), s.Info.TokenFile, s.Info.ID)}
	m.T.Cleanup(again.Client.Close)
	return again
}
