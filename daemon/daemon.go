package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"claudemesh/bus"
	"claudemesh/daemon/httpapi"
	"claudemesh/daemon/inbox"
	"claudemesh/daemon/outbox"
	"claudemesh/daemon/session"
	"claudemesh/mesh"
)

// Files of the daemon directory, beside those that package bus keeps there.
const (
	outboxFile     = "outbox.db"
	inboxFile      = "inbox.db"
	sessionFile    = "sessions.db"
	localTokenFile = "local-token"
	tapTokenFile   = "tap-token"
	brokerFile     = "broker.json"
	tokenDir       = "session-tokens"
)

// Timers, in real time unless the clock is injected.
const (
	reapEvery  = 5 * time.Second
	startAfter = 10 * time.Second // the bus answers itself within this
	stopAfter  = 10 * time.Second // a stop that takes longer gives up waiting for requests in progress
)

// sharedKeys is how many pairs of a session or member and a peer the daemon remembers the shared key of, 64 bytes each.
const sharedKeys = 4096

// Daemon is one running daemon. Start makes it, Stop or a shutdown request ends it.
type Daemon struct {
	opt      Options
	lock     *bus.Lock
	server   *bus.Server
	journal  *bus.Journal
	service  *bus.Service
	requests *nats.Conn // the service's own connection
	outbox   *outbox.Store
	inbox    *inbox.Store
	session  *session.Store
	stores   []func() error // closes of the stores that are open
	broker   *brokerHost
	http     *httpapi.Server
	boxes    *mesh.Boxes

	transfers *transfers
	guard     *guard
	figures   *figures
	ladder    *ladder

	started time.Time
	// The HTTP doors, empty where there is none. They are set before the daemon answers.
	httpSocket, httpURL string

	notices []string

	ctx    context.Context // ends when the daemon stops
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu     sync.RWMutex
	meshes map[string]*meshRun // by slug
	config sync.Mutex          // one change of config.json at a time
	taps   sync.Mutex          // one change of the tap's token at a time

	attaching sync.Mutex // one client that nobody launched at a time

	stopOnce sync.Once
	stopErr  error
	done     chan struct{}
}

// Run starts a daemon and blocks until ctx ends or a client asks for shutdown. It returns nil after a clean stop. Errors: bus.ErrLocked when another
// daemon holds the directory, outbox.ErrCorrupt (the file is kept), and whatever kept a store or a door from opening.
func Run(ctx context.Context, o Options) error {
	d, err := Start(ctx, o)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-d.ctx.Done():
	}
	return d.Stop()
}

// Start takes the lock, opens the stores, the bus and its doors, and attaches every joined mesh. It returns when the bus answers; links to brokers open
// later. ctx bounds the start only.
func Start(ctx context.Context, o Options) (_ *Daemon, err error) {
	o = o.withDefaults()
	if o.Dir == "" || o.ConfigDir == "" {
		return nil, ErrNoDir
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make daemon directory: %w", err)
	}
	if err := os.Chmod(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("close daemon directory: %w", err)
	}
	d := &Daemon{opt: o, started: o.Clock.Now(), boxes: mesh.NewBoxes(sharedKeys), guard: newGuard(o.PairRate, o.PairReplies), figures: newFigures(), meshes: map[string]*meshRun{}, done: make(chan struct{})}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	if d.lock, err = bus.AcquireLock(o.Dir); err != nil {
		d.cancel()
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = d.Stop()
		}
	}()
	if err := d.checkHost(); err != nil {
		return nil, err
	}
	if err := d.openStores(ctx); err != nil {
		return nil, err
	}
	if err := d.openBus(ctx); err != nil {
		return nil, err
	}
	d.ladder = newLadder(d)
	d.tasks.Go(func() { d.ladder.run(d.ctx) })
	if err := d.openBroker(ctx); err != nil {
		return nil, err
	}
	config, err := mesh.LoadConfig(o.ConfigDir)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	if err := d.finishMove(ctx, config); err != nil {
		return nil, err
	}
	for _, j := range config.Meshes {
		if err := d.attach(j); err != nil {
			d.notice(fmt.Sprintf("mesh %s is not attached: %v", j.Slug, err))
		}
	}
	if err := d.resumeSessions(ctx); err != nil {
		return nil, err
	}
	if err := d.openHTTP(); err != nil {
		return nil, err
	}
	if err := d.serve(); err != nil {
		return nil, err
	}
	// The server must know the subscriptions before anybody is told that the bus answers.
	if err := d.requests.FlushTimeout(startAfter); err != nil {
		return nil, fmt.Errorf("open bus service: %w", err)
	}
	if d.http != nil {
		d.http.Start()
	}
	info := bus.Info{
		PID: os.Getpid(), Version: o.Version, Socket: d.server.Socket(), TCPURL: d.server.TCPURL(), HTTPSocket: d.httpSocket, HTTPURL: d.httpURL,
		StartedAt: d.started.UnixMilli(), Args: o.Args,
	}
	if err := bus.WriteInfo(o.Dir, info); err != nil {
		return nil, err
	}
	d.tasks.Go(d.reapLoop)
	d.tasks.Go(d.trimLoop)
	o.Log.Info("daemon_started", "pid", info.PID, "version", o.Version, "socket", info.Socket, "tcp", info.TCPURL, "http", info.HTTPURL, "meshes", d.slugs())
	return d, nil
}

func (d *Daemon) openStores(ctx context.Context) (err error) {
	dir := d.opt.Dir
	if d.outbox, err = outbox.Open(filepath.Join(dir, outboxFile), d.opt.Clock); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(dir, outboxFile), err)
	}
	d.stores = append(d.stores, d.outbox.Close)
	var quarantined string
	if d.inbox, quarantined, err = inbox.OpenOrQuarantine(filepath.Join(dir, inboxFile), d.opt.Clock); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(dir, inboxFile), err)
	}
	d.stores = append(d.stores, d.inbox.Close)
	if quarantined != "" {
		d.notice("the inbox file was damaged; it is kept as " + quarantined + " and a new one was started")
	}
	if d.session, err = session.Open(filepath.Join(dir, sessionFile), d.opt.Clock, d.opt.Rand); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(dir, sessionFile), err)
	}
	d.stores = append(d.stores, d.session.Close)
	if d.transfers, err = openTransfers(d.ctx, filepath.Join(dir, transferDir), d.opt.Clock, d.opt.Rand); err != nil {
		return err
	}
	d.stores = append(d.stores, d.transfers.closeAll)
	// Rows that were on their way when the last daemon ended: their fate is unknown, and a repeat under the same id is harmless.
	n, err := d.outbox.Recover(ctx)
	if err != nil {
		return fmt.Errorf("recover outbox: %w", err)
	}
	if n > 0 {
		d.opt.Log.Info("outbox_recovered", "rows", n)
	}
	return nil
}

func (d *Daemon) openBus(ctx context.Context) (err error) {
	grants, err := d.resumeGrants(ctx)
	if err != nil {
		return err
	}
	// SyncAlways is for the streams of this daemon's own broker; those of the bus opt out of it.
	d.server, err = bus.StartServer(bus.ServerConfig{Dir: d.opt.Dir, TCP: !d.opt.NoTCP, Log: d.opt.Log, SyncAlways: true, Grants: grants})
	if err != nil {
		return fmt.Errorf("start bus: %w", err)
	}
	nc, err := d.server.BusConn()
	if err != nil {
		return fmt.Errorf("connect to bus: %w", err)
	}
	if err := bus.EnsureStreams(ctx, nc); err != nil {
		return fmt.Errorf("make bus streams: %w", err)
	}
	d.journal = bus.NewJournal(nc, d.opt.Log)
	if d.requests, err = d.server.ServiceConn(); err != nil {
		return fmt.Errorf("connect service to bus: %w", err)
	}
	if d.service, err = bus.NewService(d.requests, d.opt.Version, d.opt.Log); err != nil {
		return fmt.Errorf("start bus service: %w", err)
	}
	return nil
}

// Done is closed when the daemon has been asked to stop, by a client or by Stop.
func (d *Daemon) Done() <-chan struct{} { return d.ctx.Done() }

// Dir is the daemon directory.
func (d *Daemon) Dir() string { return d.opt.Dir }

// Stop ends the daemon: no new requests, links closed, rows in flight left for the next start, stores closed, lock released. It may be called more than once.
func (d *Daemon) Stop() error {
	d.stopOnce.Do(func() {
		d.cancel()
		d.stopErr = d.stop()
		close(d.done)
	})
	<-d.done
	return d.stopErr
}

func (d *Daemon) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopAfter)
	defer cancel()
	var errs []error
	errs = append(errs, d.closeHTTP(ctx))
	if d.service != nil {
		errs = append(errs, d.service.Shutdown(ctx))
	}
	d.mu.Lock()
	runs := make([]*meshRun, 0, len(d.meshes))
	for _, m := range d.meshes {
		runs = append(runs, m)
	}
	d.mu.Unlock()
	for _, m := range runs {
		m.cancel()
	}
	for _, m := range runs {
		m.tasks.Wait()
	}
	d.tasks.Wait()
	if d.broker != nil {
		errs = append(errs, d.broker.stop(ctx))
	}
	if d.journal != nil {
		errs = append(errs, d.journal.Close(ctx))
	}
	if d.server != nil {
		errs = append(errs, d.server.Shutdown(ctx))
	}
	for _, closeStore := range d.stores {
		errs = append(errs, closeStore())
	}
	errs = append(errs, bus.RemoveInfo(d.opt.Dir))
	errs = append(errs, d.lock.Release())
	d.opt.Log.Info("daemon_shutdown", "pid", os.Getpid())
	return errors.Join(errs...)
}

// notice keeps a sentence that the user should read in daemon status, and logs it.
func (d *Daemon) notice(s string) {
	d.mu.Lock()
	d.notices = append(d.notices, s)
	d.mu.Unlock()
	d.opt.Log.Warn("notice", "text", s)
}
