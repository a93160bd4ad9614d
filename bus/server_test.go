package bus

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestDoorsAreLocal(t *testing.T) {
	t.Run("TCP listens on loopback only", func(t *testing.T) {
		s := startBus(t, nil)
		addr := s.ns.Addr().(*net.TCPAddr)
		if !addr.IP.IsLoopback() || s.TCPURL() != "nats://127.0.0.1:"+strconv.Itoa(addr.Port) {
			t.Errorf("listens on %s, says %s", addr, s.TCPURL())
		}
		if s.ns.MonitorAddr() != nil || s.ns.ClusterAddr() != nil || s.ns.ProfilerAddr() != nil {
			t.Error("another listener is open")
		}
	})
	t.Run("without TCP nothing listens", func(t *testing.T) {
		s := startBus(t, func(c *ServerConfig) { c.TCP = false })
		if s.ns.Addr() != nil || s.TCPURL() != "" {
			t.Errorf("listens on %v", s.ns.Addr())
		}
		must(t, service(t, s).Handle("daemon", AnyDaemon, 1<<10, echo))
		must(t, userClient(t, s).Do(ctxOf(t), DaemonSubject(User, "x"), nil, nil))
	})
	t.Run("a store alone has no door and no bus", func(t *testing.T) {
		s, err := StartStore(shortDir(t), nil, 0)
		must(t, err)
		defer func() { must(t, s.Shutdown(ctxOf(t))) }()
		if s.ns.Addr() != nil || s.Socket() != "" {
			t.Error("a door is open")
		}
		if _, err := s.BusConn(); err == nil {
			t.Error("it has a bus")
		}
		wantErr(t, s.Grants().Add(HashToken("x"), Grant{Role: RoleUser}), ErrBadGrant)
		nc, err := s.BrokerConn()
		must(t, err)
		js, err := jetstream.New(nc)
		must(t, err)
		_, err = js.CreateStream(ctxOf(t), jetstream.StreamConfig{Name: "MAIL", Subjects: []string{"mail.>"}})
		must(t, err)
		if !s.ns.JetStreamConfig().SyncAlways {
			t.Error("its writes are not synced")
		}
	})
}

func TestPorts(t *testing.T) {
	ctx := ctxOf(t)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer busy.Close()
	busyPort := busy.Addr().(*net.TCPAddr).Port

	t.Run("a fixed port that is busy is an error, not silence", func(t *testing.T) {
		_, err := StartServer(ServerConfig{Dir: shortDir(t), TCP: true, Port: busyPort})
		wantErr(t, err, ErrServerStart)
		if !strings.Contains(err.Error(), strconv.Itoa(busyPort)) {
			t.Errorf("the error does not name the port: %v", err)
		}
	})
	t.Run("the port is the same after a restart", func(t *testing.T) {
		cfg := ServerConfig{Dir: shortDir(t), TCP: true}
		first, err := StartServer(cfg)
		must(t, err)
		url := first.TCPURL()
		must(t, first.Shutdown(ctx))
		second, err := StartServer(cfg)
		must(t, err)
		defer func() { must(t, second.Shutdown(ctx)) }()
		if second.TCPURL() != url {
			t.Errorf("was %s, is %s", url, second.TCPURL())
		}
	})
	t.Run("a remembered port that is busy gives way to another", func(t *testing.T) {
		dir := shortDir(t)
		must(t, rememberPort(dir, busyPort))
		s, err := StartServer(ServerConfig{Dir: dir, TCP: true})
		must(t, err)
		defer func() { must(t, s.Shutdown(ctx)) }()
		if port := s.ns.Addr().(*net.TCPAddr).Port; port == busyPort || rememberedPort(dir) != port {
			t.Errorf("port is %d, remembered %d", port, rememberedPort(dir))
		}
	})
	t.Run("a memory that makes no sense is ignored", func(t *testing.T) {
		for _, text := range []string{"", "x", "-1", "22", "70000"} {
			dir := shortDir(t)
			must(t, os.WriteFile(filepath.Join(dir, portFile), []byte(text), 0o600))
			if p := rememberedPort(dir); p != 0 {
				t.Errorf("%q is port %d", text, p)
			}
		}
	})
}

func TestStartErrors(t *testing.T) {
	t.Run("a store directory that is a file", func(t *testing.T) {
		dir := shortDir(t)
		must(t, os.WriteFile(filepath.Join(dir, "jetstream"), nil, 0o600))
		_, err := StartServer(ServerConfig{Dir: dir})
		wantErr(t, err, ErrServerStart)
	})
	t.Run("a store limit that holds nothing", func(t *testing.T) {
		_, err := StartServer(ServerConfig{Dir: shortDir(t), StoreLimit: 1 << 20})
		wantErr(t, err, ErrServerStart)
	})
	t.Run("a grant that makes no sense", func(t *testing.T) {
		_, err := StartServer(ServerConfig{Dir: shortDir(t), Grants: map[Hash]Grant{{}: {}}})
		wantErr(t, err, ErrBadGrant)
	})
	t.Run("a directory that others share", func(t *testing.T) {
		dir := shortDir(t)
		must(t, os.Chmod(dir, 0o777|fs.ModeSticky))
		_, err := StartServer(ServerConfig{Dir: dir})
		wantErr(t, err, ErrUnsafeDir)
		_, err = AcquireLock(dir)
		wantErr(t, err, ErrUnsafeDir)
	})
	t.Run("a fatal error is recorded and ends nothing", func(t *testing.T) {
		l := newServerLog(ServerConfig{}.withDefaults().Log, ServerConfig{}.withDefaults().Clock)
		l.Fatalf("first %d", 1)
		l.Fatalf("second")
		if l.err() == nil || l.err().Error() != "first 1" {
			t.Errorf("recorded %v", l.err())
		}
	})
}

func TestServerLimits(t *testing.T) {
	s := startBus(t, func(c *ServerConfig) { c.SyncAlways = true })
	cfg := s.ns.JetStreamConfig()
	if cfg.MaxStore != DefaultStoreLimit || cfg.MaxMemory != memoryLimit || !cfg.SyncAlways {
		t.Errorf("limits are %+v", cfg)
	}
	bus := busConn(t, s)
	ctx := ctxOf(t)
	for range 2 { // twice: an existing stream is fine
		must(t, EnsureStreams(ctx, bus))
	}
	js, err := jetstream.New(bus)
	must(t, err)
	for _, name := range []string{StreamMessages, StreamEvents} {
		st, err := js.Stream(ctx, name)
		must(t, err)
		if c := st.CachedInfo().Config; c.PersistMode != jetstream.AsyncPersistMode || c.MaxBytes <= 0 || c.MaxAge <= 0 {
			t.Errorf("stream %s is %+v", name, c)
		}
	}
}

func TestShutdown(t *testing.T) {
	ctx := ctxOf(t)
	s, err := StartServer(ServerConfig{Dir: shortDir(t), TCP: true})
	must(t, err)
	must(t, EnsureStreams(ctx, busConn(t, s)))
	user := userClient(t, s)
	tap := tapConn(t, s)
	must(t, service(t, s).Handle("daemon", AnyDaemon, 1<<10, echo))
	must(t, user.Do(ctx, DaemonSubject(User, "x"), nil, nil))
	must(t, s.Shutdown(ctx))
	t.Run("again is harmless", func(t *testing.T) { must(t, s.Shutdown(ctx)) })
	t.Run("the socket file is gone", func(t *testing.T) {
		if _, err := os.Stat(s.Socket()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("stat says %v", err)
		}
	})
	t.Run("no new connection of the daemon", func(t *testing.T) {
		if _, err := s.BusConn(); err == nil {
			t.Error("connected")
		}
	})
	t.Run("a context that is over does not wait", func(t *testing.T) {
		over, cancel := context.WithCancel(ctx)
		cancel()
		if err := s.Shutdown(over); err != nil {
			wantErr(t, err, context.Canceled)
		}
	})
	user.Close()
	tap.Close() // goleak looks at the rest when all tests are done
}

func TestAStuckTapSlowsNobody(t *testing.T) {
	if o := serverOptions(ServerConfig{}, 0, nil); !o.NoFastProducerStall || o.WriteDeadline > 2*time.Second || o.MaxPending > 8<<20 {
		t.Errorf("the server would wait for a slow client: %+v", o)
	}
	s := startBus(t, nil)
	ctx := ctxOf(t)
	must(t, service(t, s).Handle("send", AnySend, 1<<18, func(_ context.Context, c *Call) (any, error) { return nil, nil }))
	raw, err := net.Dial("tcp", s.ns.Addr().String())
	must(t, err)
	defer raw.Close()
	token := grant(t, s, Grant{Role: RoleTap})
	_, err = raw.Write([]byte(`CONNECT {"verbose":false,"auth_token":"` + token + `"}` + "\r\nSUB > 1\r\nPING\r\n"))
	must(t, err)
	readUntil(t, raw, "PONG\r\n") // subscribed; from here on it reads nothing
	user := userClient(t, s)
	body := strings.Repeat("x", 100_000)
	for range 400 { // 40 MB, far over its buffers and the server's bound
		must(t, user.Do(ctx, SendSubject("demo", User, SendDM), body, nil))
	}
	other, err := nats.Connect(s.TCPURL(), nats.Token(token))
	must(t, err)
	other.Close()
}

func readUntil(t *testing.T, c net.Conn, text string) {
	t.Helper()
	var got []byte
	buf := make([]byte, 1)
	for !strings.HasSuffix(string(got), text) {
		if _, err := c.Read(buf); err != nil {
			t.Fatalf("read %q, then %v", got, err)
		}
		got = append(got, buf...)
	}
}
