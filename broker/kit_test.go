package broker

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/jonboulle/clockwork"
	"go.uber.org/goleak"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

func TestMain(m *testing.M) {
	if runAsChild() {
		return
	}
	goleak.VerifyTestMain(m)
}

const patience = 10 * time.Second // how long a test waits for what must come

// rig is a broker on a real embedded store, behind a real HTTP server on loopback.
type rig struct {
	t      testing.TB
	dir    string
	cfg    Config
	store  *bus.Server
	broker *Broker
	http   *httptest.Server
	mesh   Mesh
	owner  mesh.Identity
	alive  sync.Mutex // one stop at a time
}

func newRig(t testing.TB, edit ...func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), cfg: Config{Clock: clockwork.NewRealClock(), Log: slog.New(slog.NewTextHandler(testLog{t}, nil)), Version: "test", PublicURL: "ws://127.0.0.1:1/ws"}}
	for _, e := range edit {
		e(&r.cfg)
	}
	r.start()
	t.Cleanup(r.stop)
	r.owner = newIdentity(t)
	var err error
	if r.mesh, err = r.broker.CreateMesh(t.Context(), "Test mesh", r.owner.PublicKey(), "alice"); err != nil {
		t.Fatal(err)
	}
	return r
}

// testLog writes the broker's log into the test's.
type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", bytes.TrimSpace(p))
	return len(p), nil
}

func (r *rig) start() {
	r.t.Helper()
	var err error
	if r.store, err = bus.StartStore(r.dir, nil, 2<<30); err != nil {
		r.t.Fatal(err)
	}
	if r.cfg.NC, err = r.store.BrokerConn(); err != nil {
		r.t.Fatal(err)
	}
	if r.broker, err = Open(r.t.Context(), r.cfg); err != nil {
		r.t.Fatal(err)
	}
	r.http = httptest.NewServer(r.broker.Handler())
}

// stop is what a graceful exit does; it may be called again.
func (r *rig) stop() {
	r.alive.Lock()
	defer r.alive.Unlock()
	if r.broker == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.broker.Close(ctx); err != nil {
		r.t.Error(err)
	}
	r.http.Close()
	r.cfg.NC.Close()
	r.store.Shutdown(ctx)
	r.broker = nil
}

func (r *rig) restart() { r.t.Helper(); r.stop(); r.start() }

func (r *rig) wsURL() string { return "ws" + strings.TrimPrefix(r.http.URL, "http") + "/ws" }

// addMember makes a member as /join would.
func (r *rig) addMember(name string) mesh.Identity {
	r.t.Helper()
	who := newIdentity(r.t)
	r.addMemberAs(memberRecord{ID: mustID(r.t), Pubkey: who.PublicKey(), Name: name, Role: "member"})
	return who
}

func (r *rig) addMemberAs(rec memberRecord) {
	r.t.Helper()
	if err := r.broker.store.put(r.t.Context(), memberKey(r.mesh.ID, rec.Pubkey), rec); err != nil {
		r.t.Fatal(err)
	}
	r.broker.mu.Lock()
	r.broker.meshes[r.mesh.ID].members[rec.Pubkey] = &member{memberRecord: rec}
	r.broker.mu.Unlock()
}

func (r *rig) memberID(who mesh.Identity) string {
	r.broker.mu.RLock()
	defer r.broker.mu.RUnlock()
	if m := r.broker.meshes[r.mesh.ID].members[who.PublicKey()]; m != nil {
		return m.ID
	}
	return "none"
}

func newIdentity(t testing.TB) mesh.Identity {
	t.Helper()
	id, err := mesh.NewIdentity(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func mustID(t testing.TB) string {
	t.Helper()
	id, err := newID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// client is one WebSocket. Frames are read by a goroutine into a queue without bound, so that a test never slows the broker by accident.
type client struct {
	t    testing.TB
	ws   *websocket.Conn
	got  chan []byte
	end  chan struct{}
	err  error // valid after end
	seq  int
	held [][]byte // read while waiting for something else
}

func (r *rig) dial() *client { r.t.Helper(); return dialWS(r.t, r.wsURL()) }

func dialWS(t testing.TB, url string) *client {
	t.Helper()
	ws, _, err := websocket.DefaultDialer.Dial(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return adopt(t, ws)
}

func adopt(t testing.TB, ws *websocket.Conn) *client {
	c := &client{t: t, ws: ws, got: make(chan []byte, 100_000), end: make(chan struct{})}
	go func() {
		defer close(c.end)
		for {
			_, data, err := ws.ReadMessage()
			if err != nil {
				c.err = err
				ws.Close()
				return
			}
			c.got <- data
		}
	}()
	t.Cleanup(func() { c.close() })
	return c
}

func (c *client) close() {
	_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(time.Second))
	select {
	case <-c.end:
	case <-time.After(2 * time.Second):
		c.ws.Close()
		<-c.end
	}
}

func (c *client) write(v any) {
	c.t.Helper()
	data, ok := v.([]byte)
	if !ok {
		var err error
		if data, err = json.Marshal(v); err != nil {
			c.t.Fatal(err)
		}
	}
	if err := c.ws.WriteMessage(websocket.TextMessage, data); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// next returns the first frame that fits, keeping the others for later calls.
func (c *client) next(fits func(head wire.Head, data []byte) bool) []byte {
	c.t.Helper()
	for i, data := range c.held {
		if h, _ := wire.Peek(data); fits(h, data) {
			c.held = append(c.held[:i], c.held[i+1:]...)
			return data
		}
	}
	limit := time.After(patience)
	for {
		select {
		case data := <-c.got:
			if h, _ := wire.Peek(data); fits(h, data) {
				return data
			}
			c.held = append(c.held, data)
		case <-c.end:
			select {
			case data := <-c.got:
				if h, _ := wire.Peek(data); fits(h, data) {
					return data
				}
				c.held = append(c.held, data)
				continue
			default:
			}
			c.t.Fatalf("socket ended (%v) while waiting; held %d: %.300s", c.err, len(c.held), bytes.Join(c.held, []byte("\n")))
		case <-limit:
			c.t.Fatalf("no such frame; held %d: %.600s", len(c.held), bytes.Join(c.held, []byte("\n")))
		}
	}
}

func into[T any](c *client, data []byte) T {
	c.t.Helper()
	var v T
	if err := json.Unmarshal(data, &v); err != nil {
		c.t.Fatal(err)
	}
	return v
}

func (c *client) wait(frameType string) []byte {
	c.t.Helper()
	return c.next(func(h wire.Head, _ []byte) bool { return h.Type == frameType })
}

// message waits for the next push that is a message.
func (c *client) message() wire.Push {
	c.t.Helper()
	return into[wire.Push](c, c.next(func(h wire.Head, d []byte) bool {
		return h.Type == wire.TypePush && !bytes.Contains(d, []byte(`"subtype":"system"`))
	}))
}

func (c *client) event(name string) wire.Push {
	c.t.Helper()
	return into[wire.Push](c, c.next(func(h wire.Head, d []byte) bool {
		return h.Type == wire.TypePush && bytes.Contains(d, []byte(`"event":"`+name+`"`))
	}))
}

// eventOf waits for an event about one routing key.
func (c *client) eventOf(name, key string) wire.Push {
	c.t.Helper()
	return into[wire.Push](c, c.next(func(h wire.Head, d []byte) bool {
		return h.Type == wire.TypePush && bytes.Contains(d, []byte(`"event":"`+name+`"`)) && bytes.Contains(d, []byte(key))
	}))
}

// call sends a request and returns its answer.
func (c *client) call(frameType string, fields map[string]any) []byte {
	c.t.Helper()
	c.seq++
	id := fmt.Sprintf("q%d", c.seq)
	f := map[string]any{"type": frameType, "_reqId": id}
	for k, v := range fields {
		f[k] = v
	}
	c.write(f)
	return c.next(func(h wire.Head, _ []byte) bool { return h.ReqID == id })
}

// settle returns once the broker has handled everything this client wrote before.
func (c *client) settle() { c.t.Helper(); c.call(wire.TypeListPeers, nil) }

// quiet fails if a message has been pushed; call it after something that orders it behind.
func (c *client) quiet() {
	c.t.Helper()
	for {
		select {
		case data := <-c.got:
			c.held = append(c.held, data)
			continue
		default:
		}
		break
	}
	for _, data := range c.held {
		if h, _ := wire.Peek(data); h.Type == wire.TypePush && !bytes.Contains(data, []byte(`"subtype":"system"`)) {
			c.t.Fatalf("unexpected %s", data)
		}
	}
}

// closed waits for the end of the socket and returns the close code and reason.
func (c *client) closed() (int, string) {
	c.t.Helper()
	select {
	case <-c.end:
	case <-time.After(patience):
		c.t.Fatal("socket still open")
	}
	if e, ok := c.err.(*websocket.CloseError); ok {
		return e.Code, e.Text
	}
	return 0, c.err.Error()
}

func (r *rig) helloFrame(who mesh.Identity, edit ...func(*wire.Hello)) wire.Hello {
	h := wire.Hello{MeshID: r.mesh.ID, MemberID: r.memberID(who), SessionID: "s-" + who.PublicKey()[:8], PID: 1, Cwd: "/"}
	h.Capabilities = []string{wire.CapClientAck, wire.CapReceipts}
	for _, e := range edit {
		e(&h)
	}
	return wire.SignHello(h, who, r.now())
}

func (r *rig) now() time.Time { return r.broker.now() }

// member connects a member.
func (r *rig) member(who mesh.Identity, edit ...func(*wire.Hello)) *client {
	r.t.Helper()
	c := r.dial()
	c.write(r.helloFrame(who, edit...))
	c.wait(wire.TypeHelloAck)
	return c
}

func (r *rig) sessionFrame(who, key mesh.Identity, edit ...func(*wire.SessionHello)) wire.SessionHello {
	h := wire.SessionHello{MeshID: r.mesh.ID, ParentMemberID: r.memberID(who), SessionID: "session-" + key.PublicKey()[:8], PID: 2, Cwd: "/work"}
	h.Capabilities = []string{wire.CapClientAck}
	for _, e := range edit {
		e(&h)
	}
	return wire.SignSessionHello(h, who, key, r.now(), time.Hour)
}

func (r *rig) session(who, key mesh.Identity, edit ...func(*wire.SessionHello)) *client {
	r.t.Helper()
	c := r.dial()
	c.write(r.sessionFrame(who, key, edit...))
	c.wait(wire.TypeHelloAck)
	return c
}

func sendFrame(id, target, text string) wire.Send {
	return wire.Send{
		Type: wire.TypeSend, ID: id, ClientMessageID: id, TargetSpec: target, Priority: wire.PriorityNext, Nonce: "bm9uY2U=",
		Ciphertext: base64.StdEncoding.EncodeToString([]byte(text)),
	}
}

// send sends one message and returns its ack.
func (c *client) send(f wire.Send) wire.Ack {
	c.t.Helper()
	c.write(f)
	return c.ack(f.ID)
}

func (c *client) ack(id string) wire.Ack {
	c.t.Helper()
	return into[wire.Ack](c, c.next(func(h wire.Head, d []byte) bool {
		return h.Type == wire.TypeAck && bytes.Contains(d, []byte(`"id":"`+id+`"`))
	}))
}

func (c *client) mustSend(f wire.Send) wire.Ack {
	c.t.Helper()
	a := c.send(f)
	if !a.Queued {
		c.t.Fatalf("send refused: %+v", a)
	}
	return a
}

func text(p wire.Push) string {
	b, _ := base64.StdEncoding.DecodeString(p.Ciphertext)
	return string(b)
}

func (c *client) clientAck(p wire.Push, state string) {
	c.t.Helper()
	c.write(wire.ClientAck{Type: wire.TypeClientAck, BrokerMessageID: p.MessageID, ClientMessageID: p.ClientMessageID, State: state})
}

// mailIn waits until a mailbox holds n entries in the store.
func (r *rig) mailIn(subject string, n int) {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		info, err := r.broker.store.mail.Info(r.t.Context(), withSubject(subject))
		if err != nil {
			r.t.Fatal(err)
		}
		if int(info.State.Subjects[subject]) == n {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s holds %d, want %d", subject, info.State.Subjects[subject], n)
		}
		time.Sleep(2 * time.Millisecond) // polling a state that nobody announces
	}
}

func (r *rig) mailboxOf(who mesh.Identity) string { return mailSubject(r.mesh.ID, who.PublicKey()) }

func withoutAcks(h *wire.Hello) { h.Capabilities = nil }

func fakeClock(at time.Time) (*clockwork.FakeClock, func(*Config)) {
	c := clockwork.NewFakeClockAt(at)
	return c, func(cfg *Config) { cfg.Clock = c }
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
