package bus

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestJournal(t *testing.T) {
	s := startBus(t, nil)
	ctx := ctxOf(t)
	bus := busConn(t, s)
	must(t, EnsureStreams(ctx, bus))

	t.Run("subscribers hear it in order, the streams keep it", func(t *testing.T) {
		h := listen(t, bus, "mesh.demo.>")
		j := NewJournal(bus, nil)
		for i := range 100 {
			if !j.Publish(SessionMsgSubject("demo", "s1"), map[string]int{"n": i}) {
				t.Fatal("not taken")
			}
		}
		j.Publish(ReceiptSubject("demo", User, "m"), Receipt{State: StateSent})
		must(t, j.Close(ctx))
		for i := range 100 {
			if m := <-h.ch; string(m.Data) != fmt.Sprintf(`{"n":%d}`, i) {
				t.Fatalf("message %d is %s", i, m.Data)
			}
		}
		js, err := jetstream.New(bus)
		must(t, err)
		store(t, bus, AllMsgSubject("demo"))
		store(t, bus, EventSubject("demo", "x"))
		for name, want := range map[string]uint64{StreamMessages: 101, StreamEvents: 2} {
			st, err := js.Stream(ctx, name)
			must(t, err)
			if n := st.CachedInfo().State.Msgs; n != want {
				t.Errorf("%s has %d messages, want %d", name, n, want)
			}
		}
		if j.Dropped() != 0 {
			t.Errorf("%d dropped", j.Dropped())
		}
	})
	t.Run("what does not fit is dropped and counted, and logged once for the burst", func(t *testing.T) {
		log := &lines{}
		j := newJournal(bus, log.logger(), 0)
		must(t, j.Close(ctx))
		for range 50 {
			if j.Publish("mesh.demo.event.x", nil) {
				t.Error("taken after Close")
			}
		}
		if j.Publish("mesh.demo.event.x", make(chan int)) {
			t.Error("took what is no JSON")
		}
		if j.Dropped() != 51 {
			t.Errorf("%d counted", j.Dropped())
		}
		if n := strings.Count(log.String(), "publication dropped"); n < 1 || n > 5 {
			t.Errorf("%d lines logged", n)
		}
	})
	t.Run("a full queue does not make the caller wait", func(t *testing.T) {
		// Built by hand: nobody takes from the queue yet, so how much fits is known.
		j := &Journal{nc: bus, log: ServerConfig{}.withDefaults().Log, quiet: &burst{clock: s.cfg.Clock, n: 1}, queue: make(chan nats.Msg, 2), quit: make(chan struct{}), done: make(chan struct{})}
		taken := 0
		for range 5 {
			if j.Publish("mesh.demo.event.x", nil) {
				taken++
			}
		}
		if taken != 2 || j.Dropped() != 3 {
			t.Errorf("%d taken, %d dropped", taken, j.Dropped())
		}
		go j.run()
		must(t, j.Close(ctx))
	})
	t.Run("a connection that is gone loses what is published, and tells", func(t *testing.T) {
		nc := busConn(t, s)
		nc.Close()
		j := NewJournal(nc, nil)
		j.Publish("mesh.demo.event.x", nil)
		must(t, j.Close(ctx))
		if j.Dropped() != 1 {
			t.Errorf("%d counted", j.Dropped())
		}
	})
	t.Run("closing twice, or with no time left, is harmless", func(t *testing.T) {
		j := NewJournal(bus, nil)
		over, cancel := context.WithCancel(ctx)
		cancel()
		_ = j.Close(over)
		must(t, j.Close(ctx))
		must(t, j.Close(ctx))
	})
}
