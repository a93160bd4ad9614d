package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Serve answers on the listeners until ctx ends, then closes the broker and the listeners and returns nil; an earlier return is the error of a listener.
// The broker is closed in either case.
func Serve(ctx context.Context, b *Broker, listeners ...net.Listener) error {
	srv := &http.Server{
		Handler: b.Handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 60 * time.Second, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(b.log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, len(listeners))
	var wg sync.WaitGroup
	for _, l := range listeners {
		wg.Go(func() { ended <- srv.Serve(l) })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-ended:
		err = fmt.Errorf("serve broker: %w", err)
	}
	down, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	// Listeners first, so that no client that is sent away comes straight back. Shutdown does not know hijacked connections; Close ends those.
	shut := make(chan error, 1)
	wg.Go(func() { shut <- srv.Shutdown(down) })
	err = errors.Join(err, b.Close(down))
	if e := <-shut; e != nil {
		err = errors.Join(err, fmt.Errorf("serve broker: %w", e))
	}
	wg.Wait()
	return err
}

// PipeListener is a listener in memory: a daemon reaches its own broker through it without opening a port.
type PipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// NewPipeListener returns one; hand it to Serve and give Dial to the client.
func NewPipeListener() *PipeListener {
	return &PipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

// Dial connects to the listener, whatever network and address say. Errors: ctx's, or net.ErrClosed.
func (l *PipeListener) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-l.done:
		return nil, fmt.Errorf("dial broker: %w", net.ErrClosed)
	case <-ctx.Done():
		return nil, fmt.Errorf("dial broker: %w", ctx.Err())
	}
}

// Accept returns the next connection, net.ErrClosed after Close.
func (l *PipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and Dial; open connections stay.
func (l *PipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr is a name for logs.
func (l *PipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "in-process broker" }
