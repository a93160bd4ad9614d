package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"claudemesh/wire"
)

func TestSend(t *testing.T) {
	t.Run("acks in any order reach the sends they belong to", func(t *testing.T) {
		b := newScripted(t)
		l := run(t, LinkConfig{URL: b.url})
		p := b.open()
		l.waitOpen()
		const n = 100
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				id := fmt.Sprint("m", i)
				ack, err := l.Send(within(t), send(id))
				if err != nil || ack.ID != id || ack.MessageID != "b-"+id || !ack.Queued {
					t.Errorf("%s: %+v, %v", id, ack, err)
				}
			})
		}
		var ids []string
		for range n {
			var s wire.Send
			p.read(&s)
			ids = append(ids, s.ID)
		}
		rand.Shuffle(n, func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		for _, id := range ids {
			p.write(wire.Ack{Type: wire.TypeAck, ID: id, MessageID: "b-" + id, Queued: true})
		}
		wg.Wait()
	})
	t.Run("a refusing ack is an ack, not an error", func(t *testing.T) {
		b := newScripted(t)
		l := run(t, LinkConfig{URL: b.url})
		p := b.open()
		l.waitOpen()
		p.write(wire.Ack{Type: wire.TypeAck, ID: "late", MessageID: "x", Queued: true}) // belongs to nobody
		acks := make(chan wire.Ack, 1)
		go func() { a, _ := l.Send(within(t), send("a")); acks <- a }()
		p.read(nil)
		p.write(wire.Ack{Type: wire.TypeAck, ID: "a", Error: "no peer", Code: wire.AckNoPeer})
		if a := receive(t, acks); a.Error != "no peer" || a.Queued {
			t.Fatalf("%+v", a)
		}
		if n := l.Counts().Unmatched; n != 1 {
			t.Fatalf("%d unmatched", n)
		}
	})
	t.Run("an error frame with the id of the send is a broker error", func(t *testing.T) {
		b := newScripted(t)
		l := run(t, LinkConfig{URL: b.url})
		p := b.open()
		l.waitOpen()
		errs := make(chan error, 1)
		go func() { _, err := l.Send(within(t), send("a")); errs <- err }()
		p.read(nil)
		p.write(wire.Error{Type: wire.TypeError, Code: "invalid", Message: "no\x1b[31m", ID: "a"})
		var refused *BrokerError
		if err := receive(t, errs); !errors.As(err, &refused) || refused.Code != "invalid" || strings.ContainsRune(refused.Message, 0x1b) {
			t.Fatalf("%v", err)
		}
	})
	t.Run("a cut before the ack loses the outcome, and the same id can be sent again", func(t *testing.T) {
		b := newScripted(t)
		l := run(t, LinkConfig{URL: b.url, Backoff: 10 * time.Millisecond})
		p := b.open()
		l.waitOpen()
		errs := make(chan error, 1)
		go func() { _, err := l.Send(within(t), send("a")); errs <- err }()
		p.read(nil)
		if _, err := l.Send(within(t), send("a")); !errors.Is(err, ErrInFlight) {
			t.Fatalf("second send of a flying id: %v", err)
		}
		p.ws.NetConn().Close()
		if err := receive(t, errs); !errors.Is(err, ErrLost) {
			t.Fatal(err)
		}
		p = b.open()
		l.waitOpen()
		go func() { _, err := l.Send(within(t), send("a")); errs <- err }()
		p.read(nil)
		p.write(wire.Ack{Type: wire.TypeAck, ID: "a", MessageID: "b", Queued: true})
		if err := receive(t, errs); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("a link that is down refuses at once", func(t *testing.T) {
		l := NewLink(LinkConfig{URL: "ws://127.0.0.1:1/ws"})
		_, err := l.Send(within(t), send("a"))
		_, err2 := l.Call(within(t), "list_peers", nil)
		err3 := l.Post(within(t), wire.ClientAck{Type: wire.TypeClientAck, BrokerMessageID: "x"})
		for _, err := range []error{err, err2, err3} {
			if !errors.Is(err, ErrNotOpen) {
				t.Fatal(err)
			}
		}
		if _, err := l.Send(within(t), wire.Send{TargetSpec: "*", Priority: "now"}); !errors.Is(err, ErrNoID) {
			t.Fatal(err)
		}
		if _, err := l.Send(within(t), wire.Send{ID: "a", Priority: "now"}); !errors.Is(err, wire.ErrInvalid) {
			t.Fatal(err)
		}
	})
	t.Run("messages begun one after the other leave in that order, without waiting for acks", func(t *testing.T) {
		b := newScripted(t)
		l := run(t, LinkConfig{URL: b.url})
		p := b.open()
		l.waitOpen()
		const n = 200
		var begun []*Pending
		for i := range n {
			m, err := l.Begin(within(t), send(fmt.Sprint("m", i)))
			if err != nil {
				t.Fatal(err)
			}
			begun = append(begun, m)
		}
		for i := range n {
			var s wire.Send
			if p.read(&s); s.ID != fmt.Sprint("m", i) {
				t.Fatalf("%d: %s", i, s.ID)
			}
		}
		for i := n - 1; i >= 0; i-- {
			id := fmt.Sprint("m", i)
			p.write(wire.Ack{Type: wire.TypeAck, ID: id, MessageID: "b-" + id, Queued: true})
			if ack, err := begun[i].Wait(within(t)); err != nil || ack.MessageID != "b-"+id {
				t.Fatalf("%+v, %v", ack, err)
			}
		}
	})
	t.Run("nothing overtakes a message of a lost connection that is not settled", func(t *testing.T) {
		b := newScripted(t)
		l := run(t, LinkConfig{URL: b.url})
		p := b.open()
		l.waitOpen()
		first, err := l.Begin(within(t), send("first"))
		if err != nil {
			t.Fatal(err)
		}
		p.read(nil)
		p.close(1006, "")
		if _, err := first.Wait(within(t)); !errors.Is(err, ErrLost) {
			t.Fatal(err)
		}
		p = b.open()
		l.waitOpen()
		if _, err := l.Begin(within(t), send("second")); !errors.Is(err, ErrBehind) {
			t.Fatalf("the second one left: %v", err)
		}
		first.Settle()
		first.Settle() // counts once
		for _, id := range []string{"first", "second"} {
			m, err := l.Begin(within(t), send(id))
			if err != nil {
				t.Fatal(err)
			}
			defer m.Settle()
			var s wire.Send
			if p.read(&s); s.ID != id {
				t.Fatalf("%s arrives, want %s", s.ID, id)
			}
		}
	})
	t.Run("sends over the bound wait for their turn, and give it back", func(t *testing.T) {
		b := newScripted(t)
		l := run(t, LinkConfig{URL: b.url})
		p := b.open()
		l.waitOpen()
		gone, cancel := context.WithCancel(context.Background())
		cancel()
		var first *Pending
		for i := range 256 {
			m, err := l.Begin(within(t), send(fmt.Sprint("m", i)))
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				first = m
			}
			p.read(nil)
		}
		if _, err := l.Begin(gone, send("over")); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if _, err := first.Wait(gone); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if _, err := l.Begin(within(t), send("over")); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("a caller that stops waiting frees the id", func(t *testing.T) {
		b := newScripted(t)
		l := run(t, LinkConfig{URL: b.url})
		p := b.open()
		l.waitOpen()
		ctx, cancel := context.WithCancel(context.Background())
		errs := make(chan error, 1)
		go func() { _, err := l.Send(ctx, send("a")); errs <- err }()
		p.read(nil)
		cancel()
		if err := receive(t, errs); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		go func() { _, err := l.Send(within(t), send("a")); errs <- err }()
		p.read(nil)
		p.write(wire.Ack{Type: wire.TypeAck, ID: "a", Queued: true})
		if err := receive(t, errs); err != nil {
			t.Fatal(err)
		}
	})
}

func TestCall(t *testing.T) {
	for _, c := range []struct {
		name   string
		caps   []string
		op     string
		answer func(id string) any // nil: silence
		want   string              // part of the answer
		err    string
	}{
		{"an answer is found by its request id", nil, "list_peers", func(id string) any { return wire.PeersList{Type: wire.TypePeersList, Peers: []wire.Peer{}, ReqID: id} }, `"peers":[]`, ""},
		{"a refusal with the request id", nil, "list_peers", func(id string) any {
			return wire.Error{Type: wire.TypeError, Code: "forbidden", Message: "no", ReqID: id}
		}, "", "broker: forbidden: no"},
		{"a refusal with the request id in the wrong field", nil, "topic_create", func(id string) any {
			return wire.Error{Type: wire.TypeError, Code: "topic_not_found", Message: "no", ID: id}
		}, "", "broker: topic_not_found: no"},
		{"a general ack with the request id in both fields", nil, "set_visible", func(id string) any {
			return wire.Ack{Type: wire.TypeAck, ID: id, ReqID: id}
		}, `"type":"ack"`, ""},
		{"a general ack with the request id in id only", nil, "set_visible", func(id string) any { return wire.Ack{Type: wire.TypeAck, ID: id} }, `"type":"ack"`, ""},
		{"an ack with an error is a refusal", []string{wire.CapClientAck}, "join_group", func(id string) any {
			return wire.Ack{Type: wire.TypeAck, ReqID: id, Error: "too many groups", Code: "invalid"}
		}, "", "broker: invalid: too many groups"},
		{"an operation that a reference broker never answers succeeds once written", nil, "set_status", nil, "{}", ""},
		{"an operation that our broker answers waits for it", []string{wire.CapClientAck}, "set_status", func(id string) any { return wire.Ack{Type: wire.TypeAck, ReqID: id} }, `"type":"ack"`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newScripted(t)
			l := run(t, LinkConfig{URL: b.url})
			p := b.open(c.caps...)
			l.waitOpen()
			type result struct {
				data json.RawMessage
				err  error
			}
			results := make(chan result, 1)
			go func() {
				data, err := l.Call(within(t), c.op, json.RawMessage(`{"status":"idle","type":"send","_reqId":"mine"}`))
				results <- result{data, err}
			}()
			head := p.read(nil)
			if head.Type != c.op || head.ReqID == "" || head.ReqID == "mine" {
				t.Fatalf("%+v", head)
			}
			if c.answer != nil {
				p.write(c.answer(head.ReqID))
			}
			r := receive(t, results)
			if c.err != "" {
				if r.err == nil || r.err.Error() != c.err {
					t.Fatal(r.err)
				}
				return
			}
			if r.err != nil || !strings.Contains(string(r.data), c.want) {
				t.Fatalf("%s, %v", r.data, r.err)
			}
		})
	}
	t.Run("frames with rules of their own cannot be sent as an operation", func(t *testing.T) {
		l := NewLink(LinkConfig{})
		for _, op := range []string{"", "send", "hello", "session_hello", "client_ack", "push", "Send", "a b", "1", strings.Repeat("a", 65)} {
			if _, err := l.Call(within(t), op, nil); !errors.Is(err, ErrBadOp) {
				t.Errorf("%q: %v", op, err)
			}
		}
	})
	t.Run("silence ends with the caller's deadline", func(t *testing.T) {
		b := newScripted(t)
		l := run(t, LinkConfig{URL: b.url})
		b.open()
		l.waitOpen()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
		defer cancel()
		if _, err := l.Call(ctx, "get_state", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	})
}

func TestPost(t *testing.T) {
	t.Run("a posted frame is written, and what is queued still leaves when the link is stopped", func(t *testing.T) {
		b := newScripted(t)
		l := run(t, LinkConfig{URL: b.url})
		p := b.open()
		l.waitOpen()
		if err := l.Post(within(t), wire.ClientAck{Type: wire.TypeClientAck, BrokerMessageID: "x", State: wire.StateSurfaced}); err != nil {
			t.Fatal(err)
		}
		l.cancel()
		var ack wire.ClientAck
		if p.read(&ack); ack.BrokerMessageID != "x" || ack.State != wire.StateSurfaced {
			t.Fatalf("%+v", ack)
		}
		if err := p.readEnd(); !strings.Contains(err.Error(), "1000") {
			t.Fatalf("no goodbye: %v", err)
		}
		if err := l.end(); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if s := l.State(); s.Phase != Closed {
			t.Fatalf("%+v", s)
		}
	})
}
