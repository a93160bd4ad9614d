// Package fts is a full-text view of what the broker keeps elsewhere: documents made of a mesh, a kind and an id, found by their words.
//
// The invariant: the view holds nothing that cannot be made again. Losing its file, or finding it damaged or written by another version, costs a new reading
// of what it was made from and nothing else; therefore it is not synced at every write. It keeps no text, only an index of words, and a search never looks
// outside one mesh and one kind.
//
// Whoever feeds it reads its source in order and notes with SetPosition how far it came. Put and Delete may be repeated, so the position may lag behind the
// documents and must never be ahead of them. Only the broker may import this package.
package fts

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

var (
	// ErrDamaged is in the chain of an error when the file cannot be read as a database any more. Reset makes a new one; all positions are 0 then.
	ErrDamaged = errors.New("search view is damaged")
	// ErrClosed is returned by everything after Close.
	ErrClosed = errors.New("search view is closed")
)

// View is an open view. All methods may be called concurrently.
type View struct {
	path string
	log  *slog.Logger

	mu     sync.RWMutex // held for writing while db is replaced
	db     *sql.DB      // nil when closed, and after a Reset that failed
	closed bool

	writing sync.Mutex // one write at a time: SQLite has one writer, and waiting here is fairer than its busy loop
}

// Open opens or creates the view in the file at path (mode 0600, in a directory that exists); an empty path keeps it in memory. A damaged file, or one of
// another version, is replaced by an empty view and that is logged. Errors: what the system says about the path.
func Open(path string, log *slog.Logger) (*View, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	v := &View{path: path, log: log}
	db, err := connect(path)
	if errors.Is(err, ErrDamaged) {
		log.Warn("search view is made anew", "reason", err)
		if err = remove(path); err == nil {
			db, err = connect(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open search view: %w", err)
	}
	v.db = db
	return v, nil
}

// Reset forgets every document and position, whatever state the file is in.
func (v *View) Reset() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return ErrClosed
	}
	if v.db != nil {
		// The error of closing a damaged file says nothing that matters: it is removed.
		_ = v.db.Close()
		v.db = nil
	}
	if err := remove(v.path); err != nil {
		return fmt.Errorf("reset search view: %w", err)
	}
	db, err := connect(v.path)
	if err != nil {
		return fmt.Errorf("reset search view: %w", err)
	}
	v.db = db
	return nil
}

// Close closes the file. It may be called again.
func (v *View) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed = true
	if v.db == nil {
		return nil
	}
	err := v.db.Close()
	v.db = nil
	if err != nil {
		return fmt.Errorf("close search view: %w", err)
	}
	return nil
}

// ready reports why the view cannot be used. Called with mu held.
func (v *View) ready() error {
	switch {
	case v.closed:
		return ErrClosed
	case v.db == nil:
		return ErrDamaged
	}
	return nil
}

// connect opens the file and makes its schema when it is new.
func connect(path string) (*sql.DB, error) {
	dsn, conns := "file::memory:", 1 // each connection to memory would be a database of its own
	if path != "" {
		if err := createPrivate(path); err != nil {
			return nil, err
		}
		dsn, conns = "file:"+escape(path), 4
	}
	db, err := sql.Open("sqlite", dsn+"?"+pragmas)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	db.SetConnMaxLifetime(0)
	if err := migrate(db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func migrate(db *sql.DB) error {
	var have int
	if err := db.QueryRow("PRAGMA user_version").Scan(&have); err != nil {
		return classify(err)
	}
	switch have {
	case version:
		var n int
		err := db.QueryRow(probe).Scan(&n)
		if code(err) == sqlite3.SQLITE_ERROR { // a table is missing
			return errors.Join(ErrDamaged, err)
		}
		return classify(err)
	case 0:
		_, err := db.Exec(schema)
		return classify(err)
	}
	return fmt.Errorf("%w: it has version %d, this program makes %d", ErrDamaged, have, version)
}

// escape makes the path of a file: URI: '?', '#' and '%' would end it or be decoded; a Windows drive letter needs a leading slash.
func escape(path string) string {
	p := filepath.ToSlash(path)
	if filepath.VolumeName(path) != "" && !strings.HasPrefix(p, "/") {
		p = "/" + p
	}
	return (&url.URL{Path: p}).EscapedPath()
}

// createPrivate makes the file before SQLite does, which gives its -wal and -shm the mode of the main file.
func createPrivate(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Close())
}

func remove(path string) (err error) {
	if path == "" {
		return nil
	}
	for _, p := range []string{path, path + "-wal", path + "-shm"} {
		if e := os.Remove(p); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// classify puts ErrDamaged into the chain of an engine error that means it.
func classify(err error) error {
	switch code(err) {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return errors.Join(ErrDamaged, err)
	}
	return err
}

// code is the SQLite result code without its extended part, 0 for other errors.
func code(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}

// write runs fn in one transaction.
func (v *View) write(ctx context.Context, what string, fn func(*sql.Tx) error) error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if err := v.ready(); err != nil {
		return err
	}
	v.writing.Lock()
	defer v.writing.Unlock()
	tx, err := v.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", what, classify(err))
	}
	if err := fn(tx); err != nil {
		// What a failed write leaves is undone by the rollback; its own failure means the connection is gone, and the changes with it.
		_ = tx.Rollback()
		return fmt.Errorf("%s: %w", what, classify(err))
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("%s: %w", what, classify(err))
	}
	return nil
}
