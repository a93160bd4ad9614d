package logfile

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/jonboulle/clockwork"
)

// MaxLine is what a reader takes of one line, in bytes; the rest of a longer one is passed over.
const MaxLine = 1 << 20

// maxTail bounds what is searched for the last lines, in bytes: more than a full file of ours.
const maxTail = 2 * MaxSize

// block is how much is read at a time from the end of a file.
const block = 64 << 10

// Last returns the last n lines of a log, oldest first, over as many of its files as hold them.
func Last(path string, n, keep int) ([]string, error) {
	lines, _, err := last(path, n, keep)
	return lines, err
}

// last also returns the newest file and how far it was read, for Follow. The file is nil when there is none.
func last(path string, n, keep int) (lines []string, newest *os.File, err error) {
	for i := 0; i <= keep; i++ {
		name := path
		if i > 0 {
			if len(lines) >= n {
				break
			}
			name = old(path, i)
		}
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // between two steps of a turn
		}
		if err != nil {
			return nil, newest, fmt.Errorf("read log: %w", err)
		}
		more, err := lastOf(f, n-len(lines))
		if i == 0 {
			newest = f
		} else {
			f.Close()
		}
		if err != nil {
			return nil, newest, fmt.Errorf("read log: %w", err)
		}
		lines = append(more, lines...)
	}
	return lines, newest, nil
}

// lastOf reads the last n complete lines of a file and leaves its position behind them.
func lastOf(f *os.File, n int) ([]string, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	if n <= 0 {
		return nil, nil
	}
	var tail []byte
	at := end
	for at > 0 && bytes.Count(tail, []byte("\n")) <= n && len(tail) < maxTail {
		size := min(at, block)
		part := make([]byte, size, int(size)+len(tail))
		if _, err := f.ReadAt(part, at-size); err != nil {
			return nil, err
		}
		tail, at = append(part, tail...), at-size
	}
	// What is being written now belongs to who follows.
	cut := bytes.LastIndexByte(tail, '\n') + 1
	if _, err := f.Seek(end-int64(len(tail)-cut), io.SeekStart); err != nil {
		return nil, err
	}
	if cut == 0 {
		return nil, nil
	}
	lines := bytes.Split(tail[:cut-1], []byte("\n"))
	out := make([]string, 0, n)
	for _, l := range lines[max(0, len(lines)-n):] {
		out = append(out, string(l[:min(len(l), MaxLine)]))
	}
	return out, nil
}

// Follow calls show with the last n lines and then with each line that is written, over turned pages and restarts, until ctx ends (nil) or show fails. It looks
// every interval of the clock: a log is read by people, and needs no watch of the file system.
func Follow(ctx context.Context, path string, n, keep int, clock clockwork.Clock, interval time.Duration, show func(line string) error) error {
	lines, f, err := last(path, n, keep)
	if err != nil {
		return err
	}
	for _, l := range lines {
		if err := show(l); err != nil {
			return err
		}
	}
	r := &follower{path: path, keep: keep, f: f, show: show}
	defer r.close()
	for {
		if err := r.look(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-clock.After(interval):
		}
	}
}

// follower reads a file as it grows, and goes over to its successors.
type follower struct {
	path string
	keep int
	f    *os.File
	rest []byte // of a line whose end is not written yet
	show func(string) error
}

// look shows what is new. A file that was turned is read to its end first, then those that came after it, in order.
func (r *follower) look() error {
	for {
		if err := r.drain(); err != nil {
			return err
		}
		next, err := r.successor()
		if err != nil || next == nil {
			return err
		}
		// What was written between the first look and the turn is in the old file: it does not grow any more.
		if err := r.drain(); err != nil {
			next.Close()
			return err
		}
		r.close()
		r.f = next
	}
}

// successor opens the file that follows ours, nil if ours is the newest or none is there.
func (r *follower) successor() (*os.File, error) {
	var mine os.FileInfo
	if r.f != nil {
		var err error
		if mine, err = r.f.Stat(); err != nil {
			return nil, fmt.Errorf("follow log: %w", err)
		}
	}
	// From the newest to the oldest; the one before ours in this order is the next. If ours is gone, it is the oldest there is.
	var next string
	for i := range r.keep + 1 {
		name := r.path
		if i > 0 {
			name = old(r.path, i)
		}
		st, err := os.Stat(name)
		if err != nil {
			continue
		}
		if mine != nil && os.SameFile(st, mine) {
			break
		}
		next = name
		if mine == nil {
			break // nothing was there before: begin with the newest
		}
	}
	if next == "" {
		return nil, nil
	}
	f, err := os.Open(next)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // turned again at this moment: the next look finds it
	}
	if err != nil {
		return nil, fmt.Errorf("follow log: %w", err)
	}
	return f, nil
}

// drain shows the complete lines that are left in the file.
func (r *follower) drain() error {
	if r.f == nil {
		return nil
	}
	in := bufio.NewReaderSize(r.f, block)
	for {
		part, err := in.ReadSlice('\n')
		if room := MaxLine - len(r.rest); room > 0 {
			r.rest = append(r.rest, part[:min(len(part), room)]...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("follow log: %w", err)
		}
		line := string(bytes.TrimSuffix(r.rest, []byte("\n")))
		r.rest = slices.Clip(r.rest[:0])
		if err := r.show(line); err != nil {
			return err
		}
	}
}

func (r *follower) close() {
	if r.f != nil {
		r.f.Close()
		r.f = nil
	}
}
