package testenv

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"claudemesh/bus"
	"claudemesh/daemon"
)

// Process is one user's HOME with a daemon in a process of its own, which can be killed, paused and started again. Everything that Machine does as a client
// of the daemon works on it too.
type Process struct {
	*Machine
	*child
}

// NewProcess makes a HOME and starts its daemon; both end with the test. Of the options only WithName has an effect: nothing else reaches another process.
func NewProcess(t testing.TB, options ...Option) *Process {
	t.Helper()
	m := &Machine{T: t, Home: TempDir(t), Log: &Log{}}
	m.opt = daemon.Options{
		Dir: filepath.Join(m.Home, ".claudemesh", "daemon"), ConfigDir: filepath.Join(m.Home, ".claudemesh"), DisplayName: "user", Log: slog.New(slog.DiscardHandler),
	}
	for _, o := range options {
		o(&m.opt)
	}
	p := &Process{Machine: m, child: newChild(t, m.Home, m.Log)}
	t.Cleanup(p.forget)
	p.Start()
	return p
}

// Start starts the daemon and returns when it holds the lock and answers.
func (p *Process) Start() {
	p.t.Helper()
	p.forget()
	p.spawn(childJob{Dir: p.opt.Dir, ConfigDir: p.opt.ConfigDir, DisplayName: p.opt.DisplayName})
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	end := after(Patience)
	for !p.answers() {
		select {
		case <-look.C:
		case <-p.ended:
			p.t.Fatalf("the daemon did not start:\n%s", p.log.Tail(20))
		case <-end:
			p.t.Fatalf("the daemon does not answer:\n%s", p.log.Tail(20))
		}
	}
}

// answers reports whether the process holds the lock and the bus, and nobody else does.
func (p *Process) answers() bool {
	if !bus.Held(p.Dir()) {
		return false
	}
	c, err := Connect(p.Dir(), filepath.Join(p.Dir(), "local-token"), bus.User)
	if err != nil {
		return false
	}
	defer c.Close()
	var v bus.Version
	return Try(c, bus.DaemonSubject(bus.User, bus.OpVersion), nil, &v) == nil && v.PID == p.PID()
}

// Kill ends the daemon as kill -9 does.
func (p *Process) Kill() {
	p.forget()
	p.kill()
}

// Stop ends the daemon in good order.
func (p *Process) Stop() {
	p.forget()
	p.stop()
}

// forget closes the user's connection; the next request makes a new one.
func (p *Process) forget() {
	p.Machine.mu.Lock()
	user := p.user
	p.user = nil
	p.Machine.mu.Unlock()
	if user != nil {
		user.Close()
	}
}

// Connect connects to the daemon of a directory with the token in a file, and returns why it cannot.
func Connect(dir, tokenFile, actor string) (*bus.Client, error) {
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	return bus.Connect(ctx, bus.ClientConfig{Dir: dir, Token: strings.TrimSpace(string(token)), Actor: actor, Name: "test " + actor})
}

// after is a timer that nobody stops: for waits that end the test.
func after(d time.Duration) <-chan time.Time { return time.NewTimer(d).C }
