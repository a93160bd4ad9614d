package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(foreignEnv) != "" {
		os.Exit(foreignMain())
	}
	goleak.VerifyTestMain(m)
}

// ctxOf bounds a test; nothing is measured by it.
func ctxOf(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// shortDir is a private directory whose path fits a socket address, which t.TempDir's may not.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cm")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func startBus(t *testing.T, edit func(*ServerConfig)) *Server {
	t.Helper()
	cfg := ServerConfig{Dir: shortDir(t), TCP: true}
	if edit != nil {
		edit(&cfg)
	}
	s, err := StartServer(cfg)
	must(t, err)
	t.Cleanup(func() { must(t, s.Shutdown(ctxOf(t))) })
	return s
}

func grant(t *testing.T, s *Server, g Grant) (token string) {
	t.Helper()
	token, err := NewToken(rand.Reader)
	must(t, err)
	must(t, s.Grants().Add(HashToken(token), g))
	return token
}

func client(t *testing.T, s *Server, token, actor string) *Client {
	t.Helper()
	c, err := Connect(ctxOf(t), ClientConfig{Dir: s.cfg.Dir, Token: token, Actor: actor, Name: t.Name()})
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

func userClient(t *testing.T, s *Server) *Client {
	t.Helper()
	return client(t, s, grant(t, s, Grant{Role: RoleUser}), User)
}

func sessionClient(t *testing.T, s *Server, g Grant) *Client {
	t.Helper()
	g.Role = RoleSession
	return client(t, s, grant(t, s, g), g.Actor)
}

// tapConn is a connection as the nats CLI makes it: over TCP, without this package's client.
func tapConn(t *testing.T, s *Server) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(s.TCPURL(), nats.Token(grant(t, s, Grant{Role: RoleTap})), nats.CustomInboxPrefix("_INBOX.tap"),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	must(t, err)
	t.Cleanup(nc.Close)
	return nc
}

func busConn(t *testing.T, s *Server) *nats.Conn {
	t.Helper()
	nc, err := s.BusConn()
	must(t, err)
	return nc
}

func service(t *testing.T, s *Server) *Service {
	t.Helper()
	nc, err := s.ServiceConn()
	must(t, err)
	svc, err := NewService(nc, "1.2.3", nil)
	must(t, err)
	t.Cleanup(func() { must(t, svc.Shutdown(ctxOf(t))) })
	return svc
}

// echo answers with who asked for what.
func echo(_ context.Context, c *Call) (any, error) {
	return map[string]string{"actor": c.Actor, "slug": c.Slug, "op": c.Op}, nil
}

// listen collects what arrives on subject.
func listen(t *testing.T, nc *nats.Conn, subject string) *heard {
	t.Helper()
	h := &heard{ch: make(chan *nats.Msg, 1024)}
	sub, err := nc.ChanSubscribe(subject, h.ch)
	must(t, err)
	must(t, nc.Flush())
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	return h
}

type heard struct{ ch chan *nats.Msg }

// until returns what came before the message on subject, which is published last as a fence.
func (h *heard) until(t *testing.T, subject string) (before []string) {
	t.Helper()
	for {
		select {
		case m := <-h.ch:
			if m.Subject == subject {
				return before
			}
			before = append(before, m.Subject)
		case <-ctxOf(t).Done():
			t.Fatalf("nothing on %s; before: %q", subject, before)
		}
	}
}

// store publishes to a stream and waits until it is stored, and with it everything that was published there before.
func store(t *testing.T, nc *nats.Conn, subject string) {
	t.Helper()
	js, err := jetstream.New(nc)
	must(t, err)
	_, err = js.Publish(ctxOf(t), subject, []byte(`{"n":1}`))
	must(t, err)
}

// lines is a log handler's target that tests can read.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
}
