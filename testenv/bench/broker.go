package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"claudemesh/testenv/crowd"
)

// brokerProc is `claudemesh broker serve` on a data directory of its own.
type brokerProc struct {
	crowd.Broker
	cmd  *exec.Cmd
	data string
	args []string
}

// serve starts a broker with a fresh store; it ends with the rig.
func (r *rig) serve(name string, args ...string) (*brokerProc, error) {
	b := &brokerProc{data: filepath.Join(r.home, "broker-"+name), args: args}
	if err := r.launch(b); err != nil {
		return nil, err
	}
	token, err := os.ReadFile(filepath.Join(b.data, "admin-token"))
	b.AdminToken = strings.TrimSpace(string(token))
	return b, err
}

// launch starts the broker and returns when it says that it listens.
func (r *rig) launch(b *brokerProc) error {
	b.cmd = exec.Command(r.bin, append([]string{"broker", "serve", "--listen", "127.0.0.1:0", "--data", b.data, "--send-rate", "0"}, b.args...)...)
	b.cmd.Env = r.env(r.home)
	log, err := os.OpenFile(b.data+".log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	b.cmd.Stderr = log
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := b.cmd.Start(); err != nil {
		return err
	}
	r.procs = append(r.procs, b.cmd)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("start broker: %w", err)
	}
	_, addr, ok := strings.Cut(strings.TrimSpace(line), "listens on ")
	if !ok {
		return fmt.Errorf("start broker: it printed %q", line)
	}
	b.URL = "ws://" + addr + "/ws"
	return nil
}

// stop ends the broker in good order, kill as kill -9 does; both wait for it.
func (b *brokerProc) stop() error {
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return b.cmd.Wait()
}

func (b *brokerProc) kill() error {
	if err := b.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = b.cmd.Wait() // says "killed"
	return nil
}

func (b *brokerProc) discard() error {
	_ = b.kill()
	return os.RemoveAll(b.data)
}

// healthy reports when the broker answers GET /health.
func (b *brokerProc) healthy() error {
	resp, err := http.Get("http" + strings.TrimSuffix(strings.TrimPrefix(b.URL, "ws"), "/ws") + "/health")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// brokerLoad measures a busy broker, with each way to sync.
func (r *rig) brokerLoad() error {
	ctx := context.Background()
	for _, sync := range []string{"always", "interval"} {
		b, err := r.serve(sync, "--sync", sync)
		if err != nil {
			return err
		}
		m, err := r.meshOn(ctx, b)
		if err != nil {
			return err
		}
		if sync == "always" {
			if err := r.handshakes(ctx, m); err != nil {
				return err
			}
		}
		if err := r.directs(ctx, m, "--sync "+sync); err != nil {
			return err
		}
		if err := r.pushes(ctx, m, "--sync "+sync); err != nil {
			return err
		}
		if err := r.broadcasts(ctx, m, "--sync "+sync); err != nil {
			return err
		}
		if err := b.discard(); err != nil {
			return err
		}
	}
	return nil
}

// crowdMesh is a mesh with members who are not connected yet.
type crowdMesh struct {
	*crowd.Mesh
	members []crowd.Member
	serial  int // of client message ids
}

const broadcastTo = 100

func (r *rig) meshOn(ctx context.Context, b *brokerProc) (*crowdMesh, error) {
	m, err := b.NewMesh(ctx, "bench")
	if err != nil {
		return nil, err
	}
	members, err := m.Enrol(ctx, broadcastTo)
	return &crowdMesh{Mesh: m, members: members}, err
}

// span is how long one figure is measured.
func (r *rig) span() time.Duration {
	if r.quick {
		return 300 * time.Millisecond
	}
	return 1500 * time.Millisecond
}
