package groupcommit

import (
	"context"
	"database/sql"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
)

// request is one queued write. state decides the race between the writer picking it up and its caller giving up.
type request struct {
	fn    func(*Tx) error
	soft  bool // see Note
	state atomic.Int32
	err   error         // the function's own result
	done  chan struct{} // closed when final is set
	final error
}

const (
	queued int32 = iota
	picked
	withdrawn
)

// Write runs fn in a transaction and returns after the commit is on disk. Functions of concurrent callers share a
// commit; each still stands alone: an error (or panic) undoes only its own changes and is returned as it is. When the
// commit itself fails, every function of it fails and nothing of them is written.
//
// fn sees the changes of functions before it and must not call Write. If ctx ends before fn is picked up it is never run
// and ctx's error is returned; afterwards Write waits for the true result. Write blocks while the queue is full.
func (db *DB) Write(ctx context.Context, fn func(*Tx) error) error { return db.write(ctx, fn, false) }

// Note is Write for changes that may be lost with the machine's power, but not with the process: it returns after the commit, without waiting for the
// disk. The next Write of anybody makes it as durable as itself, so what is lost are the last notes, never one in the middle. It is for what can be found
// out again, such as how far a message came.
func (db *DB) Note(ctx context.Context, fn func(*Tx) error) error { return db.write(ctx, fn, true) }

func (db *DB) write(ctx context.Context, fn func(*Tx) error, soft bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := &request{fn: fn, soft: soft, done: make(chan struct{})}
	if err := db.enqueue(ctx, r); err != nil {
		return err
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		if r.state.CompareAndSwap(queued, withdrawn) {
			return ctx.Err()
		}
		<-r.done
	}
	return r.final
}

func (db *DB) enqueue(ctx context.Context, r *request) error {
	db.mu.RLock()
	defer db.mu.RUnlock()
	if db.closed {
		return ErrClosed
	}
	select {
	case db.queue <- r:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run is the writer goroutine; Close ends it by closing the queue.
func (db *DB) run() {
	defer close(db.done)
	w := &writer{db: db, tx: Tx{conn: db.conn, stmts: map[string]*sql.Stmt{}}}
	for r := range db.queue {
		for r != nil {
			r = w.batch(r)
		}
	}
	for _, st := range w.tx.stmts {
		_ = st.Close() // the connection is closed next
	}
}

type writer struct {
	db   *DB
	tx   Tx
	open bool       // a transaction is open
	soft bool       // commits do not wait for the disk now
	took []*request // run in the open transaction, not answered yet
	last int        // size of the previous batch
	due  []*request // picked up for this batch, not run yet
}

// batch takes first and everything that is queued into one commit, also what is queued while it runs. Whether the commit waits for the disk cannot be
// changed inside a transaction: a batch that does not wait ends before a function that must, which batch returns to begin the next one with.
func (w *writer) batch(first *request) (next *request) {
	w.gather(first)
	if len(w.due) == 0 {
		return nil
	}
	if err := w.level(); err != nil {
		w.took = append(w.took, w.due...)
		w.abandon(err)
		return nil
	}
	yielded := false
	for i := 0; ; i++ {
		if i == len(w.due) {
			var ok bool
			if next, ok = w.next(); !ok && !yielded && len(w.due) < w.last {
				// The callers of the previous commit were woken a moment ago and are about to come back. Letting them run once makes one
				// full commit out of two half-empty ones; a single caller never gets here.
				yielded = true
				runtime.Gosched()
				next, ok = w.next()
			}
			if !ok || len(w.due) >= w.db.opts.MaxBatch || w.soft && !next.soft {
				w.commit()
				return next
			}
			if !next.state.CompareAndSwap(queued, picked) {
				i--
				continue
			}
			w.due = append(w.due, next)
		}
		w.db.writes.Add(1)
		if err := w.step(w.due[i]); err != nil {
			w.took = append(w.took, w.due[i+1:]...)
			w.abandon(err)
			return nil
		}
	}
}

// gather picks up first and what is queued behind it now.
func (w *writer) gather(first *request) {
	clear(w.due)
	w.due = w.due[:0]
	for r, ok := first, true; ok; r, ok = w.next() {
		if r.state.CompareAndSwap(queued, picked) {
			w.due = append(w.due, r)
		}
		if len(w.due) >= w.db.opts.MaxBatch {
			return
		}
	}
}

// level makes the coming commit wait for the disk, unless nothing in it has to. A commit that waits takes all earlier ones with it: they are in the same log.
func (w *writer) level() error {
	soft := !slices.ContainsFunc(w.due, func(r *request) bool { return !r.soft })
	if soft == w.soft {
		return nil
	}
	pragma := "PRAGMA synchronous=FULL"
	if soft {
		pragma = "PRAGMA synchronous=NORMAL"
	}
	if err := w.tx.control(pragma); err != nil {
		return fmt.Errorf("%s: %w", pragma, classify(err))
	}
	w.soft = soft
	return nil
}

func (w *writer) next() (*request, bool) {
	select {
	case r, ok := <-w.db.queue:
		return r, ok
	default:
		return nil, false
	}
}

// step runs one function. The first one of a transaction needs no savepoint: if it fails, the transaction holds nothing
// else. A returned error means the transaction is lost.
func (w *writer) step(r *request) error {
	if !w.open {
		w.tx.lost = nil
		if err := w.tx.control("BEGIN IMMEDIATE"); err != nil {
			w.took = append(w.took, r)
			return fmt.Errorf("begin: %w", classify(err))
		}
		w.open = true
	}
	nested := len(w.took) > 0
	if nested {
		if err := w.tx.control("SAVEPOINT f"); err != nil {
			w.took = append(w.took, r)
			return fmt.Errorf("savepoint: %w", classify(err))
		}
	}
	r.err = w.call(r.fn)
	w.took = append(w.took, r)
	switch {
	case w.tx.lost != nil:
		return w.tx.lost
	case r.err == nil && nested:
		if err := w.tx.control("RELEASE f"); err != nil {
			return fmt.Errorf("release: %w", classify(err))
		}
	case r.err != nil && nested:
		if err := w.tx.control("ROLLBACK TO f"); err != nil {
			return fmt.Errorf("roll back: %w", classify(err))
		}
		if err := w.tx.control("RELEASE f"); err != nil {
			return fmt.Errorf("release: %w", classify(err))
		}
	case r.err != nil:
		if err := w.tx.control("ROLLBACK"); err != nil {
			return fmt.Errorf("roll back: %w", classify(err))
		}
		w.open = false
		w.answer(nil)
	}
	return nil
}

// call keeps a panic of one caller's function from ending the process.
func (w *writer) call(fn func(*Tx) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrPanic, p)
		}
	}()
	return fn(&w.tx)
}

// commit ends the transaction. Nobody is answered before it, not even with an error of their own: such an error may rest
// on the uncommitted changes of another function.
func (w *writer) commit() {
	w.last = len(w.took)
	if !w.open {
		return
	}
	if err := w.tx.control("COMMIT"); err != nil {
		w.abandon(fmt.Errorf("commit: %w", classify(err)))
		return
	}
	w.open = false
	w.db.commits.Add(1)
	w.answer(nil)
}

// abandon rolls everything back and fails every function of the batch.
func (w *writer) abandon(cause error) {
	// Fails when the engine has already rolled back, which is just as good. It is tried after a failed BEGIN too, in case
	// an earlier rollback did not go through.
	_ = w.tx.control("ROLLBACK")
	w.open = false
	w.answer(cause)
}

func (w *writer) answer(cause error) {
	for _, r := range w.took {
		r.final = r.err
		if cause != nil {
			r.final = cause
		}
		close(r.done)
	}
	clear(w.took)
	w.took = w.took[:0]
}
