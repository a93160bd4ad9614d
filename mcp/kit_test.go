package mcp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"go.uber.org/goleak"

	"claudemesh/bus"
	"claudemesh/mcp/feed"
	"claudemesh/mesh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	slug      = "team"
	sessionID = "s-1"
	patience  = 30 * time.Second
)

var token = strings.Repeat("ab", 32)

// fakeDaemon is the real bus with scripted answers.
type fakeDaemon struct {
	t   *testing.T
	dir string

	mu       sync.Mutex
	pending  []bus.InboxItem
	refuse   bool          // refuse reports
	mode     string        // the member's message mode
	quiet    bool          // another client holds the session
	met      chan struct{} // one for each session-me
	shims    chan bus.Shim // what the shim says of itself
	pushed   chan bus.MessageIDs
	asked    chan struct{} // one for each inbox-pending
	attached chan bus.SessionAttach
	refusal  error                  // of session-attach
	calls    map[string]bus.Handler // the broker's operations

	server  *bus.Server
	service *bus.Service
}

func newDaemon(t *testing.T) *fakeDaemon {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "cm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &fakeDaemon{t: t, dir: dir, pushed: make(chan bus.MessageIDs, 1000), asked: make(chan struct{}, 1000), met: make(chan struct{}, 1000), shims: make(chan bus.Shim, 1000), attached: make(chan bus.SessionAttach, 1000), calls: map[string]bus.Handler{}}
}

func (d *fakeDaemon) start(known bool) {
	d.t.Helper()
	grants := map[bus.Hash]bus.Grant{}
	if known {
		grants[bus.HashToken(token)] = d.grant()
	}
	var err error
	if d.server, err = bus.StartServer(bus.ServerConfig{Dir: d.dir, Grants: grants}); err != nil {
		d.t.Fatal(err)
	}
	nc, err := d.server.ServiceConn()
	if err != nil {
		d.t.Fatal(err)
	}
	if d.service, err = bus.NewService(nc, "test", nil); err != nil {
		d.t.Fatal(err)
	}
	for op, h := range map[string]bus.Handler{
		bus.OpSessionMe: func(context.Context, *bus.Call) (any, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			select {
			case d.met <- struct{}{}:
			default:
			}
			return d.me(), nil
		},
		bus.OpShim: func(_ context.Context, c *bus.Call) (any, error) {
			var req bus.Shim
			if err := c.Decode(&req); err != nil {
				return nil, err
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			d.shims <- req
			return bus.ShimState{SessionInfo: d.me(), Quiet: d.quiet}, nil
		},
		bus.OpSessionAttach: func(_ context.Context, c *bus.Call) (any, error) {
			var req bus.SessionAttach
			if err := c.Decode(&req); err != nil {
				return nil, err
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			d.attached <- req
			if c.Actor != bus.User || d.refusal != nil {
				return nil, d.refusal
			}
			file := tokenFile(d.t, d.dir)
			if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
				return nil, err
			}
			if err := d.server.Grants().Add(bus.HashToken(token), d.grant()); err != nil {
				return nil, err
			}
			me := d.me()
			me.TokenFile = file
			return me, nil
		},
		bus.OpInboxPending: func(_ context.Context, c *bus.Call) (any, error) {
			var q bus.InboxQuery
			if err := c.Decode(&q); err != nil || q.Via != bus.ViaChannel {
				return nil, &bus.APIError{Code: 400, Reason: "bad_request"}
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			d.asked <- struct{}{}
			return bus.InboxList{Items: slices.Clone(d.pending[:min(len(d.pending), pendingLimit)])}, nil
		},
		bus.OpInboxPushed: func(_ context.Context, c *bus.Call) (any, error) {
			var ids bus.MessageIDs
			if err := c.Decode(&ids); err != nil {
				return nil, err
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.refuse {
				return nil, &bus.APIError{Code: 500, Reason: "internal"}
			}
			d.pending = slices.DeleteFunc(d.pending, func(it bus.InboxItem) bool { return slices.Contains(ids.IDs, it.ID) })
			d.pushed <- ids
			return bus.Count{N: len(ids.IDs)}, nil
		},
	} {
		if err := d.service.Handle(op, bus.AnyDaemonOp(op), 64<<10, h); err != nil {
			d.t.Fatal(err)
		}
	}
	err = d.service.Handle("call", bus.AnyCall, 64<<10, func(ctx context.Context, c *bus.Call) (any, error) {
		d.mu.Lock()
		h := d.calls[c.Op]
		d.mu.Unlock()
		if h == nil {
			return nil, &bus.APIError{Code: 503, Reason: "mesh_down"}
		}
		return h(ctx, c)
	})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(d.stop)
}

// me describes the session; d.mu is held.
func (d *fakeDaemon) me() bus.SessionInfo {
	return bus.SessionInfo{ID: sessionID, Mesh: slug, Name: "alice", Pubkey: ownKey, Groups: []mesh.Group{{Name: "reviewers"}}, MessageMode: d.mode}
}

// when scripts an operation of the broker.
func (d *fakeDaemon) when(op string, h bus.Handler) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls[op] = h
}

// channel is where messages for the shim are published.
var channel = bus.WakeSubject(slug, sessionID, bus.RungChannel)

var ownKey = strings.Repeat("9", 64)

func (d *fakeDaemon) grant() bus.Grant {
	return bus.Grant{Role: bus.RoleSession, Actor: sessionID, Mesh: slug, Groups: []string{"reviewers"}}
}

func (d *fakeDaemon) stop() {
	if d.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := errors.Join(d.service.Shutdown(ctx), d.server.Shutdown(ctx)); err != nil {
		d.t.Error(err)
	}
	d.server = nil
}

func (d *fakeDaemon) keep(items ...bus.InboxItem) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pending = append(d.pending, items...)
}

func (d *fakeDaemon) publish(subject string, v any) {
	d.t.Helper()
	nc, err := d.server.BusConn()
	if err != nil {
		d.t.Fatal(err)
	}
	defer nc.Close()
	b, ok := v.([]byte)
	if !ok {
		if b, err = json.Marshal(v); err != nil {
			d.t.Fatal(err)
		}
	}
	if err := errors.Join(nc.Publish(subject, b), nc.Flush()); err != nil {
		d.t.Fatal(err)
	}
}

// wait returns the next value of a channel.
func wait[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// awaitPushed waits until every id has been reported.
func (d *fakeDaemon) awaitPushed(ids ...string) {
	d.t.Helper()
	open := map[string]bool{}
	for _, id := range ids {
		open[id] = true
	}
	for len(open) > 0 {
		got := wait(d.t, "a report of "+strings.Join(ids, ", "), d.pushed)
		if got.Via != bus.ViaChannel {
			d.t.Errorf("reported via %q", got.Via)
		}
		for _, id := range got.IDs {
			delete(open, id)
		}
	}
}

func item(id, body string) bus.InboxItem {
	return bus.InboxItem{
		ID: id, ClientMessageID: "c-" + id, BrokerMessageID: "b-" + id, Mesh: slug, FromName: "bob", FromKey: strings.Repeat("1", 64), FromMemberKey: strings.Repeat("2", 64),
		To: "alice", Priority: "next", Body: body, ReceivedAt: "2026-01-02T03:04:05.678Z", State: bus.StateDelivered,
	}
}

// shimRun is Serve with a client at its other end.
type shimRun struct {
	t      *testing.T
	in     *io.PipeWriter
	out    *io.PipeReader
	log    *lockedBuffer
	done   chan error
	cancel context.CancelFunc
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func sessionEnv(name string) string {
	return map[string]string{feed.EnvSession: sessionID, feed.EnvToken: token, feed.EnvMesh: slug, feed.EnvName: "alice"}[name]
}

func serve(t *testing.T, cfg Config) *shimRun {
	t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	log := &lockedBuffer{}
	ctx, cancel := context.WithCancel(context.Background())
	s := &shimRun{t: t, in: inW, out: outR, log: log, done: make(chan error, 1), cancel: cancel}
	if cfg.Out == nil {
		cfg.Out = outW
	}
	if cfg.Getenv == nil {
		cfg.Getenv = sessionEnv
	}
	if cfg.Settle == 0 && cfg.Clock == nil {
		cfg.Settle = -1
	}
	cfg.In, cfg.Err, cfg.Version = inR, log, "test"
	go func() {
		err := Serve(ctx, cfg)
		outW.Close()
		inR.Close()
		s.done <- err
	}()
	t.Cleanup(func() {
		cancel()
		inW.Close()
		outR.Close()
		if t.Failed() {
			t.Logf("log of the shim:\n%s", log)
		}
	})
	return s
}

// client is the SDK's client, which also hands out the channel notifications.
type client struct {
	session  *sdk.ClientSession
	messages chan channelParams
}

func (s *shimRun) client() *client {
	s.t.Helper()
	c := &client{messages: make(chan channelParams, 1000)}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	session, err := sdk.NewClient(&sdk.Implementation{Name: "test"}, nil).Connect(ctx, &tapTransport{&sdk.IOTransport{Reader: s.out, Writer: s.in}, c.messages}, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { session.Close() })
	c.session = session
	return c
}

// tapTransport takes the channel notifications out of what the SDK's client reads: it does not know them.
type tapTransport struct {
	sdk.Transport
	messages chan<- channelParams
}

func (t *tapTransport) Connect(ctx context.Context) (sdk.Connection, error) {
	conn, err := t.Transport.Connect(ctx)
	return &tapConn{conn, t.messages}, err
}

type tapConn struct {
	sdk.Connection
	messages chan<- channelParams
}

func (c *tapConn) Read(ctx context.Context) (jsonrpc.Message, error) {
	for {
		msg, err := c.Connection.Read(ctx)
		req, ok := msg.(*jsonrpc.Request)
		if err != nil || !ok || req.Method != methodChannel {
			return msg, err
		}
		var p channelParams
		if err := json.Unmarshal(req.Params, &p); err != nil {
			return nil, err
		}
		c.messages <- p
	}
}

// end waits for Serve.
func (s *shimRun) end() error {
	s.t.Helper()
	return wait(s.t, "the end of the shim", s.done)
}

func tokenFile(t *testing.T, dir string) string { return filepath.Join(dir, "session-token") }
