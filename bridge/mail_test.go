package bridge

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"claudemesh/wire"
)

func TestMessagesThatWaitTogetherAreOneBatch(t *testing.T) {
	b := newScripted(t)
	batches, gate := make(chan []string, 16), make(chan struct{})
	l := run(t, LinkConfig{URL: b.url, OnPush: func(_ context.Context, pushes []wire.Push) ([]wire.ClientAck, error) {
		var ids []string
		for _, p := range pushes {
			ids = append(ids, p.ClientMessageID+p.Event)
		}
		batches <- ids
		<-gate
		return []wire.ClientAck{{Signature: "of the first only"}}, nil
	}})
	p := b.open()
	p.write(push("1"))
	first := receive(t, batches)
	if err := l.WaitOpen(t.Context()); err != nil {
		t.Fatal(err)
	}
	called := make(chan error, 1)
	go func() {
		_, err := l.Call(t.Context(), wire.TypeListPeers, nil)
		called <- err
	}()
	request := p.read(nil)
	for _, id := range []string{"2", "3"} {
		p.write(push(id))
	}
	p.write(wire.Push{Type: wire.TypePush, Subtype: wire.SubtypeSystem, Event: "peer_left", MessageID: "e"})
	p.write(push("4"))
	p.write(wire.Push{Type: wire.TypePush, Subtype: wire.SubtypeSystem, Event: "watch_triggered", MessageID: "m", ClientMessageID: "5"}) // mail, though a system event
	p.write(wire.PeersList{Type: wire.TypePeersList, ReqID: request.ReqID})                                                              // an answer that came shows that all before it were read
	if err := receive(t, called); err != nil {
		t.Fatal(err)
	}
	close(gate)
	got := [][]string{first, receive(t, batches), receive(t, batches), receive(t, batches)}
	if want := [][]string{{"1"}, {"2", "3"}, {"peer_left"}, {"4", "5watch_triggered"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("handed over %v, want %v", got, want)
	}
	for i, id := range []string{"1", "2", "3", "4", "5"} {
		// The handler had something to say about the first of each batch.
		said := map[bool]string{true: "of the first only"}[i != 2 && i != 4]
		var ack wire.ClientAck
		if p.read(&ack); ack.ClientMessageID != id || ack.Signature != said {
			t.Errorf("acknowledged %q with %q, want %s with %q", ack.ClientMessageID, ack.Signature, id, said)
		}
	}
}

func TestPushes(t *testing.T) {
	t.Run("pushes are handed over in order, before hello_ack too, and acknowledged after the handler returned", func(t *testing.T) {
		b := newScripted(t)
		var stored []string
		handled, gate := make(chan string), make(chan struct{})
		run(t, LinkConfig{URL: b.url, OnPush: each(func(_ context.Context, p wire.Push) error {
			handled <- p.ClientMessageID
			<-gate
			stored = append(stored, p.ClientMessageID)
			return nil
		})})
		p := b.next()
		p.read(nil)
		p.write(push("1"))
		if id := receive(t, handled); id != "1" {
			t.Fatal(id)
		}
		p.welcome()
		p.write(push("2"))
		gate <- struct{}{}
		var ack wire.ClientAck
		if p.read(&ack); ack != (wire.ClientAck{Type: wire.TypeClientAck, ClientMessageID: "1", BrokerMessageID: "b-1"}) {
			t.Fatalf("%+v", ack)
		}
		receive(t, handled)
		gate <- struct{}{}
		if p.read(&ack); ack.ClientMessageID != "2" {
			t.Fatalf("%+v", ack)
		}
		if !slices.Equal(stored, []string{"1", "2"}) {
			t.Fatal(stored)
		}
	})
	t.Run("a receipt is acknowledged by its mail id, a system event never", func(t *testing.T) {
		b := newScripted(t)
		events := make(chan string, 2)
		run(t, LinkConfig{
			URL:       b.url,
			OnPush:    each(func(_ context.Context, p wire.Push) error { events <- p.Event; return errDisk }),
			OnReceipt: func(_ context.Context, batch []wire.Receipt) error { events <- batch[0].State; return nil },
		})
		p := b.open()
		p.write(wire.Push{Type: wire.TypePush, Subtype: wire.SubtypeSystem, Event: wire.EventPeerJoined, MessageID: "u"})
		p.write(wire.Receipt{Type: wire.TypeReceipt, MailID: "r1", MessageID: "b", ClientMessageID: "c", State: wire.StateDelivered})
		var ack wire.ClientAck
		if p.read(&ack); ack != (wire.ClientAck{Type: wire.TypeClientAck, BrokerMessageID: "r1"}) {
			t.Fatalf("%+v", ack)
		}
		if a, b := receive(t, events), receive(t, events); a != wire.EventPeerJoined || b != wire.StateDelivered {
			t.Fatal(a, b)
		}
	})
	t.Run("receipts that wait together are handed over together, and acknowledged one by one", func(t *testing.T) {
		b := newScripted(t)
		batches, gate := make(chan int, 2*pushBatch), make(chan struct{})
		run(t, LinkConfig{URL: b.url, OnReceipt: func(_ context.Context, batch []wire.Receipt) error {
			batches <- len(batch)
			<-gate
			return nil
		}})
		p := b.open()
		receipt := func(n int) wire.Receipt {
			return wire.Receipt{Type: wire.TypeReceipt, MailID: fmt.Sprintf("r%d", n), MessageID: "b", ClientMessageID: "c", State: wire.StateDelivered}
		}
		const total = 2*pushBatch + 1
		p.write(receipt(1))
		receive(t, batches) // the first is being stored: the rest waits
		for n := 2; n <= total; n++ {
			p.write(receipt(n))
		}
		close(gate)
		for n := 1; n <= total; n++ {
			var ack wire.ClientAck
			if p.read(&ack); ack.BrokerMessageID != fmt.Sprintf("r%d", n) {
				t.Fatalf("ack %d is %+v", n, ack)
			}
		}
		if n := len(batches); n == 0 || n >= total-1 {
			t.Errorf("%d receipts were handed over in %d batches", total-1, n)
		}
	})
	t.Run("what was not stored is not acknowledged, and is delivered again in order on a new connection", func(t *testing.T) {
		b := newScripted(t)
		var fail atomic.Bool
		fail.Store(true)
		handled := make(chan string, 16)
		run(t, LinkConfig{URL: b.url, Backoff: 20 * time.Millisecond, OnPush: each(func(_ context.Context, p wire.Push) error {
			handled <- p.ClientMessageID
			if p.ClientMessageID == "2" && fail.Swap(false) {
				return errDisk
			}
			return nil
		})})
		p := b.open()
		p.write(push("1"))
		var ack wire.ClientAck
		if p.read(&ack); ack.ClientMessageID != "1" {
			t.Fatalf("%+v", ack)
		}
		p.write(push("2"))
		p.write(push("3")) // in the batch of 2 or behind it
		p.readEnd()
		p = b.open()
		for _, id := range []string{"2", "3"} {
			p.write(push(id))
			if p.read(&ack); ack.ClientMessageID != id {
				t.Fatalf("%+v", ack)
			}
		}
		var got []string
		for range 4 {
			got = append(got, receive(t, handled))
		}
		if !slices.Equal(got, []string{"1", "2", "2", "3"}) {
			t.Fatal(got)
		}
	})
	t.Run("a handler that hangs holds back neither acks nor answers", func(t *testing.T) {
		b := newScripted(t)
		l := run(t, LinkConfig{URL: b.url, OnPush: each(func(ctx context.Context, _ wire.Push) error { <-ctx.Done(); return ctx.Err() })})
		p := b.open()
		l.waitOpen()
		for i := range 300 {
			p.write(push(fmt.Sprint(i)))
		}
		acked := make(chan error, 1)
		go func() { _, err := l.Send(within(t), send("a")); acked <- err }()
		p.read(nil)
		p.write(wire.Ack{Type: wire.TypeAck, ID: "a", Queued: true})
		if err := receive(t, acked); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("answers flow while a failed connection waits for its end, even with a full mailroom", func(t *testing.T) {
		b := newScripted(t)
		var held limits
		held.pushes = 2
		failed := make(chan struct{}, 16)
		l := run(t, LinkConfig{URL: b.url, Backoff: time.Hour, limits: held, OnPush: each(func(context.Context, wire.Push) error { failed <- struct{}{}; return errDisk })})
		p := b.open()
		l.waitOpen()
		for i := range 50 {
			p.write(push(fmt.Sprint(i)))
		}
		receive(t, failed)
		acked := make(chan error, 1)
		go func() { _, err := l.Send(within(t), send("a")); acked <- err }()
		p.read(nil)
		p.write(wire.Ack{Type: wire.TypeAck, ID: "a", Queued: true})
		if err := receive(t, acked); err != nil {
			t.Fatal(err)
		}
		if len(failed) != 0 {
			t.Fatal("more was handed over after the failure")
		}
	})
	t.Run("a full mailroom makes the broker wait and loses nothing", func(t *testing.T) {
		for name, held := range map[string]limits{"frames": {pushes: 2}, "bytes": {pushBytes: wire.MaxFrameBytes}} {
			t.Run(name, func(t *testing.T) {
				b := newScripted(t)
				gate, handled := make(chan struct{}), make(chan string, 256)
				run(t, LinkConfig{URL: b.url, limits: held, OnPush: each(func(_ context.Context, p wire.Push) error {
					<-gate
					handled <- p.ClientMessageID
					return nil
				})})
				p := b.open()
				go func() {
					for i := range 40 {
						m := push(fmt.Sprint(i))
						m.Ciphertext = strings.Repeat("A", 200<<10)
						p.write(m)
					}
				}()
				close(gate)
				for i := range 40 {
					var ack wire.ClientAck
					if p.read(&ack); ack.ClientMessageID != fmt.Sprint(i) || receive(t, handled) != fmt.Sprint(i) {
						t.Fatalf("%d: %+v", i, ack)
					}
				}
			})
		}
	})
	t.Run("what was received is stored although its connection is gone, and acknowledged on the next one", func(t *testing.T) {
		b := newScripted(t)
		gate, handled := make(chan struct{}), make(chan string, 4)
		l := run(t, LinkConfig{URL: b.url, Backoff: 10 * time.Millisecond, OnPush: each(func(_ context.Context, p wire.Push) error {
			handled <- p.ClientMessageID
			<-gate
			return nil
		})})
		p := b.open()
		l.waitOpen()
		p.write(push("1"))
		p.write(push("2"))
		receive(t, handled)
		p.close(1001, "shutting down")
		p = b.open()
		l.waitOpen()
		close(gate)
		for _, id := range []string{"1", "2"} {
			var ack wire.ClientAck
			if p.read(&ack); ack.ClientMessageID != id {
				t.Fatalf("%+v", ack)
			}
		}
	})
	t.Run("what came before a kick is still stored", func(t *testing.T) {
		b := newScripted(t)
		gate, handled := make(chan struct{}), make(chan string, 4)
		l := run(t, LinkConfig{URL: b.url, OnPush: each(func(_ context.Context, p wire.Push) error {
			<-gate
			handled <- p.ClientMessageID
			return nil
		})})
		p := b.open()
		p.write(push("1"))
		p.write(push("2"))
		p.sayClose(wire.CloseKicked, "kicked")
		p.readEnd() // the link has seen it
		close(gate)
		if receive(t, handled) != "1" || receive(t, handled) != "2" {
			t.Fatal("lost")
		}
		if err := l.end(); err != ErrKicked {
			t.Fatal(err)
		}
	})
}
