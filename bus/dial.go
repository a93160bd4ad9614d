package bus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// dialer reaches the daemon of a directory, whatever address the NATS client asks for.
type dialer struct {
	dir     string
	timeout time.Duration

	mu  sync.Mutex
	ctx context.Context // bounds the first connection only; nil afterwards
}

// connected frees later dials, those of a reconnect, from the context of the first.
func (d *dialer) connected() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ctx = nil
}

// SkipTLSHandshake tells the NATS client that there is none.
func (d *dialer) SkipTLSHandshake() bool { return true }

// Dial implements the NATS client's dialer.
func (d *dialer) Dial(_, _ string) (net.Conn, error) {
	d.mu.Lock()
	ctx := d.ctx
	d.mu.Unlock()
	if ctx == nil {
		ctx = context.Background()
	}
	network, addr := "unix", filepath.Join(d.dir, socketFile)
	if runtime.GOOS == "windows" {
		var err error
		if addr, err = tcpAddress(d.dir); err != nil {
			return nil, err
		}
		network = "tcp"
	}
	nd := net.Dialer{Timeout: d.timeout}
	c, err := nd.DialContext(ctx, network, addr)
	switch {
	case err == nil:
		return c, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w: %w", ErrNoDaemon, err)
	}
	return nil, err
}

// tcpAddress is the TCP door of the daemon that holds dir. Without the lock bus.json is a leftover, and whoever answers there a stranger.
func tcpAddress(dir string) (string, error) {
	if !Held(dir) {
		return "", ErrNoDaemon
	}
	info, err := ReadInfo(dir)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(info.TCPURL)
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("%w: its TCP door is closed", ErrNoDaemon)
	}
	return u.Host, nil
}
