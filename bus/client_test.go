package bus

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func TestDeniedIsToldAtOnce(t *testing.T) {
	s := startBus(t, nil)
	must(t, service(t, s).Handle("daemon", AnyDaemon, 1<<10, echo))
	c := sessionClient(t, s, Grant{Actor: "s1", Mesh: "demo"})
	// No deadline of ours: only the server's answer can end these.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c.timeout = time.Hour

	t.Run("a request that the token does not allow", func(t *testing.T) {
		wantErr(t, c.Do(ctx, SendSubject("demo", "s2", SendDM), nil, nil), ErrDenied)
	})
	t.Run("the same one from many goroutines, among permitted ones", func(t *testing.T) {
		bad, good := make(chan error), make(chan error)
		for range 20 {
			go func() { bad <- c.Do(ctx, DaemonSubject("s2", "x"), nil, nil) }()
			go func() { good <- c.Do(ctx, DaemonSubject("s1", "x"), nil, nil) }()
		}
		for range 20 {
			wantErr(t, <-bad, ErrDenied)
			must(t, <-good)
		}
	})
	t.Run("subscriptions, among permitted ones", func(t *testing.T) {
		bad, good := make(chan error), make(chan error)
		for range 20 {
			go func() {
				_, err := c.Subscribe(SessionMsgSubject("demo", "s2"), func(*nats.Msg) {})
				bad <- err
			}()
			go func() {
				_, err := c.Subscribe(SessionMsgSubject("demo", "s1"), func(*nats.Msg) {})
				good <- err
			}()
		}
		for range 20 {
			wantErr(t, <-bad, ErrDenied)
			must(t, <-good)
		}
	})
	t.Run("everything, when the client goes under a name that is not its token's", func(t *testing.T) {
		c := client(t, s, grant(t, s, Grant{Role: RoleSession, Actor: "s7", Mesh: "demo"}), "s8")
		c.timeout = time.Hour
		for range 2 {
			wantErr(t, c.Do(ctx, DaemonSubject("s7", "x"), nil, nil), ErrDenied)
		}
	})
	t.Run("a subject that quoting changes", func(t *testing.T) {
		wantErr(t, c.Do(ctx, "mesh.\"é\\.x", nil, nil), ErrDenied)
	})
}

func TestNobodyThere(t *testing.T) {
	ctx := ctxOf(t)
	t.Run("no directory", func(t *testing.T) {
		_, err := Connect(ctx, ClientConfig{Dir: filepath.Join(shortDir(t), "none")})
		wantErr(t, err, ErrNoDaemon)
	})
	t.Run("a daemon that has ended", func(t *testing.T) {
		s := startBus(t, nil)
		c := userClient(t, s)
		must(t, s.Shutdown(ctx))
		_, err := Connect(ctx, ClientConfig{Dir: s.cfg.Dir})
		wantErr(t, err, ErrNoDaemon)
		if err := c.Do(ctx, DaemonSubject(User, "x"), nil, nil); !errors.Is(err, ErrNoDaemon) && !errors.Is(err, ErrInterrupted) {
			t.Error(err)
		}
	})
	t.Run("an operation that nobody offers", func(t *testing.T) {
		wantErr(t, userClient(t, startBus(t, nil)).Do(ctx, DaemonSubject(User, "x"), nil, nil), ErrNoDaemon)
	})
	t.Run("a context that is over", func(t *testing.T) {
		over, cancel := context.WithCancel(ctx)
		cancel()
		_, err := Connect(over, ClientConfig{Dir: shortDir(t)})
		wantErr(t, err, context.Canceled)
	})
	t.Run("a context that ends while the handler works", func(t *testing.T) {
		s := startBus(t, nil)
		in := make(chan struct{})
		must(t, service(t, s).Handle("daemon", AnyDaemon, 1<<10, func(ctx context.Context, _ *Call) (any, error) {
			close(in)
			return nil, nil
		}))
		c := userClient(t, s)
		bus := busConn(t, s)
		_, err := bus.Subscribe("mesh.>", func(*nats.Msg) {}) // somebody hears it, nobody answers
		must(t, err)
		must(t, bus.Flush())
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		wantErr(t, c.Do(short, SendSubject("demo", User, SendDM), nil, nil), context.DeadlineExceeded)
		must(t, c.Do(ctx, DaemonSubject(User, "x"), nil, nil))
		wait(t, in)
	})
}

func TestAClientSurvivesARestart(t *testing.T) {
	dir := shortDir(t)
	ctx := ctxOf(t)
	const token = "a token that the daemon knows from its files"
	cfg := ServerConfig{Dir: dir, Grants: map[Hash]Grant{HashToken(token): {Role: RoleSession, Actor: "s1", Mesh: "demo"}}}
	s, err := StartServer(cfg)
	must(t, err)
	hang := make(chan struct{}, 1)
	serve := func(s *Server) {
		nc, err := s.ServiceConn()
		must(t, err)
		svc, err := NewService(nc, "1.0.0", nil)
		must(t, err)
		must(t, svc.Handle("daemon", AnyDaemon, 1<<10, func(ctx context.Context, c *Call) (any, error) {
			if c.Op == "hang" {
				hang <- struct{}{}
				<-ctx.Done()
			}
			return nil, nil
		}))
		t.Cleanup(func() {
			over, cancel := context.WithCancel(ctx)
			cancel()
			_ = svc.Shutdown(over)
		})
	}
	serve(s)
	back, got := make(chan struct{}, 1), make(chan struct{}, 1)
	c, err := Connect(ctx, ClientConfig{Dir: dir, Token: token, Actor: "s1", Reconnect: true, OnReconnect: func() { back <- struct{}{} }})
	must(t, err)
	defer c.Close()
	_, err = c.Subscribe(SessionMsgSubject("demo", "s1"), func(*nats.Msg) { got <- struct{}{} })
	must(t, err)

	pending := make(chan error, 1)
	go func() { pending <- c.Do(ctx, DaemonSubject("s1", "hang"), nil, nil) }()
	wait(t, hang)
	must(t, s.Shutdown(ctx))
	t.Run("a request under way is told that nobody knows", func(t *testing.T) { wantErr(t, <-pending, ErrInterrupted) })

	s, err = StartServer(cfg)
	must(t, err)
	defer func() { must(t, s.Shutdown(ctx)) }()
	serve(s)
	wait(t, back)
	t.Run("requests work again", func(t *testing.T) { must(t, c.Do(ctx, DaemonSubject("s1", "x"), nil, nil)) })
	t.Run("subscriptions are back", func(t *testing.T) {
		must(t, busConn(t, s).Publish(SessionMsgSubject("demo", "s1"), nil))
		wait(t, got)
	})
}
