package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/jonboulle/clockwork"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Limits of the server. They are explicit because the library's own would take most of the machine.
const (
	DefaultStoreLimit = 10 << 30 // bytes of JetStream files, both accounts together
	busStoreLimit     = 512 << 20
	minStoreLimit     = 1 << 30
	memoryLimit       = 64 << 20
	// MaxPayload is the largest message of the bus in bytes, headers included.
	MaxPayload = 1 << 20
	maxPending = 8 << 20
	maxConns   = 1024
	// startTimeout bounds the recovery of the stores, the only slow part of a start.
	startTimeout = 30 * time.Second
)

// Accounts of the server.
const (
	accountBus    = "BUS"
	accountBroker = "BROKER"
)

// ErrServerStart means that the embedded server could not start: a busy fixed port, an unusable directory.
var ErrServerStart = errors.New("start bus server")

// ServerConfig says how to run the bus.
type ServerConfig struct {
	Dir string // the daemon directory; the caller holds its lock
	TCP bool   // open the loopback TCP door as well
	// Port of the TCP door: 0 means the one used last time if it is free, else a random one. A fixed port that is busy is an error.
	Port int
	// Log receives the server's lines; nil discards them.
	Log *slog.Logger
	// StoreLimit bounds the files of JetStream in bytes, at least 1 GiB; 0 means DefaultStoreLimit.
	StoreLimit int64
	// SyncAlways makes every write of the account BROKER durable before it is acknowledged. The streams of BUS opt out, see EnsureStreams.
	SyncAlways bool
	// SyncInterval is how often what was written is made durable without SyncAlways; 0 means the library's two minutes.
	SyncInterval time.Duration
	// Grants are in force before the first door opens, so that a client that reconnects after a restart is not turned away.
	Grants map[Hash]Grant
	Clock  clockwork.Clock // nil means the real one
	Rand   io.Reader       // nil means crypto/rand
	// PeerUID tells the user at the other end of a Unix socket connection; nil means to ask the operating system.
	PeerUID func(net.Conn) (uid int, err error)
}

// Server is a running bus.
type Server struct {
	cfg    ServerConfig
	ns     *natsserver.Server
	log    *serverLog
	grants *Grants
	bus    *natsserver.Account
	broker *natsserver.Account
	door   *door
	rest   func() // ends the caretaker

	mu     sync.Mutex
	conns  []*nats.Conn
	closed bool
}

// StartServer runs the bus of a daemon: the accounts BUS and BROKER, the Unix socket (not on Windows) and, if asked for, TCP on 127.0.0.1. The caller
// holds the lock of cfg.Dir.
func StartServer(cfg ServerConfig) (*Server, error) {
	cfg = cfg.withDefaults()
	if cfg.StoreLimit < minStoreLimit {
		return nil, fmt.Errorf("%w: store limit of %d bytes is under 1 GiB", ErrServerStart, cfg.StoreLimit)
	}
	if err := prepareDir(cfg.Dir); err != nil {
		return nil, err
	}
	ports := []int{cfg.Port}
	if cfg.Port == 0 {
		ports = []int{natsserver.RANDOM_PORT}
		if p := rememberedPort(cfg.Dir); p != 0 {
			ports = []int{p, natsserver.RANDOM_PORT}
		}
	}
	var s *Server
	var err error
	for _, port := range ports {
		if s, err = start(cfg, port, true); err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if cfg.TCP {
		if err := rememberPort(cfg.Dir, s.ns.Addr().(*net.TCPAddr).Port); err != nil {
			s.stop()
			return nil, err
		}
	}
	if s.door, err = openDoor(filepath.Join(cfg.Dir, socketFile), s.ns.InProcessConn, cfg); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (cfg ServerConfig) withDefaults() ServerConfig {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = clockwork.NewRealClock()
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.PeerUID == nil {
		cfg.PeerUID = peerUID
	}
	if cfg.StoreLimit == 0 {
		cfg.StoreLimit = DefaultStoreLimit
	}
	return cfg
}

func start(cfg ServerConfig, port int, withBus bool) (*Server, error) {
	s := &Server{cfg: cfg, log: newServerLog(cfg.Log, cfg.Clock)}
	s.grants = newGrants(cfg.Clock, s.accountOf)
	ns, err := natsserver.NewServer(serverOptions(cfg, port, s.grants))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrServerStart, err)
	}
	s.ns, s.grants.srv = ns, ns
	ns.SetLoggerV2(s.log, false, false, false)
	if err := s.run(withBus); err != nil {
		s.stop()
		return nil, fmt.Errorf("%w: %w", ErrServerStart, err)
	}
	s.rest = s.startCaretaker()
	return s, nil
}

func serverOptions(cfg ServerConfig, port int, auth natsserver.Authentication) *natsserver.Options {
	return &natsserver.Options{
		ServerName:                 "claudemesh",
		Host:                       "127.0.0.1", // empty would listen on every interface
		Port:                       port,
		DontListen:                 !cfg.TCP,
		NoSigs:                     true,
		MaxConn:                    maxConns,
		MaxPayload:                 MaxPayload,
		MaxPending:                 maxPending,
		WriteDeadline:              2 * time.Second,
		NoFastProducerStall:        true, // one client that stops reading would slow every other one
		JetStream:                  true,
		StoreDir:                   cfg.Dir,
		JetStreamMaxStore:          cfg.StoreLimit,
		JetStreamMaxMemory:         memoryLimit,
		JetStreamLimits:            natsserver.JSLimitOpts{DefaultMaxConsumers: -1},
		SyncAlways:                 cfg.SyncAlways,
		SyncInterval:               cfg.SyncInterval,
		DisableJetStreamBanner:     true,
		CustomClientAuthentication: auth,
	}
}

// run starts the server and sets its accounts up. A client that comes before the grants are in is refused like any stranger.
func (s *Server) run(withBus bool) (err error) {
	brokerLimit := s.cfg.StoreLimit
	if s.broker, err = s.ns.RegisterAccount(accountBroker); err != nil {
		return fmt.Errorf("account %s: %w", accountBroker, err)
	}
	if withBus {
		brokerLimit -= busStoreLimit
		if s.bus, err = s.ns.RegisterAccount(accountBus); err != nil {
			return fmt.Errorf("account %s: %w", accountBus, err)
		}
		if err := exportToTaps(s.bus); err != nil {
			return err
		}
		// Before the listener opens, for clients that come back after a restart.
		for hash, grant := range s.cfg.Grants {
			if err := s.grants.Add(hash, grant); err != nil {
				return err
			}
		}
	}
	s.ns.Start()
	if err := s.log.err(); err != nil {
		return err
	}
	if !s.ns.ReadyForConnections(startTimeout) {
		return errors.New("not ready in time")
	}
	if s.cfg.TCP && s.ns.Addr() == nil {
		return errors.New("no listener")
	}
	if withBus {
		if err := enableStreams(s.bus, busStoreLimit); err != nil {
			return err
		}
	}
	if err := enableStreams(s.broker, brokerLimit); err != nil {
		return err
	}
	return s.log.err()
}

func enableStreams(acc *natsserver.Account, store int64) error {
	err := acc.EnableJetStream(map[string]natsserver.JetStreamAccountLimits{"": {
		MaxMemory: memoryLimit / 2, MaxStore: store,
		MaxStreams: -1, MaxConsumers: -1, MaxAckPending: -1, MemoryMaxStreamBytes: -1, StoreMaxStreamBytes: -1,
	}}, nil)
	if err != nil {
		return fmt.Errorf("streams of account %s: %w", acc.Name, err)
	}
	return nil
}

// accountOf says in which account a grant lands: never BROKER.
func (s *Server) accountOf(hash Hash, g Grant) (*natsserver.Account, error) {
	if s.bus == nil {
		return nil, fmt.Errorf("%w: this server has no doors", ErrBadGrant)
	}
	if g.Role == RoleTap {
		return tapAccount(s.ns, s.bus, hash)
	}
	return s.bus, nil
}

// Grants is the table of who may connect.
func (s *Server) Grants() *Grants { return s.grants }

// Socket is the path of the Unix socket, empty where there is none.
func (s *Server) Socket() string {
	if s.door == nil {
		return ""
	}
	return s.door.path
}

// TCPURL is the address of the TCP door, nats://127.0.0.1:<port>, empty when it is closed.
func (s *Server) TCPURL() string {
	if !s.cfg.TCP {
		return ""
	}
	addr, ok := s.ns.Addr().(*net.TCPAddr)
	if !ok {
		return ""
	}
	return "nats://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(addr.Port))
}

// Shutdown closes the doors, then the daemon's own connections, then the server, and waits for all of it, at most until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.stop()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("shut the bus down: %w", ctx.Err())
	}
}

func (s *Server) stop() {
	if s.door != nil {
		s.door.close()
	}
	s.mu.Lock()
	again := s.closed
	s.closed = true
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	for _, nc := range conns {
		nc.Close()
	}
	if s.rest != nil && !again {
		s.rest()
	}
	s.ns.Shutdown()
	s.ns.WaitForShutdown()
}
