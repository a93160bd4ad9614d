package faultproxy

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// DialFunc makes the connection to the broker.
type DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// Option changes a proxy that is being made.
type Option func(*Proxy)

// WithDial replaces the way the broker is reached.
func WithDial(dial DialFunc) Option { return func(p *Proxy) { p.dial = dial } }

// WithFrames makes the proxy speak WebSocket on both sides, so that hooks see frames. Without it bytes are passed as they come. Control frames are not
// passed on: each side's ping is answered here. A plain HTTP request passes as it is, one on each connection. hook may be nil.
func WithFrames(hook Hook) Option {
	return func(p *Proxy) { p.frames, p.hook = true, hook }
}

// Proxy is one listener and its connections. Its methods may be called from anywhere.
type Proxy struct {
	target, scheme, path string
	dial                 DialFunc
	frames               bool
	listener             net.Listener
	ctx                  context.Context
	stop                 context.CancelFunc
	tasks                sync.WaitGroup

	mu       sync.Mutex
	cut      bool
	delay    time.Duration
	links    map[*link]struct{}
	accepted int
	changed  chan struct{}

	hookMu sync.Mutex
	hook   Hook
}

// link is one connection through the proxy.
type link struct {
	ctx    context.Context
	cancel context.CancelFunc
	client net.Conn
	inject func(Dir, []byte) error // nil until the frames flow
	polite atomic.Bool             // a close frame was passed on: a reset could overtake it
}

func (l *link) drop(c net.Conn) {
	if l.polite.Load() {
		c.Close()
		return
	}
	reset(c)
}

// New starts a proxy in front of target, "host:port" or a ws:// URL, on a free port of 127.0.0.1.
func New(target string, opts ...Option) (*Proxy, error) {
	p := &Proxy{target: target, scheme: "ws", path: "/ws", links: map[*link]struct{}{}, changed: make(chan struct{}), dial: new(net.Dialer).DialContext}
	if strings.Contains(target, "://") {
		u, err := url.Parse(target)
		if err != nil || u.Scheme != "ws" || u.Port() == "" {
			return nil, fmt.Errorf("fault proxy: target must be ws://host:port/path: %q", target)
		}
		p.target, p.path = u.Host, u.Path
	}
	for _, o := range opts {
		o(p)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("fault proxy: %w", err)
	}
	p.listener = l
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.tasks.Go(p.accept)
	return p, nil
}

// Addr is host:port of the proxy.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// URL is the WebSocket address of the proxy, with the target's path (/ws when the target had none).
func (p *Proxy) URL() string { return p.scheme + "://" + p.Addr() + p.path }

// Cut drops all connections and resets every new one until Restore.
func (p *Proxy) Cut() {
	p.mu.Lock()
	p.cut = true
	p.mu.Unlock()
	p.DropAll()
}

// Restore ends a Cut.
func (p *Proxy) Restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}

// DropAll drops the connections of this moment, without a close frame. New ones are served.
func (p *Proxy) DropAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.cancel()
	}
}

// Delay holds every chunk (frame, with WithFrames) back for d, one after the other in each direction. 0 ends it.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Connections is the number of connections that stand now.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Accepted is the number of connections served since the start, those refused by Cut not counted.
func (p *Proxy) Accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// WaitAccepted returns when n connections have been served since the start, or with ctx's error.
func (p *Proxy) WaitAccepted(ctx context.Context, n int) error {
	for {
		p.mu.Lock()
		enough, changed := p.accepted >= n, p.changed
		p.mu.Unlock()
		if enough {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close ends the listener and all connections and waits for every goroutine.
func (p *Proxy) Close() {
	p.stop()
	p.listener.Close()
	p.tasks.Wait()
}

func (p *Proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		if p.cut || p.ctx.Err() != nil {
			p.mu.Unlock()
			reset(conn)
			continue
		}
		l := &link{client: conn}
		l.ctx, l.cancel = context.WithCancel(p.ctx)
		p.links[l] = struct{}{}
		p.accepted++
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
		p.tasks.Go(func() { p.serve(l) })
	}
}

func (p *Proxy) serve(l *link) {
	defer func() {
		l.cancel()
		p.mu.Lock()
		delete(p.links, l)
		p.mu.Unlock()
	}()
	if p.frames {
		p.serveFrames(l)
	} else {
		p.serveBytes(l)
	}
}

// pause waits for the delay of this moment; false when the link ended first.
func (p *Proxy) pause(l *link) bool {
	p.mu.Lock()
	d := p.delay
	p.mu.Unlock()
	if d <= 0 {
		return l.ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// reset closes a connection so that the other side sees a reset, as from a host that is not there.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	c.Close()
}
