// Package logfile keeps the daemon's log within bounds and reads it back.
//
// A log is a file, name, and what came before it, name.1 (newer) to name.N (older), all of mode 0600. What is written is never split over two files. The library
// that everybody knows for this does not say when it has turned the page, which the daemon must know: its stderr, where a crash is written, has to follow.
package logfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
)

// Bounds of the daemon's log: at most (Keep+1) * MaxSize on the disk.
const (
	MaxSize = 8 << 20 // bytes of one file
	Keep    = 3       // older files
)

// Writer appends to a log. It is safe for concurrent use.
type Writer struct {
	path string
	max  int64
	keep int
	// opened is told each new file before anything is written to it.
	opened func(*os.File) error

	mu   sync.Mutex
	f    *os.File
	size int64
}

// Open opens the log, turning the page at once if it is full. opened, which may be nil, is called with every file that is begun after that; what it returns
// does not keep the log from going on.
func Open(path string, max int64, keep int, opened func(*os.File) error) (*Writer, error) {
	w := &Writer{path: path, max: max, keep: keep, opened: opened}
	if err := w.open(); err != nil {
		return nil, err
	}
	if w.size >= w.max {
		_ = w.turn() // it goes on in the full one
	}
	return w, nil
}

func (w *Writer) open() error {
	f, err := os.OpenFile(w.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	st, err := f.Stat()
	if err == nil {
		err = f.Chmod(0o600) // a service manager may have made it for everybody
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("open log: %w", err)
	}
	w.f, w.size = f, st.Size()
	return nil
}

// Write appends b, after turning the page if it would not fit. A page that cannot be turned is written on: a log that is too long is better than none.
func (w *Writer) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f == nil {
		return 0, fs.ErrClosed
	}
	if w.size > 0 && w.size+int64(len(b)) > w.max {
		_ = w.turn()
	}
	n, err := w.f.Write(b)
	w.size += int64(n)
	return n, err
}

// turn makes name.1 of name, and so on, and begins a new file. The old one stays open until the new one is there.
func (w *Writer) turn() error {
	for i := w.keep; i >= 1; i-- {
		from := w.path
		if i > 1 {
			from = old(w.path, i-1)
		}
		if err := os.Rename(from, old(w.path, i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("turn log: %w", err) // before the newest: it goes on under its name
		}
	}
	full := w.f
	if err := w.open(); err != nil {
		return err
	}
	var told error
	if w.opened != nil {
		told = w.opened(w.f)
	}
	return errors.Join(told, full.Close())
}

// Close ends the log.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f == nil {
		return nil
	}
	f := w.f
	w.f = nil
	return f.Close()
}

// old is the name of the i-th older file.
func old(path string, i int) string { return fmt.Sprintf("%s.%d", path, i) }
