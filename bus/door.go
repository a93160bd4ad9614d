//go:build !windows

package bus

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

// maxSocketPath is under what every system takes in a socket address (104 bytes on macOS, 108 on Linux).
const maxSocketPath = 100

// maxDoorConns bounds the connections of the Unix socket; it is under the server's own bound, so that the daemon's connections always find room.
const maxDoorConns = 768

// linger is how long a connection that the server has ended may take to read the end.
const linger = time.Second

// door is the Unix socket. The server cannot listen on one, so each connection is spliced into its in-process listener. A connection of another user
// is closed before a byte of it is read, whatever the file's mode.
type door struct {
	path    string
	ln      net.Listener
	dial    func() (net.Conn, error)
	peerUID func(net.Conn) (int, error)
	uid     int
	log     *slog.Logger
	quiet   *burst
	slots   chan struct{}
	done    chan struct{}
	wg      sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

// openDoor listens on path. A socket file of a daemon that died is removed first, which is safe because the caller holds the directory's lock.
func openDoor(path string, dial func() (net.Conn, error), cfg ServerConfig) (*door, error) {
	ln, err := listenPrivate(path)
	if err != nil {
		return nil, err
	}
	d := &door{
		path: path, ln: ln, dial: dial, peerUID: cfg.PeerUID, uid: os.Geteuid(), log: cfg.Log,
		quiet: &burst{clock: cfg.Clock, n: 5},
		slots: make(chan struct{}, maxDoorConns), done: make(chan struct{}), conns: map[net.Conn]struct{}{},
	}
	d.wg.Add(1)
	go d.accept()
	return d, nil
}

func (d *door) accept() {
	defer d.wg.Done()
	for {
		c, err := d.ln.Accept()
		if err != nil {
			if d.ended(err) {
				return
			}
			continue
		}
		if err := d.admit(c); err != nil {
			c.Close()
			d.warn("connection refused", err)
		}
	}
}

// ended tells whether the listener is closed. Any other failure to accept, such as too many open files, is waited out.
func (d *door) ended(err error) bool {
	if errors.Is(err, net.ErrClosed) {
		return true
	}
	d.warn("accept failed", err)
	t := time.NewTimer(20 * time.Millisecond)
	defer t.Stop()
	select {
	case <-d.done:
		return true
	case <-t.C:
		return false
	}
}

// admit checks who is there and starts the splice.
func (d *door) admit(c net.Conn) error {
	uid, err := d.peerUID(c)
	if err != nil {
		return fmt.Errorf("ask for peer: %w", err)
	}
	if uid != d.uid {
		return fmt.Errorf("peer is user %d, not %d", uid, d.uid)
	}
	select {
	case d.slots <- struct{}{}:
	default:
		return fmt.Errorf("more than %d connections", maxDoorConns)
	}
	s, err := d.dial()
	if err != nil {
		<-d.slots
		return fmt.Errorf("reach the server: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		s.Close()
		<-d.slots
		return net.ErrClosed
	}
	d.conns[c], d.conns[s] = struct{}{}, struct{}{}
	d.wg.Add(1)
	go d.splice(c, s)
	return nil
}

// splice copies both ways until one side ends, then ends the other.
func (d *door) splice(c, s net.Conn) {
	defer d.wg.Done()
	defer func() { <-d.slots }()
	defer d.forget(c, s)
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(patient{c}, s) // the end of a connection is no error
		s.Close()
		// The server has said its last word, perhaps why it refuses. Closing now, with bytes of the client unread, could keep it from hearing that.
		_ = c.SetReadDeadline(time.Now().Add(linger))
		if half, ok := c.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}()
	_, _ = io.Copy(s, c)
	s.Close()
	<-back
	_, _ = io.Copy(io.Discard, c)
	c.Close()
}

// patient gives a client that does not read a bounded time for each write; without the bound its goroutines would stay after the server has cut it.
type patient struct{ net.Conn }

func (p patient) Write(b []byte) (int, error) {
	_ = p.SetWriteDeadline(time.Now().Add(10 * linger))
	return p.Conn.Write(b)
}

func (d *door) forget(c, s net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, c)
	delete(d.conns, s)
}

func (d *door) warn(msg string, err error) {
	if ok, swallowed := d.quiet.allow(); ok {
		d.log.Warn(msg, "door", "socket", "err", err, "swallowed", swallowed)
	}
}

// close ends the listener and every connection and waits for their goroutines. Closing the listener removes the socket file.
func (d *door) close() {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return
	}
	d.closed = true
	close(d.done)
	open := make([]net.Conn, 0, len(d.conns))
	for c := range d.conns {
		open = append(open, c)
	}
	d.mu.Unlock()
	d.ln.Close()
	for _, c := range open {
		c.Close()
	}
	d.wg.Wait()
}
