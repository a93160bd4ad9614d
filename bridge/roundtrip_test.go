package bridge_test

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"claudemesh/bridge"
	"claudemesh/broker"
	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/testenv/faultproxy"
	"claudemesh/wire"
)

const patience = 30 * time.Second

// inbox is a Handler whose store may fail.
type inbox struct {
	fail     atomic.Bool
	pushes   chan wire.Push
	receipts chan wire.Receipt
	down     chan struct{} // the member's link waits
}

func (i *inbox) Push(_ context.Context, _ bridge.Source, batch []wire.Push) ([]wire.ClientAck, error) {
	for _, p := range batch {
		if err := i.push(p); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func (i *inbox) push(p wire.Push) error {
	if p.Subtype == wire.SubtypeSystem {
		return nil
	}
	i.pushes <- p
	if i.fail.Swap(false) {
		return errors.New("disk full")
	}
	return nil
}

func (i *inbox) Receipts(_ context.Context, batch []wire.Receipt) error {
	for _, r := range batch {
		i.receipts <- r
	}
	return nil
}

func (i *inbox) Frame(context.Context, bridge.Source, string, []byte) {}

func (i *inbox) State(from bridge.Source, s bridge.State) {
	if from.Session == "" && s.Phase == bridge.Waiting {
		select {
		case i.down <- struct{}{}:
		default:
		}
	}
}

// rig is a daemon's links, a fault proxy, and a real broker on a real store.
type rig struct {
	t       *testing.T
	ctx     context.Context
	proxy   *faultproxy.Proxy
	mesh    *bridge.Mesh
	inbox   *inbox
	session mesh.Identity
}

func newRig(t *testing.T) *rig {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	store, err := bus.StartStore(t.TempDir(), nil, 3<<30)
	must(err)
	t.Cleanup(func() { store.Shutdown(context.WithoutCancel(ctx)) })
	nc, err := store.BrokerConn()
	must(err)
	t.Cleanup(nc.Close)
	b, err := broker.Open(ctx, broker.Config{NC: nc})
	must(err)
	t.Cleanup(func() { _ = b.Close(context.WithoutCancel(ctx)) })
	server := httptest.NewServer(b.Handler())
	t.Cleanup(server.Close)
	member, err := mesh.NewIdentity(rand.Reader)
	must(err)
	session, err := mesh.NewIdentity(rand.Reader)
	must(err)
	made, err := b.CreateMesh(ctx, "acme", member.PublicKey(), "ada")
	must(err)
	proxy, err := faultproxy.New(server.Listener.Addr().String(), faultproxy.WithFrames(nil))
	must(err)
	t.Cleanup(proxy.Close)

	r := &rig{t: t, ctx: ctx, proxy: proxy, session: session, inbox: &inbox{pushes: make(chan wire.Push, 64), receipts: make(chan wire.Receipt, 64), down: make(chan struct{}, 1)}}
	r.mesh = bridge.NewMesh(bridge.MeshConfig{
		Slug: made.Slug, MeshID: made.ID, MemberID: made.MemberID, BrokerURL: proxy.URL(), Member: member, DisplayName: "ada", Cwd: "/w", PID: 1,
		Backoff: 50 * time.Millisecond, Handler: r.inbox,
	})
	must(r.mesh.AddSession(bridge.SessionIdentity{ID: "s1", Name: "worker", Key: session, Cwd: "/w", PID: 2}))
	run, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.mesh.Run(run) }()
	t.Cleanup(func() { stop(); <-done })
	r.open()
	return r
}

// open waits until both links are open.
func (r *rig) open() {
	r.t.Helper()
	link, _ := r.mesh.Session("s1")
	for _, l := range []*bridge.Link{r.mesh.Member(), link} {
		if err := l.WaitOpen(r.ctx); err != nil {
			r.t.Fatalf("%v: %+v", err, l.State())
		}
	}
}

// letter is a message from the member to the session.
func (r *rig) letter(id string) wire.Send {
	return wire.Send{ID: id, ClientMessageID: id, TargetSpec: r.session.PublicKey(), Priority: wire.PriorityNext, Nonce: "bg==", Ciphertext: "Yw=="}
}

func take[T any](r *rig, ch <-chan T) T {
	r.t.Helper()
	select {
	case v := <-ch:
		return v
	case <-r.ctx.Done():
		r.t.Fatal("nothing came")
		panic("unreachable")
	}
}

func TestWithTheRealBroker(t *testing.T) {
	t.Run("a message goes round: ack, push, receipt", func(t *testing.T) {
		r := newRig(t)
		ack, err := r.mesh.Member().Send(r.ctx, r.letter("m1"))
		if err != nil || !ack.Queued || ack.MessageID == "" {
			t.Fatalf("%+v, %v", ack, err)
		}
		if p := take(r, r.inbox.pushes); p.ClientMessageID != "m1" || p.MessageID != ack.MessageID {
			t.Fatalf("%+v", p)
		}
		if got := take(r, r.inbox.receipts); got.State != wire.StateDelivered || got.ClientMessageID != "m1" || got.RecipientPubkey != r.session.PublicKey() {
			t.Fatalf("%+v", got)
		}
		if !r.mesh.Member().State().Has(wire.CapClientAck) {
			t.Fatalf("%+v", r.mesh.Member().State())
		}
		for _, op := range []string{wire.TypeListPeers, wire.TypeSetStatus} {
			if answer, err := r.mesh.Member().Call(r.ctx, op, []byte(`{"status":"dnd"}`)); err != nil || len(answer) < 3 {
				t.Fatalf("%s: %s, %v", op, answer, err)
			}
		}
		refused := new(bridge.BrokerError)
		if _, err := r.mesh.Member().Call(r.ctx, wire.TypeSetStatus, []byte(`{"status":"asleep"}`)); !errors.As(err, &refused) {
			t.Fatal(err)
		}
	})
	t.Run("a send whose ack is lost is repeated under its id and delivered once", func(t *testing.T) {
		r := newRig(t)
		hook, held := faultproxy.Hold(faultproxy.ToClient, wire.TypeAck)
		r.proxy.SetHook(hook)
		lost := make(chan error, 1)
		go func() { _, err := r.mesh.Member().Send(r.ctx, r.letter("m1")); lost <- err }()
		if err := held.Wait(r.ctx, 1); err != nil {
			t.Fatal(err)
		}
		first := take(r, r.inbox.pushes)
		r.proxy.Cut()
		if err := take(r, lost); !errors.Is(err, bridge.ErrLost) {
			t.Fatal(err)
		}
		take(r, r.inbox.down)
		r.proxy.SetHook(nil)
		r.proxy.Restore()
		r.open()
		ack, err := r.mesh.Member().Send(r.ctx, r.letter("m1"))
		if err != nil || !ack.Queued || !ack.Duplicate || ack.MessageID != first.MessageID {
			t.Fatalf("%+v, %v", ack, err)
		}
		// The next message is the next push, unless the first one's acknowledgement was cut off: then it comes again, under its id.
		if _, err := r.mesh.Member().Send(r.ctx, r.letter("m2")); err != nil {
			t.Fatal(err)
		}
		for {
			switch p := take(r, r.inbox.pushes); p.MessageID {
			case first.MessageID:
				continue
			default:
				if p.ClientMessageID != "m2" {
					t.Fatalf("%+v", p)
				}
				return
			}
		}
	})
	t.Run("a message that could not be stored is delivered again", func(t *testing.T) {
		r := newRig(t)
		r.inbox.fail.Store(true)
		if _, err := r.mesh.Member().Send(r.ctx, r.letter("m1")); err != nil {
			t.Fatal(err)
		}
		if a, b := take(r, r.inbox.pushes), take(r, r.inbox.pushes); a.MessageID != b.MessageID {
			t.Fatalf("%+v, then %+v", a, b)
		}
		if got := take(r, r.inbox.receipts); got.ClientMessageID != "m1" {
			t.Fatalf("%+v", got)
		}
	})
	t.Run("doubled frames reach the handler twice and change nothing else", func(t *testing.T) {
		r := newRig(t)
		r.proxy.SetHook(faultproxy.Chain(faultproxy.Duplicate(faultproxy.ToClient, wire.TypePush), faultproxy.Duplicate(faultproxy.ToClient, wire.TypeAck), faultproxy.Duplicate(faultproxy.ToBroker, wire.TypeSend)))
		if ack, err := r.mesh.Member().Send(r.ctx, r.letter("m1")); err != nil || !ack.Queued {
			t.Fatalf("%+v, %v", ack, err)
		}
		if a, b := take(r, r.inbox.pushes), take(r, r.inbox.pushes); a.MessageID != b.MessageID {
			t.Fatalf("%+v, then %+v", a, b)
		}
	})
}
