package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/jonboulle/clockwork"
)

// Broker is one running broker. All methods may be called at any time from any goroutine.
type Broker struct {
	cfg      Config
	lim      Limits
	clock    clockwork.Clock
	log      *slog.Logger
	store    *store
	idSecret []byte
	started  time.Time
	upgrader websocket.Upgrader

	files     *files
	fan       *fanout
	settler   *settler
	live      *live
	committer *committer // nil: the store does not sync every write
	view      *searchView
	memories  *index
	shelves   shelves

	figures *figures

	used  *lru.Cache[string, struct{}] // signatures of HTTP requests
	hooks *hookLimiter

	timers   *timers
	watches  *watches
	webhooks *webhooks

	mu       sync.RWMutex // guards everything below, and the presence fields of every conn
	closed   bool
	meshes   map[string]*meshState
	gone     map[string]goneRecord // deleted meshes by id
	codes    map[string]codeOf     // invites by their code
	sockets  map[*conn]struct{}
	apiKeys  map[string]*apiKey // by the hash of their secret
	streams  int                // open streams of topics
	greeting int                // sockets that have not said hello
	silent   []*conn            // those of them that are upgraded, the oldest first
	calls    map[string]*serviceCall

	saving    sync.Mutex // one save of presence at a time, see saveMember
	joining   sync.Mutex // one change of meshes, members or invites at a time: two joins of the same key must not use up two uses
	topicWork sync.Mutex // one change of topics at a time
	history   *history
	editing   sync.Mutex // one change of a mesh's or member's record at a time
	conns     sync.WaitGroup
	workers   sync.WaitGroup
	run       context.Context // ends when the workers are to
	stop      context.CancelFunc
	lookups   *throttle // of invite codes
	signIns   *throttle // of what leads to a session token
	accounts  *accounts
	pageKey   []byte // signs the forms of the approval page; each process has its own

	closing chan struct{} // closed when Close begins

	dropped atomic.Int64 // presence events lost to slow clients
}

// Open opens the broker's streams, creating them on first use, loads meshes and members, and resumes the fan-out where the last process left it.
func Open(ctx context.Context, cfg Config) (*Broker, error) {
	if cfg.NC == nil {
		return nil, errors.New("open broker: no store connection")
	}
	if cfg.Clock == nil {
		cfg.Clock = clockwork.NewRealClock()
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	b := &Broker{
		cfg: cfg, lim: cfg.Limits.withDefaults(), clock: cfg.Clock, log: cfg.Log, started: cfg.Clock.Now(),
		figures: newFigures(), meshes: map[string]*meshState{}, gone: map[string]goneRecord{}, codes: map[string]codeOf{}, sockets: map[*conn]struct{}{},
		apiKeys: map[string]*apiKey{}, closing: make(chan struct{}), calls: map[string]*serviceCall{},
	}
	b.upgrader = websocket.Upgrader{ReadBufferSize: readBuffer, WriteBufferSize: writeBuffer, WriteBufferPool: &sync.Pool{}, HandshakeTimeout: b.lim.WriteDeadline}
	b.hooks = newHookLimiter()
	var err error
	if b.used, err = lru.New[string, struct{}](usedSignatures); err != nil {
		return nil, fmt.Errorf("open broker: %w", err)
	}
	if b.store, err = openStore(ctx, cfg.NC, b.lim); err != nil {
		return nil, fmt.Errorf("open broker: %w", err)
	}
	b.history = newHistory(b.store)
	var at position
	if at, err = b.load(ctx); err != nil {
		return nil, fmt.Errorf("open broker: %w", err)
	}
	if err := b.loadGrants(ctx); err != nil {
		return nil, fmt.Errorf("open broker: %w", err)
	}
	if err := b.loadAPIKeys(ctx); err != nil {
		return nil, fmt.Errorf("open broker: %w", err)
	}
	b.pageKey = make([]byte, 32)
	if _, err := io.ReadFull(cfg.Rand, b.pageKey); err != nil {
		return nil, fmt.Errorf("open broker: read randomness: %w", err)
	}
	if err := b.loadAccounts(ctx); err != nil {
		return nil, fmt.Errorf("open broker: %w", err)
	}
	was := at
	var removed int
	if at, removed, err = b.store.repair(ctx, at); err != nil {
		return nil, fmt.Errorf("open broker: %w", err)
	}
	if removed > 0 || at != was {
		b.log.Warn("the streams are of different moments, as after a restore: references without message removed", "removed", removed, "position", at, "was", was)
	}
	if b.idSecret == nil {
		b.idSecret = make([]byte, 32)
		if _, err := io.ReadFull(cfg.Rand, b.idSecret); err != nil {
			return nil, fmt.Errorf("open broker: read randomness: %w", err)
		}
		if err := b.store.create(ctx, idSecretKey, b.idSecret); err != nil {
			return nil, fmt.Errorf("open broker: %w", err)
		}
	}
	if b.files, err = openFiles(ctx, b); err != nil {
		return nil, fmt.Errorf("open broker: %w", err)
	}
	var errs [3]error
	b.timers, errs[0] = newTimers(ctx, b)
	b.watches, errs[1] = newWatches(ctx, b)
	b.webhooks, errs[2] = newWebhooks(ctx, b)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("open broker: %w", err)
	}
	b.shelves.of = map[string]*shelf{}
	if b.view, err = openSearch(cfg.Dir, b.log); err != nil {
		return nil, fmt.Errorf("open broker: %w", err)
	}
	if b.memories, err = newIndex(ctx, b.view, b.log, b.store.dataS, dataPrefix+recordKey(familyMemory, "*", "*"), memoryDocs); err != nil {
		return nil, errors.Join(fmt.Errorf("open broker: %w", err), b.view.Close())
	}
	if b.live, err = openLive(cfg.NC); err != nil {
		return nil, errors.Join(fmt.Errorf("open broker: %w", err), b.view.Close())
	}
	b.run, b.stop = context.WithCancel(context.Background())
	b.lookups = newThrottle(b.clock, codeLookups, codeLookupEvery)
	b.signIns = newThrottle(b.clock, signInTries, codeLookupEvery)
	b.fan = newFanout(b.store, b.clock, b.log, at, !cfg.Unsynced)
	b.settler = newSettler(b.store, b.log)
	b.workers.Go(func() { b.fan.run(b.run) })
	b.workers.Go(b.settler.run)
	b.workers.Go(func() { b.files.sweepLoop(b.run) })
	b.workers.Go(func() { b.sweepStatus(b.run) })
	b.workers.Go(func() { b.renewLeases(b.run) })
	if !cfg.Unsynced {
		b.committer = newCommitter(b.store)
		go b.committer.run() // Close waits for it, behind everybody who may still use it
	}
	b.workers.Go(b.live.watch)
	b.workers.Go(func() { b.memories.catchUp(b.run) })
	b.workers.Go(func() { b.timers.run(b.run) })
	b.workers.Go(func() { b.watches.run(b.run) })
	for id, stone := range b.gone {
		if !stone.Purged {
			b.workers.Go(func() { b.purge(b.run, id, nil) })
		}
	}
	return b, nil
}

// Close tells every client that the broker goes (1001 "shutting down"), waits for their connections and the workers, and saves where the fan-out is.
// Nothing accepted is lost by it. It returns ctx's error when that ends first; the connections are cut off then.
func (b *Broker) Close(ctx context.Context) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	close(b.closing)
	open := make([]*conn, 0, len(b.sockets))
	for c := range b.sockets {
		open = append(open, c)
	}
	b.mu.Unlock()
	closeAll(open, farewell{websocket.CloseGoingAway, reasonShutdown})
	b.files.close()
	done := make(chan struct{})
	go func() { // ends with the connections, which cut() ends at the latest
		b.conns.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("close broker: %w", ctx.Err())
		for _, c := range open {
			c.cut()
		}
		<-done
	}
	b.live.close()
	b.settler.close()
	b.stop()
	b.workers.Wait()
	if b.committer != nil {
		b.committer.close()
	}
	if saveErr := b.fan.save(context.WithoutCancel(ctx)); saveErr != nil {
		err = errors.Join(err, fmt.Errorf("close broker: %w", saveErr))
	}
	if viewErr := b.view.Close(); viewErr != nil {
		err = errors.Join(err, fmt.Errorf("close broker: %w", viewErr))
	}
	return err
}

// now is the broker's time; every timestamp and every judgement about age uses it.
func (b *Broker) now() time.Time { return b.clock.Now() }

// deadline bounds one exchange with the store on behalf of a connection. It is not the connection's context: what a client has begun is finished even if
// the client goes away.
func (b *Broker) deadline() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), storeDeadline)
}
