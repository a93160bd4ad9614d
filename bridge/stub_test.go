package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"claudemesh/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// scripted is a broker whose every word the test decides: a real WebSocket server that hands each connection to the test.
type scripted struct {
	t     *testing.T
	url   string
	conns chan *peer
}

// peer is the broker's end of one connection.
type peer struct {
	t  *testing.T
	ws *websocket.Conn
}

func newScripted(t *testing.T) *scripted {
	t.Helper()
	b := &scripted{t: t, conns: make(chan *peer, 64)}
	up := websocket.Upgrader{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		t.Cleanup(func() { ws.Close() })
		b.conns <- &peer{t, ws}
	}))
	b.url = "ws" + strings.TrimPrefix(s.URL, "http") + "/ws"
	t.Cleanup(s.Close)
	return b
}

// next is the next connection; it fails the test when none comes.
func (b *scripted) next() *peer {
	b.t.Helper()
	select {
	case p := <-b.conns:
		return p
	case <-time.After(patience):
		b.t.Fatal("no connection came")
		return nil
	}
}

// open is the next connection with hello read and accepted.
func (b *scripted) open(capabilities ...string) *peer {
	b.t.Helper()
	p := b.next()
	p.read(nil)
	p.welcome(capabilities...)
	return p
}

func (p *peer) welcome(capabilities ...string) {
	p.t.Helper()
	p.write(wire.HelloAck{Type: wire.TypeHelloAck, PresenceID: "p", Capabilities: capabilities})
}

func (p *peer) write(frame any) {
	p.t.Helper()
	data, err := json.Marshal(frame)
	if err != nil {
		p.t.Fatal(err)
	}
	p.writeRaw(string(data))
}

func (p *peer) writeRaw(s string) {
	p.t.Helper()
	if err := p.ws.WriteMessage(websocket.TextMessage, []byte(s)); err != nil {
		p.t.Fatalf("broker write: %v", err)
	}
}

// read reads the next frame into v (may be nil) and returns its head.
func (p *peer) read(v any) wire.Head {
	p.t.Helper()
	_ = p.ws.SetReadDeadline(time.Now().Add(patience))
	_, data, err := p.ws.ReadMessage()
	if err != nil {
		p.t.Fatalf("broker read: %v", err)
	}
	h, err := wire.Peek(data)
	if err != nil {
		p.t.Fatal(err)
	}
	if v != nil {
		if err := wire.Decode(data, v); err != nil {
			p.t.Fatal(err)
		}
	}
	return h
}

// readEnd returns the error that ends the connection, skipping frames.
func (p *peer) readEnd() error {
	p.t.Helper()
	_ = p.ws.SetReadDeadline(time.Now().Add(patience))
	for {
		if _, _, err := p.ws.ReadMessage(); err != nil {
			if e, ok := err.(interface{ Timeout() bool }); ok && e.Timeout() {
				p.t.Fatal("the link did not end the connection")
			}
			return err
		}
	}
}

func (p *peer) sayClose(code int, reason string) {
	_ = p.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(time.Second))
}

func (p *peer) close(code int, reason string) {
	p.sayClose(code, reason)
	p.ws.Close()
}

// running is a link and the end of its Run.
type running struct {
	*Link
	t      *testing.T
	cancel context.CancelFunc
	ended  chan error
}

func run(t *testing.T, cfg LinkConfig) *running {
	t.Helper()
	if cfg.Hello == nil {
		cfg.Hello = func(now time.Time) (any, error) {
			return wire.Hello{Type: wire.TypeHello, MeshID: "m", SessionID: "s", Timestamp: now.UnixMilli()}, nil
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Link: NewLink(cfg), t: t, cancel: cancel, ended: make(chan error, 1)}
	done := make(chan struct{})
	go func() { defer close(done); r.ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(patience):
			t.Error("Run did not return after its context ended")
		}
	})
	return r
}

func (r *running) waitOpen() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.WaitOpen(ctx); err != nil {
		r.t.Fatalf("not open: %v (%+v)", err, r.State())
	}
}

func (r *running) end() error {
	r.t.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(patience):
		r.t.Fatal("Run did not end")
		return nil
	}
}

// states collects a link's states.
func states() (func(State), <-chan State) {
	ch := make(chan State, 1024)
	return func(s State) { ch <- s }, ch
}

func await(t *testing.T, ch <-chan State, phase Phase) State {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case s := <-ch:
			if s.Phase == phase {
				return s
			}
		case <-timeout:
			t.Fatalf("phase %s did not come", phase)
		}
	}
}

func receive[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func push(id string) wire.Push {
	return wire.Push{Type: wire.TypePush, MessageID: "b-" + id, ClientMessageID: id, MeshID: "m", SenderPubkey: "k", Priority: wire.PriorityNext, Nonce: "bg==", Ciphertext: "Yw=="}
}

func send(id string) wire.Send {
	return wire.Send{ID: id, ClientMessageID: id, TargetSpec: "*", Priority: wire.PriorityNext, Nonce: "bg==", Ciphertext: "Yw=="}
}

var errDisk = errors.New("disk full")

// each makes a handler of batches of one for single pushes, which is how most tests look at them.
func each(fn func(context.Context, wire.Push) error) func(context.Context, []wire.Push) ([]wire.ClientAck, error) {
	return func(ctx context.Context, batch []wire.Push) ([]wire.ClientAck, error) {
		for _, p := range batch {
			if err := fn(ctx, p); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}
}
