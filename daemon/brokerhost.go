package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"claudemesh/broker"
	"claudemesh/bus"
)

// brokerHost is the broker inside the daemon: the one that serves meshes made with a plain `claudemesh create`. Its store is the bus server's BROKER
// account. This daemon's own links reach it through memory; other daemons on the machine through a loopback port, which stays the same because invites and
// config files name it.
type brokerHost struct {
	broker *broker.Broker
	pipe   *broker.PipeListener
	addr   string // 127.0.0.1:port
	url    string // ws://addr/ws
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu  sync.Mutex
	err error // why the port is not open
}

type brokerSettings struct {
	Listen string `json:"listen"`
}

// openBroker starts the embedded broker if this machine hosts a mesh already.
func (d *Daemon) openBroker(ctx context.Context) error {
	var s brokerSettings
	b, err := os.ReadFile(filepath.Join(d.opt.Dir, brokerFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("read broker settings: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("read broker settings: %s: %w", filepath.Join(d.opt.Dir, brokerFile), err)
	}
	return d.startBroker(ctx, s.Listen, nil)
}

// hostBroker returns the embedded broker, started and given a port for good on first use.
func (d *Daemon) hostBroker(ctx context.Context) (*brokerHost, error) {
	if d.broker != nil {
		return d.broker, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("find a port: %w", err)
	}
	data, err := json.Marshal(brokerSettings{Listen: l.Addr().String()})
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if err := writePrivate(filepath.Join(d.opt.Dir, brokerFile), string(data)+"\n"); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if err := d.startBroker(ctx, l.Addr().String(), l); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return d.broker, nil
}

func (d *Daemon) startBroker(ctx context.Context, addr string, l net.Listener) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || !isLoopback(host) {
		return fmt.Errorf("broker settings: %q is not a loopback address", addr)
	}
	nc, err := d.server.BrokerConn()
	if err != nil {
		return fmt.Errorf("connect to broker store: %w", err)
	}
	h := &brokerHost{addr: addr, url: "ws://" + addr + "/ws", pipe: broker.NewPipeListener()}
	h.broker, err = broker.Open(ctx, broker.Config{NC: nc, Clock: d.opt.Clock, Rand: d.opt.Rand, Log: d.opt.Log.With("room", "broker"), Version: d.opt.Version, PublicURL: h.url, OpenStatus: true, Dir: d.opt.Dir})
	if err != nil {
		return fmt.Errorf("open broker: %w", err)
	}
	var run context.Context
	run, h.cancel = context.WithCancel(context.Background())
	h.tasks.Go(func() {
		if err := broker.Serve(run, h.broker, h.pipe); err != nil && run.Err() == nil {
			d.opt.Log.Error("broker_pipe_ended", "error", err)
		}
	})
	h.tasks.Go(func() { h.listen(run, d, l) })
	d.mu.Lock()
	d.broker = h
	d.mu.Unlock()
	return nil
}

// portRetry is how often a taken port is tried again.
const portRetry = 5 * time.Second

// listen serves the loopback port. A port that somebody else holds costs the other daemons of this machine their way in, not this one: it is tried again
// until it is free, and daemon status says so.
func (h *brokerHost) listen(ctx context.Context, d *Daemon, l net.Listener) {
	for ctx.Err() == nil {
		err := error(nil)
		if l == nil {
			l, err = net.Listen("tcp", h.addr)
		}
		h.mu.Lock()
		first := (h.err == nil) != (err == nil)
		h.err = err
		h.mu.Unlock()
		if err == nil {
			err = broker.Serve(ctx, h.broker, l)
			l = nil
		}
		if ctx.Err() != nil {
			return
		}
		if first {
			d.opt.Log.Warn("broker_port_unavailable", "addr", h.addr, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-d.opt.Clock.After(portRetry):
		}
	}
}

func (h *brokerHost) stop(ctx context.Context) error {
	err := h.broker.Close(ctx)
	h.cancel()
	_ = h.pipe.Close()
	h.tasks.Wait()
	if err != nil {
		return fmt.Errorf("close broker: %w", err)
	}
	return nil
}

func (h *brokerHost) info() *bus.BrokerInfo {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	out := &bus.BrokerInfo{URL: h.url}
	if h.err != nil {
		out.Error = h.err.Error()
	}
	return out
}

// dial connects to a broker: to this daemon's own through memory, so that no other process can stand in for it, to any other over the network.
func (d *Daemon) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d.mu.RLock()
	h := d.broker
	d.mu.RUnlock()
	if h != nil && addr == h.addr {
		return h.pipe.Dial(ctx, network, addr)
	}
	return d.opt.Dial(ctx, network, addr)
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
