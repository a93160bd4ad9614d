package testenv_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/testenv"
)

// What the tests of hostile input share: connections below the client of package bus, and answers as they are.

// register registers a session that is not the usual kind and connects it.
func register(m *testenv.Machine, req bus.SessionStart) *testenv.Session {
	m.T.Helper()
	if req.PID == 0 {
		req.PID = os.Getpid()
	}
	var info bus.SessionInfo
	m.Do(bus.OpSessionStart, req, &info)
	return testenv.Resume(m, &testenv.Session{Machine: m, Info: info})
}

func tokenIn(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func userToken(m *testenv.Machine) string {
	m.T.Helper()
	return tokenIn(m.T, filepath.Join(m.Dir(), "local-token"))
}

func status(m *testenv.Machine) bus.Status {
	m.T.Helper()
	var s bus.Status
	m.Do(bus.OpStatus, nil, &s)
	return s
}

// raw is a connection to the TCP door without the manners of bus.Client. Violations are what the server refused it.
type raw struct {
	*nats.Conn
	t          testing.TB
	closed     chan struct{}
	violations chan error
}

func rawConn(m *testenv.Machine, token, inbox string) *raw {
	m.T.Helper()
	r := &raw{t: m.T, closed: make(chan struct{}), violations: make(chan error, 1024)}
	nc, err := nats.Connect(status(m).TCPURL, nats.Token(token), nats.CustomInboxPrefix(inbox), nats.NoReconnect(),
		nats.ClosedHandler(func(*nats.Conn) { close(r.closed) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { r.violations <- err }))
	if err != nil {
		m.T.Fatal(err)
	}
	r.Conn = nc
	m.T.Cleanup(nc.Close)
	return r
}

// refusedAt publishes and returns when the server has refused it.
func (r *raw) refusedAt(subject, reply string, data []byte) {
	r.t.Helper()
	if err := r.PublishRequest(subject, reply, data); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
	defer cancel()
	if err := r.FlushWithContext(ctx); err != nil {
		r.t.Fatal(err)
	}
	select {
	case err := <-r.violations:
		if !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(err.Error(), `"`+subject+`"`) {
			r.t.Errorf("%s: %v", subject, err)
		}
	case <-ctx.Done():
		r.t.Errorf("%s was let through", subject)
	}
}

// cut waits until the server has ended the connection.
func (r *raw) cut() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
	defer cancel()
	select {
	case <-r.closed:
	case <-ctx.Done():
		r.t.Error("the connection still stands")
	}
}

// heard collects what arrives on a subject.
type heard struct{ ch chan *nats.Msg }

func listen(t testing.TB, c *bus.Client, subject string) *heard {
	t.Helper()
	h := &heard{ch: make(chan *nats.Msg, 16384)}
	sub, err := c.Subscribe(subject, func(m *nats.Msg) { h.ch <- m })
	if err != nil {
		t.Fatalf("listen on %s: %v", subject, err)
	}
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	return h
}

// until returns what arrived before the message that holds text.
func (h *heard) until(t testing.TB, text string) []*nats.Msg {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
	defer cancel()
	var before []*nats.Msg
	for {
		select {
		case m := <-h.ch:
			if strings.Contains(string(m.Data), text) {
				return before
			}
			before = append(before, m)
		case <-ctx.Done():
			t.Fatalf("nothing with %q came, only %d others", text, len(before))
		}
	}
}

// refusal checks that err is an API error of this code and reason, and returns its further fields.
func refusal(t testing.TB, err error, code int, reason string) map[string]any {
	t.Helper()
	var e *bus.APIError
	if !errors.As(err, &e) || e.Code != code || e.Reason != reason {
		t.Errorf("error is %v, want %d %s", err, code, reason)
		return map[string]any{}
	}
	fields := map[string]any{}
	if err := e.DecodeData(&fields); err != nil {
		t.Errorf("fields of %v: %v", e, err)
	}
	return fields
}

func denied(t testing.TB, what string, err error) {
	t.Helper()
	if !errors.Is(err, bus.ErrDenied) {
		t.Errorf("%s: %v, want it denied", what, err)
	}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// trySend sends as a session and returns the refusal.
func trySend(s *testenv.Session, slug string, req bus.SendRequest) (bus.SendReply, error) {
	s.Machine.T.Helper()
	var r bus.SendReply
	err := testenv.Try(s.Client, testenv.SendSubject(s.Machine.T, slug, s.Info.ID, req.To), req, &r)
	return r, err
}

// memberOf is a machine's membership with its secret.
func memberOf(m *testenv.Machine, slug string) mesh.Joined {
	m.T.Helper()
	c, err := mesh.LoadConfig(filepath.Join(m.Home, ".claudemesh"))
	if err != nil {
		m.T.Fatal(err)
	}
	j, ok := c.Mesh(slug)
	if !ok {
		m.T.Fatalf("no mesh %s in the config", slug)
	}
	return j
}

// filesBelow calls fn for everything below dir that exists when it is looked at: a running daemon's files come and go.
func filesBelow(t testing.TB, dir string, fn func(path string, info os.FileInfo)) {
	t.Helper()
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil {
			fn(path, info)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func hashHex(token string) string {
	h := bus.HashToken(token)
	return hex.EncodeToString(h[:])
}
