package daemon

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"go.uber.org/goleak"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/daemon/session"
	"claudemesh/mesh"
	"claudemesh/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newIdentity(t testing.TB) mesh.Identity {
	t.Helper()
	id, err := mesh.NewIdentity(rand.Reader)
	must(t, err)
	return id
}

// running is a daemon with one mesh on its own broker, the link open.
func running(t *testing.T) (*Daemon, *meshRun) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "cm") // a socket's path has about 100 bytes
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d, err := Start(t.Context(), Options{Dir: filepath.Join(dir, "d"), ConfigDir: dir, NoTCP: true, Version: "0.0.0-test", DisplayName: "owner"})
	must(t, err)
	t.Cleanup(func() { must(t, d.Stop()) })
	_, err = ask[bus.MeshJoined](t, d.createMesh, bus.User, "", "", bus.MeshCreate{Name: "team"})
	must(t, err)
	m, err := d.mesh("team")
	must(t, err)
	eventually(t, "the link to open", m.online)
	return d, m
}

// ask calls a handler as the bus does.
func ask[T any](t testing.TB, h bus.Handler, actor, slug, op string, in any) (out T, err error) {
	t.Helper()
	data, err := json.Marshal(in)
	must(t, err)
	v, err := h(context.Background(), &bus.Call{Actor: actor, Slug: slug, Op: op, Data: data})
	if err != nil {
		return out, err
	}
	out, ok := v.(T)
	if !ok {
		t.Fatalf("the answer is a %T", v)
	}
	return out, nil
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick, end := time.NewTicker(10*time.Millisecond), time.NewTimer(patience)
	defer tick.Stop()
	defer end.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatalf("waited for %s", what)
		}
	}
}

// still is a mesh that has stores but no links that run: enough to judge what comes in.
func still(t *testing.T) *meshRun {
	t.Helper()
	clock := clockwork.NewFakeClock()
	store, err := session.Open(filepath.Join(t.TempDir(), "s.db"), clock, rand.Reader)
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	id := newIdentity(t)
	m := &meshRun{
		d:      &Daemon{opt: Options{Clock: clock}.withDefaults(), session: store},
		joined: mesh.Joined{Slug: "team", Pubkey: id.PublicKey()}, member: id, wake: make(chan struct{}, 1),
	}
	m.ctx, m.cancel = context.WithCancel(t.Context())
	m.links = bridge.NewMesh(bridge.MeshConfig{Slug: "team", Member: id, Handler: nobody{}})
	m.roster, m.trust = newRoster(m), newTrust(m)
	return m
}

type nobody struct{}

func (nobody) Push(context.Context, bridge.Source, []wire.Push) ([]wire.ClientAck, error) {
	return nil, nil
}
func (nobody) Receipts(context.Context, []wire.Receipt) error       { return nil }
func (nobody) State(bridge.Source, bridge.State)                    {}
func (nobody) Frame(context.Context, bridge.Source, string, []byte) {}

// refusedWith checks the code and reason of a refusal and returns its further fields.
func refusedWith(t testing.TB, err error, code int, reason string) map[string]any {
	t.Helper()
	var e *bus.APIError
	if !errors.As(err, &e) || e.Code != code || e.Reason != reason {
		t.Errorf("error is %v, want %d %s", err, code, reason)
		return nil
	}
	fields := map[string]any{}
	if e.Data != nil {
		must(t, e.DecodeData(&fields))
	}
	return fields
}
