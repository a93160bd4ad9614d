package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

func TestServiceAnswers(t *testing.T) {
	s := startBus(t, nil)
	ctx := ctxOf(t)
	log := &lines{}
	nc, err := s.ServiceConn()
	must(t, err)
	svc, err := NewService(nc, "dev (abc)", log.logger())
	must(t, err)
	defer func() { must(t, svc.Shutdown(ctx)) }()

	type body struct {
		N int `json:"n"`
	}
	must(t, svc.Handle("send", AnySend, 100, echo))
	must(t, svc.Handle("daemon", AnyDaemon, 100, func(_ context.Context, c *Call) (any, error) {
		switch c.Op {
		case "nothing":
			return nil, nil
		case "decode":
			var b body
			err := c.Decode(&b)
			return b, err
		case "refuse":
			return nil, fmt.Errorf("accept: %w", &APIError{Code: 409, Reason: "idempotency_key_reused", Detail: "why", Data: map[string]any{"conflict": "x", "error": "overwritten"}})
		case "odd":
			return nil, &APIError{Code: 7, Reason: "a\r\nb"}
		case "fail":
			return nil, errors.New("secret detail")
		case "panic":
			panic("secret panic")
		case "unencodable":
			return make(chan int), nil
		case "huge":
			return strings.Repeat("x", MaxPayload), nil
		}
		return nil, &APIError{Code: 404, Reason: "unknown_op"}
	}))
	c := userClient(t, s)
	do := func(op string, in, out any) *APIError {
		t.Helper()
		err := c.Do(ctx, DaemonSubject(User, op), in, out)
		if err == nil {
			return nil
		}
		var api *APIError
		if !errors.As(err, &api) {
			t.Fatal(err)
		}
		return api
	}
	t.Run("the caller's name comes from the subject", func(t *testing.T) {
		var got map[string]string
		must(t, c.Do(ctx, SendSubject("demo", User, SendGroup), body{}, &got))
		if got["actor"] != User || got["slug"] != "demo" || got["op"] != SendGroup {
			t.Errorf("got %v", got)
		}
	})
	t.Run("no result is an empty object", func(t *testing.T) {
		var got map[string]string
		if e := do("nothing", nil, &got); e != nil || got == nil {
			t.Errorf("got %v, %v", got, e)
		}
	})
	t.Run("an empty request decodes to nothing", func(t *testing.T) {
		var got body
		if e := do("decode", nil, &got); e != nil || got.N != 0 {
			t.Errorf("got %v, %v", got, e)
		}
	})
	t.Run("a request decodes", func(t *testing.T) {
		var got body
		if e := do("decode", body{N: 7}, &got); e != nil || got.N != 7 {
			t.Errorf("got %v, %v", got, e)
		}
	})
	t.Run("a request that is not one JSON value is refused", func(t *testing.T) {
		for _, raw := range []string{`{"n":1} {}`, `{"n":1}]`, `{"n":"x"}`, `{`, `nonsense`, "\x00", `{"n":1}x`} {
			m, err := c.Conn().Request(DaemonSubject(User, "decode"), []byte(raw), 10*time.Second)
			must(t, err)
			if got := m.Header.Get(micro.ErrorCodeHeader); got != "400" {
				t.Errorf("%q answered %s %s", raw, got, m.Data)
			}
		}
	})
	t.Run("a refusal arrives with its code, reason and data", func(t *testing.T) {
		e := do("refuse", nil, nil)
		var data struct {
			Conflict string `json:"conflict"`
		}
		if e == nil || e.Code != 409 || e.Reason != "idempotency_key_reused" || e.Detail != "why" || e.DecodeData(&data) != nil || data.Conflict != "x" {
			t.Errorf("got %+v", e)
		}
		if !errors.Is(e, &APIError{Reason: "idempotency_key_reused"}) || errors.Is(e, &APIError{Reason: "other"}) {
			t.Error("errors.Is does not go by the reason")
		}
	})
	t.Run("a refusal in bad form becomes an internal error", func(t *testing.T) {
		if e := do("odd", nil, nil); e == nil || e.Code != 500 {
			t.Errorf("got %+v", e)
		}
	})
	for _, op := range []string{"fail", "panic", "unencodable"} {
		t.Run("what went wrong inside is logged and not told: "+op, func(t *testing.T) {
			e := do(op, nil, nil)
			if e == nil || e.Code != 500 || e.Reason != "internal" || strings.Contains(e.Error(), "secret") {
				t.Errorf("got %+v", e)
			}
		})
	}
	if l := log.String(); !strings.Contains(l, "secret detail") || !strings.Contains(l, "secret panic") {
		t.Errorf("log is %s", l)
	}
	t.Run("a reply that is too large is an error, not silence", func(t *testing.T) {
		if e := do("huge", nil, nil); e == nil || e.Reason != "reply_too_large" {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("a request over the bound is refused", func(t *testing.T) {
		if e := do("decode", strings.Repeat("x", 100), nil); e == nil || e.Code != 413 {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("a handler needs a bound", func(t *testing.T) {
		if svc.Handle("x", AnyCall, 0, echo) == nil || svc.Handle("x", AnyCall, 1, nil) == nil {
			t.Error("registered")
		}
	})
	t.Run("micro tells endpoints and statistics", func(t *testing.T) {
		m, err := c.Conn().Request("$SRV.STATS.claudemesh", nil, 10*time.Second)
		must(t, err)
		var st micro.Stats
		must(t, json.Unmarshal(m.Data, &st))
		var n counters
		for _, e := range st.Endpoints {
			if e.Name == "daemon" {
				must(t, json.Unmarshal(e.Data, &n))
			}
		}
		if len(st.Endpoints) != 2 || n.Refused < 10 || n.InFlight != 0 {
			t.Errorf("stats are %+v, counters %+v", st, n)
		}
	})
}

func TestForgedReplies(t *testing.T) {
	s := startBus(t, nil)
	ctx := ctxOf(t)
	svc := service(t, s)
	must(t, svc.Handle("send", AnySend, 1<<10, echo))
	must(t, svc.Handle("daemon", AnyDaemon, 1<<10, echo))
	bus := busConn(t, s)
	everything := listen(t, bus, ">")
	mallory := sessionClient(t, s, Grant{Actor: "mallory", Mesh: "demo"})
	user := userClient(t, s)

	for name, reply := range map[string]string{
		"into another session's mailbox": "mesh.demo.msg.session.victim",
		"into an event":                  "mesh.demo.event.system",
		"into another's inbox":           "_INBOX.victim.abc",
		"into the user's inbox":          "_INBOX.user.abc",
		"into an inbox that only looks":  "_INBOX.mallory2.abc",
		"into the inbox's own prefix":    "_INBOX.mallory",
		"into the API of the streams":    "$JS.API.STREAM.DELETE.MESSAGES",
		"into a stand-in of a tap":       "_R_.abc.def",
		"to nobody":                      "",
	} {
		t.Run("an answer cannot be aimed "+name, func(t *testing.T) {
			nc := mallory.Conn()
			must(t, nc.PublishMsg(&nats.Msg{Subject: SendSubject("demo", "mallory", SendDM), Reply: reply}))
			must(t, nc.PublishMsg(&nats.Msg{Subject: DaemonSubject("mallory", "x"), Reply: reply, Data: make([]byte, 2000)})) // 413 is an answer as well
			must(t, mallory.Do(ctx, SendSubject("demo", "mallory", SendDM), nil, nil))
			must(t, mallory.Do(ctx, DaemonSubject("mallory", "x"), nil, nil))
			must(t, bus.Publish("fence", nil))
			for _, got := range everything.until(t, "fence") {
				if got == reply {
					t.Errorf("somebody published on %s", got)
				}
			}
		})
	}
	t.Run("nor that of the micro library itself", func(t *testing.T) {
		must(t, user.Conn().PublishRequest("$SRV.INFO", "mesh.demo.msg.session.victim", nil))
		_, err := user.Conn().Request("$SRV.INFO", nil, 10*time.Second)
		must(t, err)
		must(t, bus.Publish("fence", nil))
		for _, got := range everything.until(t, "fence") {
			if strings.HasPrefix(got, "mesh.") {
				t.Errorf("the service published on %s", got)
			}
		}
	})
}

func TestServiceBounds(t *testing.T) {
	s := startBus(t, nil)
	ctx := ctxOf(t)
	nc, err := s.ServiceConn()
	must(t, err)
	svc, err := NewService(nc, "1.0.0", nil)
	must(t, err)
	entered, leave := make(chan struct{}, 2*DefaultInFlight), make(chan struct{})
	var cancelled atomic.Int64
	must(t, svc.Handle("daemon", AnyDaemon, 1<<10, func(ctx context.Context, c *Call) (any, error) {
		entered <- struct{}{}
		select {
		case <-leave:
			return nil, nil
		case <-ctx.Done():
			cancelled.Add(1)
			return nil, ctx.Err()
		}
	}))
	c := userClient(t, s)
	results := make(chan error, DefaultInFlight)
	var wg sync.WaitGroup
	for range DefaultInFlight {
		wg.Go(func() { results <- c.Do(ctx, DaemonSubject(User, "slow"), nil, nil) })
	}
	for range DefaultInFlight {
		select {
		case <-entered:
		case <-ctx.Done():
			t.Fatal("handlers did not start")
		}
	}
	t.Run("one request too many is answered busy", func(t *testing.T) {
		wantErr(t, c.Do(ctx, DaemonSubject(User, "slow"), nil, nil), &APIError{Code: 503, Reason: "busy"})
	})
	t.Run("shutting down waits for requests under way, and they are answered", func(t *testing.T) {
		done := make(chan error, 1)
		go func() { done <- svc.Shutdown(ctx) }()
		close(leave)
		must(t, <-done)
		wg.Wait()
		for range DefaultInFlight {
			must(t, <-results)
		}
	})
	t.Run("afterwards nobody answers", func(t *testing.T) {
		wantErr(t, c.Do(ctx, DaemonSubject(User, "slow"), nil, nil), ErrNoDaemon)
	})
	t.Run("a handler that is still busy when the time is over is cancelled", func(t *testing.T) {
		nc, err := s.ServiceConn()
		must(t, err)
		svc, err := NewService(nc, "1.0.0", nil)
		must(t, err)
		in := make(chan struct{})
		must(t, svc.Handle("daemon", AnyDaemon, 1<<10, func(ctx context.Context, _ *Call) (any, error) {
			close(in)
			<-ctx.Done()
			return nil, &APIError{Code: 503, Reason: "shutting_down"}
		}))
		got := make(chan error, 1)
		go func() { got <- c.Do(ctx, DaemonSubject(User, "x"), nil, nil) }()
		wait(t, in)
		over, cancel := context.WithCancel(ctx)
		cancel()
		must(t, svc.Shutdown(over))
		wantErr(t, <-got, &APIError{Reason: "shutting_down"})
	})
}

func TestNoRequestEndsTheService(t *testing.T) {
	s := startBus(t, nil)
	svc := service(t, s)
	must(t, svc.Handle("send", AnySend, 1<<10, echo))
	must(t, svc.Handle("call", AnyCall, 1<<10, echo))
	must(t, svc.Handle("daemon", AnyDaemon, 1<<10, echo))
	bus := busConn(t, s)
	for _, subject := range []string{"mesh.=!.user.send.dm", "mesh.a.=zz.send.dm", "mesh.a.=.send.dm", "daemon.=.x", "daemon.user.=", "mesh.a.msg.send.x", "mesh.a.user.call.=58"} {
		for _, reply := range []string{"", "_INBOX.user.x", "_INBOX.=.x", "_INBOX..x", "x y"} {
			_ = bus.PublishRequest(subject, reply, []byte{0xff})
		}
		_ = bus.PublishMsg(&nats.Msg{Subject: subject, Reply: "_INBOX.user.x", Header: nats.Header{"A": {"\u0000"}}})
	}
	must(t, userClient(t, s).Do(ctxOf(t), SendSubject("demo", User, SendDM), nil, nil))
}
