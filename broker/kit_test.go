package broker

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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
	t          testing.TB
	dir        string
	cfg        Config
	store      *bus.Server
	broker     *Broker
	http       *httptest.Server
	mesh       Mesh
	owner      mesh.Identity
	lastMember mesh.Identity
	alive      sync.Mutex   // one stop at a time
	signed     atomic.Int64 // uploads
}

func newRig(t testing.TB, edit ...func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), cfg: Config{Clock: clockwork.NewRealClock(), Log: slog.New(slog.NewTextHandler(testLog{t}, nil)), Version: "test", PublicURL: "ws://127.0.0.1:1/ws"}}
	r.cfg.Limits.Lease = 1000 * 24 * time.Hour // a clock that is moved on must not make mail come twice
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

func (r *rig) start() { r.t.Helper(); r.startStore(); r.startBroker() }

func (r *rig) startStore() {
	r.t.Helper()
	var err error
	if r.store, err = bus.StartStore(r.dir, nil, 2<<30); err != nil {
		r.t.Fatal(err)
	}
	if r.cfg.NC, err = r.store.BrokerConn(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) startBroker() {
	r.t.Helper()
	var err error
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
	r.lastMember = who
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
	if m := r.broker.meshes[r.mesh.ID]; m != nil && m.members[who.PublicKey()] != nil {
		return m.members[who.PublicKey()].ID
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
	h := wire.SessionHello{MeshID: r.mesh.ID, ParentMemberID: r.memberID(who), SessionID: "session-" + key.PublicKey()[:8], PID: 2, Cwd: "/src"}
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

// mailIn waits until a mailbox holds n entries in the store, and the broker has counted them.
func (r *rig) mailIn(subject string, n int) {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		info, err := r.broker.store.holding(subject).Info(r.t.Context(), withSubject(subject))
		if err != nil {
			r.t.Fatal(err)
		}
		if int(info.State.Subjects[subject]) == n && r.broker.store.depth.get(subject) == n {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s holds %d, want %d", subject, info.State.Subjects[subject], n)
		}
		time.Sleep(2 * time.Millisecond) // polling a state that nobody announces
	}
}

// watchesChecked waits until every watch has been checked once and no check is under way.
func (r *rig) watchesChecked() {
	r.t.Helper()
	r.until("the watches to be checked", func() bool {
		w := r.broker.watches
		w.mu.Lock()
		all := slices.Collect(maps.Values(w.all))
		busy := w.total > 0
		w.mu.Unlock()
		return !busy && !slices.ContainsFunc(all, func(one *watch) bool { return one.info().LastCheck == "" })
	})
}

// fresh waits for the next message that was not seen before, and acknowledges it. Delivery is at least once: a message that was acknowledged right before
// the broker ended may come again, under its own id.
func (c *client) fresh(seen map[string]bool) wire.Push {
	c.t.Helper()
	for {
		p := into[wire.Push](c, c.next(func(h wire.Head, d []byte) bool { return h.Type == wire.TypePush && into[wire.Push](c, d).Kept() }))
		c.clientAck(p, "")
		if !seen[p.MessageID] {
			seen[p.MessageID] = true
			return p
		}
	}
}

// until polls a state that nobody announces.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("waited for %s", what)
		}
	}
}

// noMail waits until every mailbox has been emptied.
func (r *rig) noMail() {
	r.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) { // polling a state that nobody announces
		info, err := r.broker.store.mail.Info(r.t.Context())
		if err != nil {
			r.t.Fatal(err)
		}
		if info.State.Msgs == 0 {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%d messages are still in mailboxes", info.State.Msgs)
		}
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
