package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/jonboulle/clockwork"

	"claudemesh/wire"
)

func TestTerminal(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(p *peer)
		want error
		err  string
	}{
		{"4001 ends the link: kicked", func(p *peer) { p.welcome(); p.close(wire.CloseKicked, "kicked") }, ErrKicked, ErrKicked.Error()},
		{"4002 ends the link: banned", func(p *peer) { p.welcome(); p.close(wire.CloseBanned, "banned") }, ErrBanned, ErrBanned.Error()},
		{"a hello refused as revoked ends the link", func(p *peer) {
			p.write(wire.Error{Type: wire.TypeError, Code: wire.CodeRevoked, Message: "gone"})
			p.close(wire.CloseBanned, "banned")
		}, ErrBanned, ErrBanned.Error()},
		{"revoked while open ends the link", func(p *peer) {
			p.welcome()
			p.write(wire.Error{Type: wire.TypeError, Code: wire.CodeRevoked, Message: "gone"})
		}, ErrBanned, ErrBanned.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newScripted(t)
			l := run(t, LinkConfig{URL: b.url})
			p := b.next()
			p.read(nil)
			c.do(p)
			if err := l.end(); !errors.Is(err, c.want) {
				t.Fatal(err)
			}
			if s := l.State(); s.Phase != Closed || s.Err != c.err {
				t.Fatalf("%+v", s)
			}
			if err := l.WaitOpen(within(t)); !errors.Is(err, c.want) {
				t.Fatal(err)
			}
			if err := l.Run(within(t)); !errors.Is(err, ErrRunning) {
				t.Fatal(err)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	refuse := func(code string) func(*peer) {
		return func(p *peer) {
			p.write(wire.Error{Type: wire.TypeError, Code: code, Message: "hello rejected: " + code})
			p.close(websocket.ClosePolicyViolation, code)
		}
	}
	for _, c := range []struct {
		code string
		do   func(p *peer)
	}{
		{wire.CodeTimestampSkew, refuse(wire.CodeTimestampSkew)},
		{wire.CodeUnauthorized, refuse(wire.CodeUnauthorized)},
		{wire.CodeExpired, refuse(wire.CodeExpired)},
		{wire.CodeCapacity, refuse(wire.CodeCapacity)},
		{wire.CodeNoHello, func(p *peer) {
			p.write(wire.Error{Type: wire.TypeError, Code: wire.CodeNoHello, Message: "must send hello first"})
		}},
		{"session_replaced", func(p *peer) { p.welcome(); p.close(websocket.CloseNormalClosure, "session_replaced") }},
		{"bad_signature", func(p *peer) { p.close(websocket.ClosePolicyViolation, "bad_signature") }},
	} {
		t.Run(c.code+" is shown, and tried again only after five seconds", func(t *testing.T) {
			b, clock := newScripted(t), clockwork.NewFakeClock()
			onState, seen := states()
			run(t, LinkConfig{URL: b.url, Clock: clock, OnState: onState})
			for attempt := 1; attempt <= 3; attempt++ {
				p := b.next()
				p.read(nil)
				c.do(p)
				s := await(t, seen, Waiting)
				if pause := s.Retry.Sub(s.Since); s.Err != c.code || s.Attempts != attempt || pause < 5*time.Second || pause > 10*time.Second {
					t.Fatalf("%+v", s)
				}
				if err := clock.BlockUntilContext(within(t), 1); err != nil {
					t.Fatal(err)
				}
				clock.Advance(s.Retry.Sub(s.Since))
			}
		})
	}
}

func TestReconnect(t *testing.T) {
	t.Run("a connection that stood is replaced within a quarter of a second", func(t *testing.T) {
		b, clock := newScripted(t), clockwork.NewFakeClock()
		onState, seen := states()
		l := run(t, LinkConfig{URL: b.url, Clock: clock, OnState: onState})
		p := b.open(wire.CapClientAck)
		if s := await(t, seen, Open); !s.Has(wire.CapClientAck) {
			t.Fatalf("%+v", s)
		}
		clock.Advance(5 * time.Second)
		p.close(websocket.CloseGoingAway, "shutting down")
		if s := await(t, seen, Waiting); s.Attempts != 0 || !strings.Contains(s.Err, "shutting down") {
			t.Fatalf("%+v", s)
		}
		if err := clock.BlockUntilContext(within(t), 1); err != nil {
			t.Fatal(err)
		}
		clock.Advance(250 * time.Millisecond)
		b.open()
		await(t, seen, Open)
		if n := l.Counts().Reconnects; n != 1 {
			t.Fatal(n)
		}
	})
	t.Run("each connection gets a fresh hello", func(t *testing.T) {
		b, clock := newScripted(t), clockwork.NewFakeClock()
		onState, seen := states()
		l := run(t, LinkConfig{URL: b.url, Clock: clock, OnState: onState})
		var last int64
		for range 3 {
			p := b.next()
			var h wire.Hello
			if p.read(&h); h.Timestamp <= last {
				t.Fatalf("timestamp %d after %d", h.Timestamp, last)
			}
			last = h.Timestamp
			clock.Advance(time.Second)
			p.close(websocket.CloseGoingAway, "")
			await(t, seen, Waiting)
			l.Kick()
		}
	})
	t.Run("a broker that drops every connection after hello_ack is never stormed", func(t *testing.T) {
		b, clock := newScripted(t), clockwork.NewFakeClock()
		onState, seen := states()
		run(t, LinkConfig{URL: b.url, Clock: clock, OnState: onState})
		for i, limit := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
			p := b.open()
			p.close(websocket.CloseGoingAway, "")
			s := await(t, seen, Waiting)
			if pause := s.Retry.Sub(s.Since); s.Attempts != i+1 || pause < 100*time.Millisecond || pause > limit*time.Second {
				t.Fatalf("%d: %+v", i, s)
			}
			if err := clock.BlockUntilContext(within(t), 1); err != nil {
				t.Fatal(err)
			}
			clock.Advance(s.Retry.Sub(s.Since))
		}
	})
	t.Run("a kick ends the pause, one attempt each", func(t *testing.T) {
		onState, seen := states()
		var dials atomic.Int32
		l := run(t, LinkConfig{
			URL: "ws://broker.test/ws", Clock: clockwork.NewFakeClock(), OnState: onState,
			Dial: func(context.Context, string, string) (net.Conn, error) {
				dials.Add(1)
				return nil, errors.New("network is down")
			},
		})
		for i := int32(1); i < 5; i++ {
			if s := await(t, seen, Waiting); !strings.Contains(s.Err, "network is down") || dials.Load() != i {
				t.Fatalf("%+v after %d dials", s, dials.Load())
			}
			l.Kick()
		}
	})
	t.Run("a hello that cannot be made is retried", func(t *testing.T) {
		onState, seen := states()
		l := run(t, LinkConfig{URL: "ws://broker.test/ws", Clock: clockwork.NewFakeClock(), OnState: onState, Hello: func(time.Time) (any, error) { return nil, errors.New("no key") }})
		for range 3 {
			if s := await(t, seen, Waiting); !strings.Contains(s.Err, "no key") {
				t.Fatalf("%+v", s)
			}
			l.Kick()
		}
	})
	for name, url := range map[string]string{"no websocket there": "", "not an address": "ftp://x", "empty": "-"} {
		t.Run("an address that cannot work shows in the state: "+name, func(t *testing.T) {
			if url == "" {
				s, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				go func() {
					for {
						c, err := s.Accept()
						if err != nil {
							return
						}
						_, _ = c.Write([]byte("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
						c.Close()
					}
				}()
				url = "ws://" + s.Addr().String()
			}
			onState, seen := states()
			run(t, LinkConfig{URL: strings.TrimPrefix(url, "-"), Clock: clockwork.NewFakeClock(), OnState: onState})
			if s := await(t, seen, Waiting); s.Err == "" {
				t.Fatalf("%+v", s)
			}
		})
	}
	t.Run("no hello_ack within five seconds ends the attempt", func(t *testing.T) {
		b, clock := newScripted(t), clockwork.NewFakeClock()
		onState, seen := states()
		l := run(t, LinkConfig{URL: b.url, Clock: clock, OnState: onState})
		p := b.next()
		p.read(nil)
		if err := clock.BlockUntilContext(within(t), 1); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Send(within(t), send("a")); !errors.Is(err, ErrNotOpen) {
			t.Fatal(err)
		}
		clock.Advance(5 * time.Second)
		p.readEnd()
		if s := await(t, seen, Waiting); s.Err != errHelloTimeout.Error() {
			t.Fatalf("%+v", s)
		}
	})
	t.Run("no handler runs when Run has returned", func(t *testing.T) {
		b := newScripted(t)
		var busy atomic.Bool
		begun := make(chan struct{})
		l := run(t, LinkConfig{URL: b.url, OnPush: each(func(ctx context.Context, _ wire.Push) error {
			busy.Store(true)
			close(begun)
			<-ctx.Done()
			<-time.After(50 * time.Millisecond) // a commit that is under way
			busy.Store(false)
			return nil
		})})
		b.open().write(push("1"))
		receive(t, begun)
		l.cancel()
		if _ = l.end(); busy.Load() {
			t.Fatal("it does")
		}
	})
	t.Run("stopping works in every phase and at once", func(t *testing.T) {
		b := newScripted(t)
		stuck := func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
		down := func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("down") }
		for name, c := range map[string]struct {
			cfg   LinkConfig
			phase Phase
		}{
			"connecting": {LinkConfig{URL: "ws://broker.test/ws", Dial: stuck}, Connecting},
			"waiting":    {LinkConfig{URL: "ws://broker.test/ws", Dial: down, Backoff: time.Hour}, Waiting},
			"open":       {LinkConfig{URL: b.url}, Open},
		} {
			onState, seen := states()
			c.cfg.OnState = onState
			l := run(t, c.cfg)
			if name == "open" {
				b.open()
			}
			await(t, seen, c.phase)
			began := time.Now()
			l.cancel()
			if err := l.end(); !errors.Is(err, context.Canceled) || time.Since(began) > time.Second {
				t.Fatalf("%s: %v after %v", name, err, time.Since(began))
			}
			await(t, seen, Closed)
		}
	})
}

func TestSocket(t *testing.T) {
	t.Run("unknown frames and a second hello_ack are passed over", func(t *testing.T) {
		b := newScripted(t)
		l := run(t, LinkConfig{URL: b.url})
		p := b.open()
		l.waitOpen()
		for i := range 100 {
			p.writeRaw(fmt.Sprintf(`{"type":"news_%d","x":[1,{"y":null}]}`, i))
		}
		p.welcome("other")
		p.writeRaw(`{"type":"state_result","_reqId":"nobody"}`)
		p.write(push("1"))
		p.read(nil)
		if c := l.Counts(); c.Unknown != 100 || c.Unmatched != 1 || c.Malformed != 0 {
			t.Fatalf("%+v", c)
		}
	})
	t.Run("a frame that answers nothing is told, and a teller that does not keep up costs frames, never the link", func(t *testing.T) {
		b := newScripted(t)
		told, hold := make(chan string), make(chan struct{})
		l := run(t, LinkConfig{URL: b.url, OnFrame: func(ctx context.Context, kind string, data []byte) {
			select {
			case told <- kind + string(data):
			case <-ctx.Done():
			}
			<-hold
		}})
		p := b.open()
		l.waitOpen()
		p.writeRaw(`{"type":"state_change","key":"k"}`)
		if got := <-told; got != `state_change{"type":"state_change","key":"k"}` {
			t.Fatal(got)
		}
		for range 100 {
			p.writeRaw(`{"type":"news"}`)
		}
		p.write(push("1"))
		p.read(nil)
		if n := l.Counts().Unknown; n != 100-64 {
			t.Fatalf("%d frames dropped", n)
		}
		close(hold)
	})
	t.Run("twenty malformed frames are forgiven, one more is not", func(t *testing.T) {
		b := newScripted(t)
		onState, seen := states()
		l := run(t, LinkConfig{URL: b.url, Backoff: time.Hour, OnState: onState})
		p := b.open()
		garbage := []string{"", "null", "{", "[]", `{"type":7}`, `{"type":"push","messageId":5}`, `{"type":"ack","id":{}}`, "\x00\xff", `{"no":"type"}`, `{"type":"receipt","mailId":[]}`}
		for i := range 20 {
			p.writeRaw(garbage[i%len(garbage)])
		}
		p.write(push("1"))
		var ack wire.ClientAck
		if p.read(&ack); ack.ClientMessageID != "1" || l.Counts().Malformed != 20 {
			t.Fatalf("%+v %+v", ack, l.Counts())
		}
		p.writeRaw("{")
		if s := await(t, seen, Waiting); s.Err != errGarbage.Error() {
			t.Fatalf("%+v", s)
		}
	})
	t.Run("a frame over the limit ends the connection", func(t *testing.T) {
		b := newScripted(t)
		onState, seen := states()
		run(t, LinkConfig{URL: b.url, Backoff: time.Hour, OnState: onState})
		p := b.open()
		go func() { _ = p.ws.WriteMessage(websocket.TextMessage, make([]byte, wire.MaxFrameBytes+1)) }()
		if s := await(t, seen, Waiting); !strings.Contains(s.Err, "limit") {
			t.Fatalf("%+v", s)
		}
	})
	t.Run("a broker that falls silent is left at the read deadline", func(t *testing.T) {
		b := newScripted(t)
		onState, seen := states()
		run(t, LinkConfig{URL: b.url, Backoff: time.Hour, OnState: onState, limits: limits{read: 50 * time.Millisecond, ping: 10 * time.Millisecond}})
		b.open() // never reads again, so answers no ping
		if s := await(t, seen, Waiting); !strings.Contains(s.Err, "timeout") {
			t.Fatalf("%+v", s)
		}
	})
	t.Run("a broker that only answers pings stays connected", func(t *testing.T) {
		b := newScripted(t)
		l := run(t, LinkConfig{URL: b.url, Backoff: time.Hour, limits: limits{read: 500 * time.Millisecond, ping: 20 * time.Millisecond}})
		p := b.open()
		pings, enough := 0, make(chan struct{})
		answer := p.ws.PingHandler()
		p.ws.SetPingHandler(func(s string) error {
			if pings++; pings == 50 { // twice the read deadline
				close(enough)
			}
			return answer(s)
		})
		go func() { _, _, _ = p.ws.ReadMessage() }()
		receive(t, enough)
		if s := l.State(); s.Phase != Open {
			t.Fatalf("%+v", s)
		}
	})
	t.Run("a handler that outlasts the read deadline does not cost the connection", func(t *testing.T) {
		b := newScripted(t)
		gate, begun := make(chan struct{}), make(chan struct{}, 8)
		run(t, LinkConfig{URL: b.url, Backoff: time.Hour, limits: limits{read: 40 * time.Millisecond, ping: 10 * time.Millisecond, pushes: 1}, OnPush: each(func(context.Context, wire.Push) error {
			begun <- struct{}{}
			<-gate
			return nil
		})})
		p := b.open()
		for i := range 6 {
			p.write(push(fmt.Sprint(i)))
		}
		receive(t, begun)
		time.AfterFunc(120*time.Millisecond, func() { close(gate) }) // three deadlines
		for range 6 {
			p.read(nil)
		}
	})
}
