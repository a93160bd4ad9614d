package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"claudemesh/bridge"
	"claudemesh/broker"
	"claudemesh/bus"
)

// BrokerOptions is what `claudemesh broker serve` is made of.
type BrokerOptions struct {
	Options
	Listen    string // host:port
	DataDir   string
	PublicURL string // what invites name; default ws://Listen/ws, wss:// with a certificate
	// TLSCert and TLSKey are PEM files; both or none. They are read again when they change.
	TLSCert, TLSKey string
	// BehindProxy says that a proxy which adds TLS is the only way to this port; TrustedProxies are the addresses whose X-Forwarded-For is believed, and imply
	// it.
	BehindProxy    bool
	TrustedProxies []netip.Prefix
	// Insecure allows plain ws:// on an address that other machines reach.
	Insecure bool
	// StorePort opens a loopback door to the store for the stock nats CLI, at this port (0: any free one). nil: no door.
	StorePort *int
	Ready     func(BrokerInfo) // called when the port is open
	// SyncEvery above zero makes messages durable so often instead of before they are acknowledged, see bus.StoreConfig.
	SyncEvery time.Duration
	Limits    broker.Limits // zero fields are the broker's defaults
	AllowHook bool          // see broker.Config
	// AllowPrivateWatches lets watches fetch addresses that are not on the public internet.
	AllowPrivateWatches bool
}

// openMemory is the size in bytes from which garbage is collected even while a store is opened.
const openMemory = 512 << 20

// ErrInsecureListen is returned by ServeBroker for an address that other machines reach without TLS, unless it is said that this is meant.
var ErrInsecureListen = errors.New("refused to listen in clear on an address that other machines reach")

// ErrTLSFiles is wrapped when only one of certificate and key is named.
var ErrTLSFiles = errors.New("a certificate and its key belong together")

// Files in the data directory of a standalone broker.
const (
	// AdminTokenFile holds the token that POST /cli/mesh/create, GET /metrics and GET /status ask for.
	AdminTokenFile = "admin-token"
	// StoreTokenFile holds the token of the door to the store.
	StoreTokenFile = "store-token"
)

// exposed reports whether other machines may reach a listening address in clear.
func (o BrokerOptions) exposed() (bool, error) {
	host, _, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return false, fmt.Errorf("listen: %w", err)
	}
	return !isLoopback(host), nil
}

// check refuses what would be a mistake before anything is opened.
func (o BrokerOptions) check() error {
	exposed, err := o.exposed()
	switch {
	case err != nil:
		return err
	case (o.TLSCert == "") != (o.TLSKey == ""):
		return ErrTLSFiles
	case exposed && o.TLSCert == "" && !o.Insecure && !o.behindProxy():
		return fmt.Errorf("%w: %s", ErrInsecureListen, o.Listen)
	}
	if o.PublicURL != "" {
		if _, err := bridge.HTTPBase(o.PublicURL); err != nil {
			return err
		}
	}
	return nil
}

func (o BrokerOptions) behindProxy() bool { return o.BehindProxy || len(o.TrustedProxies) > 0 }

// openStatus: who asks is on this machine, and no proxy asks for somebody else.
func (o BrokerOptions) openStatus() bool {
	exposed, err := o.exposed()
	return err == nil && !exposed && !o.behindProxy()
}

// ServeBroker runs a standalone broker until ctx ends: an embedded store in DataDir, synced at every write unless SyncEvery is set, and one port. Errors: bus.ErrLocked when
// another broker holds DataDir, ErrInsecureListen, ErrTLSFiles, and whatever kept store or port from opening.
func ServeBroker(ctx context.Context, o BrokerOptions) (err error) {
	o.Options = o.withDefaults()
	if o.DataDir == "" {
		return ErrNoDir
	}
	if err := o.check(); err != nil {
		return err
	}
	var certs *certificate
	if o.TLSCert != "" {
		if certs, err = loadCertificate(o.TLSCert, o.TLSKey, o.Clock, o.Log); err != nil {
			return err
		}
	}
	// What a store reads when it opens it keeps: with a million messages, collecting garbage meanwhile is a quarter of the time and finds little.
	percent, limit := debug.SetGCPercent(-1), debug.SetMemoryLimit(-1)
	debug.SetMemoryLimit(min(limit, openMemory))
	collect := sync.OnceFunc(func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	})
	defer collect()
	st, err := o.openStore()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	token, err := st.token(AdminTokenFile)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer l.Close()
	info := st.info
	info.Listen = l.Addr().String()
	info.describe(l.Addr(), o)
	if certs != nil {
		l = tls.NewListener(l, certs.config())
	}
	nc, err := st.server.BrokerConn()
	if err != nil {
		return fmt.Errorf("connect to store: %w", err)
	}
	b, err := broker.Open(ctx, broker.Config{
		NC: nc, Clock: o.Clock, Rand: o.Rand, Log: o.Log, Version: o.Version, PublicURL: info.URL, AdminTokenHash: bus.HashToken(token), Dir: o.DataDir,
		TrustedProxies: o.TrustedProxies, OpenStatus: o.openStatus(), Limits: o.Limits, Unsynced: o.SyncEvery > 0, AllowHook: o.AllowHook && !o.behindProxy(),
		AllowPrivateWatches: o.AllowPrivateWatches,
	})
	if err != nil {
		return fmt.Errorf("open broker: %w", err)
	}
	collect()
	if err := st.announce(info); err != nil {
		return errors.Join(err, closeBroker(b))
	}
	o.Log.Info("broker_started", "listen", info.Listen, "url", info.URL, "data", o.DataDir, "store", info.StoreURL)
	if o.Ready != nil {
		o.Ready(info)
	}
	return broker.Serve(ctx, b, l)
}

func closeBroker(b *broker.Broker) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopAfter)
	defer cancel()
	return b.Close(ctx)
}

// ServeStore opens only the store of a broker that is stopped, with its door, until ctx ends: to restore a backup with the stock nats CLI. Errors: bus.ErrLocked
// while a broker runs on DataDir.
func ServeStore(ctx context.Context, o BrokerOptions) (err error) {
	o.Options = o.withDefaults()
	if o.DataDir == "" {
		return ErrNoDir
	}
	if o.StorePort == nil {
		o.StorePort = new(int)
	}
	st, err := o.openStore()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	if err := st.announce(st.info); err != nil {
		return err
	}
	if o.Ready != nil {
		o.Ready(st.info)
	}
	<-ctx.Done()
	return nil
}

// standalone is the data directory of a broker of its own, locked, and the store in it.
type standalone struct {
	o      BrokerOptions
	lock   *bus.Lock
	server *bus.Server
	info   BrokerInfo
}

func (o BrokerOptions) openStore() (_ *standalone, err error) {
	if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	st := &standalone{o: o, info: BrokerInfo{PID: os.Getpid(), Version: o.Version, StartedAt: o.Clock.Now().UnixMilli()}}
	if st.lock, err = bus.AcquireLock(o.DataDir); err != nil {
		return nil, err
	}
	cfg := bus.StoreConfig{Dir: o.DataDir, Log: o.Log, Limit: max(bus.DefaultStoreLimit, 2*o.Limits.MaxStore), SyncEvery: o.SyncEvery}
	if o.StorePort != nil {
		token, err := st.token(StoreTokenFile)
		if err != nil {
			return nil, errors.Join(err, st.lock.Release())
		}
		cfg.Door, cfg.Port, cfg.Token = true, *o.StorePort, bus.HashToken(token)
	}
	if st.server, err = bus.OpenStore(cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), st.lock.Release())
	}
	st.info.StoreURL = st.server.TCPURL()
	return st, nil
}

// token reads a token of the data directory, made on first use.
func (st *standalone) token(name string) (string, error) {
	d := &Daemon{opt: st.o.Options}
	text, err := d.tokenAt(filepath.Join(st.o.DataDir, name))
	return strings.TrimSpace(text), err
}

func (st *standalone) announce(info BrokerInfo) error { return writeBrokerInfo(st.o.DataDir, info) }

func (st *standalone) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopAfter)
	defer cancel()
	return errors.Join(removeBrokerInfo(st.o.DataDir), st.server.Shutdown(ctx), st.lock.Release())
}
