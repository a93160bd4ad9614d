package daemon

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jonboulle/clockwork"

	"claudemesh/bus"
)

// Transfers are files on their way between a client and this daemon, in temporary files of mode 0600 below the daemon's directory. Their number, their sizes
// and their lives are bounded; what an earlier daemon left is removed at the start.

const (
	transferDir       = "transfers"
	maxTransfers      = 8
	maxTransfersActor = 4
	transferIdle      = 10 * time.Minute // a transfer nobody has touched for so long is forgotten
	maxHeavy          = 2                // files being encrypted, decrypted or moved at one time: each is in memory
)

// transfer is one of them. What it is for is set before it can be found.
type transfer struct {
	id, actor string
	mesh      *meshRun
	share     *sharing  // a file that goes out
	fetch     *fetching // a file that comes in
	size      int64     // of the file, as announced or as fetched

	done, total atomic.Int64 // bytes between daemon and broker

	mu      sync.Mutex // guards what follows; held while the file is used
	file    *os.File
	written int64
	ready   bool // fetched

	touched time.Time       // guarded by transfers.mu
	busy    int             // guarded by transfers.mu: requests that use it now
	closed  bool            // guarded by transfers.mu
	ctx     context.Context // ends when the transfer is closed
	cancel  context.CancelFunc
}

type transfers struct {
	ctx   context.Context // the daemon's
	dir   string
	clock clockwork.Clock
	rand  io.Reader
	heavy chan struct{}

	mu   sync.Mutex
	byID map[string]*transfer
}

// openTransfers empties the directory of transfers. Work on them ends with ctx.
func openTransfers(ctx context.Context, dir string, clock clockwork.Clock, random io.Reader) (*transfers, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("remove old transfers: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make transfer directory: %w", err)
	}
	return &transfers{ctx: ctx, dir: dir, clock: clock, rand: random, heavy: make(chan struct{}, maxHeavy), byID: map[string]*transfer{}}, nil
}

// add enters t and gives it an id and a file. Errors: 429 too_many_transfers.
func (ts *transfers) add(t *transfer) (err error) {
	var raw [16]byte
	if _, err := io.ReadFull(ts.rand, raw[:]); err != nil {
		return fmt.Errorf("make transfer id: %w", err)
	}
	t.id = hex.EncodeToString(raw[:])
	ts.expire()
	ts.mu.Lock()
	defer ts.mu.Unlock()
	own := 0
	for _, o := range ts.byID {
		if o.actor == t.actor {
			own++
		}
	}
	if len(ts.byID) >= maxTransfers || own >= maxTransfersActor {
		return &bus.APIError{Code: 429, Reason: "too_many_transfers", Detail: "too many files are on their way already; try again when one of them is done"}
	}
	if t.file, err = os.OpenFile(filepath.Join(ts.dir, t.id), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600); err != nil {
		return fmt.Errorf("make temporary file: %w", storeError(err))
	}
	t.ctx, t.cancel = context.WithCancel(ts.ctx)
	t.touched = ts.clock.Now()
	ts.byID[t.id] = t
	return nil
}

// use finds a transfer of that actor and keeps it from being forgotten until release is called. Another actor's does not exist.
func (ts *transfers) use(actor, id string) (t *transfer, release func(), err error) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t = ts.byID[id]
	if t == nil || t.actor != actor {
		return nil, nil, &bus.APIError{Code: 404, Reason: "no_transfer", Detail: "there is no such transfer; it may have been idle for too long"}
	}
	t.busy++
	return t, func() {
		ts.mu.Lock()
		t.busy--
		t.touched = ts.clock.Now()
		drop := t.closed && t.busy == 0
		ts.mu.Unlock()
		if drop {
			t.discard()
		}
	}, nil
}

// close ends a transfer; its file goes when the last request that uses it has ended.
func (ts *transfers) close(t *transfer) {
	ts.mu.Lock()
	again := t.closed
	t.closed = true
	delete(ts.byID, t.id)
	idle := t.busy == 0
	ts.mu.Unlock()
	t.cancel()
	if idle && !again {
		t.discard()
	}
}

// discard removes the file. Nobody uses it, and nobody can find it.
func (t *transfer) discard() {
	_ = t.file.Close()
	_ = os.Remove(t.file.Name())
}

// expire forgets transfers that nobody has touched for a while.
func (ts *transfers) expire() {
	ts.mu.Lock()
	var old []*transfer
	for _, t := range ts.byID {
		if t.busy == 0 && ts.clock.Since(t.touched) >= transferIdle {
			old = append(old, t)
		}
	}
	ts.mu.Unlock()
	for _, t := range old {
		ts.close(t)
	}
}

// closeAll ends every transfer and removes the files.
func (ts *transfers) closeAll() error {
	ts.mu.Lock()
	all := make([]*transfer, 0, len(ts.byID))
	for _, t := range ts.byID {
		all = append(all, t)
	}
	ts.mu.Unlock()
	for _, t := range all {
		ts.close(t)
	}
	if err := os.RemoveAll(ts.dir); err != nil {
		return fmt.Errorf("remove transfers: %w", err)
	}
	return nil
}

// working takes a slot for work that holds a whole file in memory. The context it returns ends with the transfer, the request and the daemon.
func (ts *transfers) working(ctx context.Context, t *transfer) (context.Context, func(), error) {
	ctx, cancel := context.WithCancel(ctx)
	unhook := context.AfterFunc(t.ctx, cancel)
	select {
	case ts.heavy <- struct{}{}:
		return ctx, func() { <-ts.heavy; unhook(); cancel() }, nil
	case <-ctx.Done():
		unhook()
		cancel()
		return nil, nil, errAborted
	}
}

var errAborted = &bus.APIError{Code: 409, Reason: "aborted", Detail: "the transfer was ended before it was done"}

// append writes the next bytes of a file that goes out.
func (t *transfer) append(offset int64, data []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case offset != t.written:
		return &bus.APIError{Code: 409, Reason: "wrong_offset", Detail: fmt.Sprintf("the next byte is number %d", t.written)}
	case t.written+int64(len(data)) > t.size:
		return &bus.APIError{Code: 400, Reason: "too_many_bytes", Detail: fmt.Sprintf("the file was announced with %d bytes", t.size)}
	}
	if _, err := t.file.WriteAt(data, offset); err != nil {
		return fmt.Errorf("keep file: %w", storeError(err))
	}
	t.written += int64(len(data))
	return nil
}

// whole reads the file that was announced.
func (t *transfer) whole() ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.written != t.size {
		return nil, &bus.APIError{Code: 409, Reason: "incomplete", Detail: fmt.Sprintf("%d of %d bytes are there", t.written, t.size)}
	}
	data := make([]byte, t.size)
	if _, err := t.file.ReadAt(data, 0); err != nil && !(errors.Is(err, io.EOF) && t.size == 0) {
		return nil, fmt.Errorf("read temporary file: %w", err)
	}
	return data, nil
}

// fill writes a file that came in.
func (t *transfer) fill(data []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, err := t.file.WriteAt(data, 0); err != nil {
		return fmt.Errorf("keep file: %w", storeError(err))
	}
	t.size, t.ready = int64(len(data)), true
	return nil
}

// read returns the bytes from offset, nothing at the end.
func (t *transfer) read(offset int64) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !t.ready:
		return nil, &bus.APIError{Code: 409, Reason: "incomplete", Detail: "the file was not fetched yet"}
	case offset < 0 || offset > t.size:
		return nil, &bus.APIError{Code: 400, Reason: "wrong_offset", Detail: fmt.Sprintf("the file has %d bytes", t.size)}
	}
	data := make([]byte, min(bus.FileChunkSize, t.size-offset))
	if len(data) == 0 {
		return data, nil
	}
	if _, err := t.file.ReadAt(data, offset); err != nil {
		return nil, fmt.Errorf("read temporary file: %w", err)
	}
	return data, nil
}
