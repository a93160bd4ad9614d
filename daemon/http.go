package daemon

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"claudemesh/bus"
	"claudemesh/daemon/httpapi"
)

// The HTTP doors for scripts: http.sock beside the bus's socket, and a port on loopback. What they answer is in package httpapi.

const (
	httpSocketFile = "http.sock"
	httpPortFile   = "http-port"
	// referencePort is where scripts of the reference look. It is taken when it is free, and never insisted on: http_url of bus.json and of daemon status says
	// which one it is.
	referencePort = 47823
)

// openHTTP opens the doors. Who comes waits until the handlers are there, and the doors are served.
func (d *Daemon) openHTTP() error {
	if d.opt.NoHTTP {
		return nil
	}
	token, err := d.localToken()
	if err != nil {
		return err
	}
	streams, err := d.server.BusConn()
	if err != nil {
		return fmt.Errorf("connect http to bus: %w", err)
	}
	var figures http.Handler
	if d.opt.Metrics {
		figures = http.HandlerFunc(d.serveFigures)
	}
	d.http = httpapi.New(httpapi.Config{
		Bus: d.server, Streams: streams, UserToken: token, Meshes: d.slugs, Version: d.opt.Version, PublicHealth: d.opt.PublicHealth, Metrics: figures,
		Log: d.opt.Log, Clock: d.opt.Clock,
	})
	path := filepath.Join(d.opt.Dir, httpSocketFile)
	socket, err := bus.ListenSocket(path)
	if err != nil {
		return fmt.Errorf("open http: %w", err)
	}
	if socket != nil {
		d.httpSocket = path
		d.http.Add(socket, true)
	}
	if d.opt.NoTCP {
		return nil
	}
	tcp, err := d.listenHTTP()
	if err != nil {
		return err
	}
	d.httpURL = "http://" + tcp.Addr().String()
	d.http.Add(tcp, false)
	return nil
}

// listenHTTP takes the port of last time, else the reference's, else any.
func (d *Daemon) listenHTTP() (net.Listener, error) {
	file := filepath.Join(d.opt.Dir, httpPortFile)
	ports := []int{referencePort, 0}
	if b, err := os.ReadFile(file); err == nil {
		if p, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && p >= 1024 && p <= 65535 {
			ports = append([]int{p}, ports...)
		}
	}
	var l net.Listener
	var err error
	for _, p := range ports {
		if l, err = (&net.ListenConfig{}).Listen(d.ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(p))); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open http: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if port == ports[0] && len(ports) == 3 {
		return l, nil
	}
	if err := writePrivate(file, strconv.Itoa(port)+"\n"); err != nil {
		l.Close()
		return nil, fmt.Errorf("remember the port: %w", err)
	}
	return l, nil
}

// closeHTTP ends the event streams and lets requests under way finish.
func (d *Daemon) closeHTTP(ctx context.Context) error {
	if d.http == nil {
		return nil
	}
	return d.http.Close(ctx)
}
