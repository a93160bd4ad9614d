package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/nats-io/nats.go"

	"claudemesh/bus"
)

// Limits of the two listeners. They are explicit because net/http has none.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 30 * time.Second
	writeTimeout  = 60 * time.Second // of one answer; the event stream has a limit for each write instead
	idleTimeout   = 60 * time.Second
	maxHeader     = 16 << 10
	maxConns      = 256 // of each listener; one more waits
	callTimeout   = 30 * time.Second
)

// Config is what the API stands on.
type Config struct {
	Bus       *bus.Server
	Streams   *nats.Conn      // a connection of the daemon itself, for the event stream
	UserToken string          // stands for callers of the Unix socket that name no token
	Meshes    func() []string // slugs that are joined, in order
	Version   string
	// PublicHealth answers GET /v1/health on TCP without a token, and says nothing there but that the daemon lives.
	PublicHealth bool
	Metrics      http.Handler // GET /metrics; nil: there is none
	Log          *slog.Logger
	Clock        clockwork.Clock
}

// Server is a running API.
type Server struct {
	cfg     Config
	routes  []route
	mux     *http.ServeMux
	callers *callers
	streams chan struct{} // a slot for each event stream

	ctx    context.Context // ends with the server, and every stream with it
	cancel context.CancelFunc

	mu    sync.Mutex
	doors []door
	wg    sync.WaitGroup
}

type door struct {
	l   net.Listener
	srv *http.Server
}

// New makes a server without listeners.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, callers: newCallers(cfg.Bus, cfg.Log), streams: make(chan struct{}, maxStreams)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.routes = s.table()
	s.mux = s.register(s.routes)
	return s
}

// Add takes a listener over; Start serves it. Own: its connections are the user's (a Unix socket that the operating system guards).
func (s *Server) Add(l net.Listener, own bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doors = append(s.doors, door{bounded(l, maxConns), &http.Server{
		Handler: s.gate(own), ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return s.ctx },
	}})
}

// Start answers on the listeners until Close, in the background.
func (s *Server) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.doors {
		s.wg.Go(func() {
			if err := d.srv.Serve(d.l); err != nil && !errors.Is(err, http.ErrServerClosed) {
				s.cfg.Log.Error("http_listener_ended", "address", d.l.Addr().String(), "error", err)
			}
		})
	}
}

// Close ends the streams, lets requests under way finish until ctx ends, then cuts them. It is called once, and ends a server that was never started, too.
func (s *Server) Close(ctx context.Context) error {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, d := range s.doors {
		if err := d.srv.Shutdown(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop http: %w", err), d.srv.Close())
		}
		_ = d.l.Close() // closed by Shutdown already, if it was served
	}
	s.wg.Wait()
	s.callers.close()
	return errors.Join(errs...)
}
