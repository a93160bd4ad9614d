// Package groupcommit is a SQLite file with one writer that commits what many callers ask for together.
//
// The invariant it keeps: [DB.Write] returns nil if and only if the caller's changes are in the file and fsynced (WAL,
// synchronous FULL); after any error nothing of them is there. [DB.Note] is the same without the fsync. Changes of one function are never half-written, whatever
// the other functions of the same commit do.
//
// Each store of the daemon (outbox, inbox, session) owns one DB and is its only user. One process at a time may have the
// file open; the daemon's lock sees to that.
package groupcommit

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
)

var (
	// ErrCorrupt is returned by Open for a file SQLite cannot read or that fails its quick check. The file is left as it is.
	ErrCorrupt = errors.New("database is corrupt")
	// ErrNewer is returned by Open for a file written by a later version of the schema.
	ErrNewer = errors.New("database was written by a newer version")
	// ErrFull is in the chain of a write's error when the disk (or Options.MaxPages) had no room.
	ErrFull = errors.New("no room left for the database")
	// ErrClosed is returned by Write after Close.
	ErrClosed = errors.New("database is closed")
	// ErrPanic is in the chain of a write's error when its function panicked. Its changes were rolled back.
	ErrPanic = errors.New("write function panicked")
)

// Options tune a DB. The zero value is right for the daemon.
type Options struct {
	Readers  int   // connections of the read pool, default 4
	Queue    int   // writes that may wait before Write blocks, default 1024
	MaxBatch int   // functions in one commit, default 256
	MaxPages int64 // PRAGMA max_page_count (pages of 4096 bytes), 0 is SQLite's own limit
}

// Stats count since Open.
type Stats struct {
	Writes  uint64 // functions that were run
	Commits uint64 // successful commits
}

// DB is an open file. All methods may be called concurrently.
type DB struct {
	conn    *sql.Conn
	writeDB *sql.DB
	readDB  *sql.DB
	opts    Options

	mu     sync.RWMutex // guards closed against sends on queue
	closed bool
	queue  chan *request
	done   chan struct{} // closed when the writer goroutine has ended

	stmtMu sync.Mutex
	stmts  map[string]*sql.Stmt // of the read pool

	writes, commits atomic.Uint64
}

// Open opens or creates the file at path (mode 0600, also of its -wal and -shm), checks it, and brings its schema to
// version len(migrations) in one transaction: migrations[i] is the SQL script that leads from version i to i+1.
// The directory must exist. Errors: ErrCorrupt, ErrNewer, or what the system says.
func Open(path string, migrations []string, opts Options) (*DB, error) {
	if opts.Readers <= 0 {
		opts.Readers = 4
	}
	if opts.Queue <= 0 {
		opts.Queue = 1024
	}
	if opts.MaxBatch <= 0 {
		opts.MaxBatch = 256
	}
	if err := createPrivate(path); err != nil {
		return nil, fmt.Errorf("create database: %w", err)
	}
	if err := check(path); err != nil {
		return nil, err
	}
	db := &DB{opts: opts, queue: make(chan *request, opts.Queue), done: make(chan struct{}), stmts: map[string]*sql.Stmt{}}
	if err := db.connect(path, migrations); err != nil {
		db.disconnect()
		return nil, err
	}
	go db.run()
	return db, nil
}

func (db *DB) connect(path string, migrations []string) (err error) {
	ctx := context.Background()
	if db.writeDB, err = sql.Open("sqlite", dsn(path, writerPragmas(db.opts.MaxPages))); err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	db.writeDB.SetMaxOpenConns(1)
	if db.conn, err = db.writeDB.Conn(ctx); err != nil {
		return fmt.Errorf("open database: %w", classify(err))
	}
	if err := migrate(ctx, db.conn, migrations); err != nil {
		return err
	}
	if db.readDB, err = sql.Open("sqlite", dsn(path, readerPragmas)); err != nil {
		return fmt.Errorf("open database for reading: %w", err)
	}
	db.readDB.SetMaxOpenConns(db.opts.Readers)
	db.readDB.SetMaxIdleConns(db.opts.Readers)
	return nil
}

// Close runs what is queued, then closes the file. It is safe to call it twice.
func (db *DB) Close() error {
	db.mu.Lock()
	if db.closed {
		db.mu.Unlock()
		<-db.done
		return nil
	}
	db.closed = true
	close(db.queue)
	db.mu.Unlock()
	<-db.done
	return db.disconnect()
}

// disconnect closes the readers first: the last connection to leave folds the log back into the file.
func (db *DB) disconnect() error {
	var errs []error
	for _, st := range db.stmts {
		errs = append(errs, st.Close())
	}
	if db.readDB != nil {
		errs = append(errs, db.readDB.Close())
	}
	if db.conn != nil {
		errs = append(errs, db.conn.Close())
	}
	if db.writeDB != nil {
		errs = append(errs, db.writeDB.Close())
	}
	return errors.Join(errs...)
}

// Stats returns the counters.
func (db *DB) Stats() Stats { return Stats{Writes: db.writes.Load(), Commits: db.commits.Load()} }

// Read is the pool for reading; writing through it fails. A read sees every write that has returned.
func (db *DB) Read() *sql.DB { return db.readDB }

// Query runs a reading statement, prepared once and kept: query must come from a bounded set of texts.
func (db *DB) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	st, err := db.prepared(ctx, query)
	if err != nil {
		return nil, err
	}
	return st.QueryContext(ctx, args...)
}

func (db *DB) prepared(ctx context.Context, query string) (*sql.Stmt, error) {
	db.stmtMu.Lock()
	defer db.stmtMu.Unlock()
	if st, ok := db.stmts[query]; ok {
		return st, nil
	}
	st, err := db.readDB.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	db.stmts[query] = st
	return st, nil
}

// createPrivate makes the file before SQLite does, because SQLite gives -wal and -shm the mode of the main file. Files
// of an earlier, looser version are tightened.
func createPrivate(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	for _, p := range []string{path, path + "-wal", path + "-shm"} {
		if err := os.Chmod(p, 0o600); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
