package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"claudemesh/bus"
)

func (r *rig) session(name string) (bus.SessionInfo, error) {
	var info bus.SessionInfo
	err := r.do(r.user, bus.DaemonSubject(bus.User, bus.OpSessionStart), bus.SessionStart{Mesh: r.mesh, Name: name, PID: os.Getpid()}, &info)
	return info, err
}

// accepts measures from a send request to the 202 that means committed: first alone, with the mesh's broker down, so that rows only pile up; then with the
// drain, the broker and the recipient at work on the same two cores and disk.
func (r *rig) accepts() error {
	alone, err := r.stranded()
	if err != nil {
		return err
	}
	defer alone.close()
	if err := alone.acceptRows("accept", strings.Repeat("ab", 32), false); err != nil {
		return err
	}
	sink, err := r.session("heap")
	if err != nil {
		return err
	}
	return r.acceptRows("accept while delivering", sink.Pubkey, true)
}

// stranded is a rig of its own with a mesh whose broker has gone.
func (r *rig) stranded() (*rig, error) {
	home, err := os.MkdirTemp("/tmp", "cmbench")
	if err != nil {
		return nil, err
	}
	s := &rig{bin: r.bin, home: home, options: r.options, mesh: "far"}
	data := filepath.Join(home, "broker")
	b := exec.Command(r.bin, "broker", "serve", "--listen", "127.0.0.1:0", "--data", data)
	b.Env = s.env(home)
	out, err := b.StdoutPipe()
	if err != nil {
		return s, err
	}
	if err := b.Start(); err != nil {
		return s, err
	}
	s.procs = append(s.procs, b)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return s, fmt.Errorf("start broker: %w", err)
	}
	_, addr, ok := strings.Cut(strings.TrimSpace(line), "listens on ")
	if !ok {
		return s, fmt.Errorf("start broker: it printed %q", line)
	}
	if _, err := s.cmd("create", s.mesh, "--broker", "ws://"+addr+"/ws", "--admin-token-file", filepath.Join(data, "admin-token")); err != nil {
		return s, err
	}
	if err := b.Process.Kill(); err != nil {
		return s, err
	}
	_ = b.Wait()
	s.procs = nil
	s.user, err = s.asUser()
	return s, err
}

func (r *rig) acceptRows(what, to string, drained bool) error {
	var err error
	for _, clients := range []int{1, 8, 64} {
		total := r.n(2000)
		if clients > 1 {
			total = r.n(16000)
		}
		lat := make([]sample, clients)
		errs := make([]error, clients)
		conns := make([]*bus.Client, clients)
		for i := range conns {
			if conns[i], err = r.asUser(); err != nil {
				return err
			}
		}
		var wg sync.WaitGroup
		begin := time.Now()
		for i := range clients {
			wg.Go(func() {
				subject := bus.SendSubject(r.mesh, bus.User, "dm")
				body := strings.Repeat("x", 256)
				for range total / clients {
					d, err := timed(func() error { return r.do(conns[i], subject, bus.SendRequest{To: to, Body: body}, nil) })
					if err != nil {
						errs[i] = err
						return
					}
					lat[i] = append(lat[i], d)
				}
			})
		}
		wg.Wait()
		elapsed := time.Since(begin)
		var all sample
		for i := range clients {
			conns[i].Close()
			if errs[i] != nil {
				return errs[i]
			}
			all = append(all, lat[i]...)
		}
		note := ""
		if clients == 1 && !drained {
			note = "  (aim: one fsync + 0.5 ms; reference 0.8 ms without fsync, 750/s)"
		}
		if clients == 64 && !drained {
			note = "  (aim > 5,000/s; reference 1,400/s with 32)"
		}
		row(fmt.Sprintf("%s, %d client(s)", what, clients), "p50 %s  p99 %s  %.0f/s%s", ms(all.median()), ms(all.at(0.99)), float64(len(all))/elapsed.Seconds(), note)
		if !drained {
			continue
		}
		if err := r.drained(); err != nil {
			return err
		}
	}
	return nil
}

// drained waits until nothing is pending or on its way, and says how fast that went.
func (r *rig) drained() error {
	begin := time.Now()
	for end := begin.Add(5 * time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var s bus.Status
		if err := r.do(r.user, bus.DaemonSubject(bus.User, bus.OpStatus), nil, &s); err != nil {
			return err
		}
		if len(s.Meshes) > 0 && s.Meshes[0].Outbox["pending"]+s.Meshes[0].Outbox["inflight"] == 0 {
			return nil
		}
	}
	return fmt.Errorf("the outbox did not drain in five minutes")
}

// shim is a `claudemesh mcp` process of a session, driven as Claude Code drives it.
type shim struct {
	cmd   *exec.Cmd
	lines chan string // texts of the notifications, in order
	ids   chan string // ids of their messages; what nobody takes is dropped
}

func (r *rig) shim(info bus.SessionInfo) (*shim, error) {
	c := exec.Command(r.bin, "mcp")
	c.Env = append(r.env(r.home), "CLAUDEMESH_SESSION_ID="+info.ID, "CLAUDEMESH_IPC_TOKEN_FILE="+info.TokenFile, "CLAUDEMESH_MESH="+info.Mesh)
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	r.procs = append(r.procs, c)
	s := &shim{cmd: c, lines: make(chan string, 65536), ids: make(chan string, 65536)}
	ready := make(chan struct{})
	go func() {
		defer close(s.lines)
		defer close(s.ids)
		scan := bufio.NewScanner(out)
		scan.Buffer(nil, 4<<20)
		for scan.Scan() {
			var m struct {
				ID     any
				Method string
				Params struct {
					Content string
					Meta    map[string]string
				}
			}
			if json.Unmarshal(scan.Bytes(), &m) != nil {
				continue
			}
			if m.Method == "" && m.ID != nil {
				close(ready)
			}
			if m.Method == "notifications/claude/channel" {
				s.lines <- m.Params.Content
				select {
				case s.ids <- m.Params.Meta["message_id"]:
				default:
				}
			}
		}
	}()
	fmt.Fprintln(in, `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}`)
	select {
	case <-ready:
	case <-time.After(10 * time.Second):
		return nil, fmt.Errorf("the shim did not answer initialize")
	}
	fmt.Fprintln(in, `{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	return s, nil
}

// await returns when the shim has notified a text that ends so.
func (s *shim) await(suffix string) error {
	limit := time.After(30 * time.Second)
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				return fmt.Errorf("the shim ended")
			}
			if strings.HasSuffix(line, suffix) {
				return nil
			}
		case <-limit:
			return fmt.Errorf("no notification %q within 30 s", suffix)
		}
	}
}

// endToEnd measures one message at a time, from the send request to the line that the receiving session's shim writes to its client. Here and below they are
// urgent: of the others a shim shows five in a row from one peer, and counts the rest.
func (r *rig) endToEnd() error {
	info, err := r.session("receiver")
	if err != nil {
		return err
	}
	s, err := r.shim(info)
	if err != nil {
		return err
	}
	subject := bus.SendSubject(r.mesh, bus.User, "dm")
	send := func(text string) error {
		if err := r.do(r.user, subject, bus.SendRequest{To: info.Pubkey, Body: text, Priority: "now"}, nil); err != nil {
			return err
		}
		return s.await(text)
	}
	if err := send("warm up"); err != nil {
		return err
	}
	var lat sample
	for i := range r.n(500) {
		d, err := timed(func() error { return send(fmt.Sprintf("message %d.", i)) })
		if err != nil {
			return err
		}
		lat = append(lat, d)
	}
	row("send → other session's shim", "p50 %s  p99 %s  (aim p50 < 10 ms; reference 22 and 35 ms)", ms(lat.median()), ms(lat.at(0.99)))
	return nil
}

// sustained measures a burst of 8 senders until the last message has left the shim.
func (r *rig) sustained() error {
	info, err := r.session("flooded")
	if err != nil {
		return err
	}
	s, err := r.shim(info)
	if err != nil {
		return err
	}
	// The shim holds back its first message for a moment, as Claude Code needs it.
	if err := r.do(r.user, bus.SendSubject(r.mesh, bus.User, "dm"), bus.SendRequest{To: info.Pubkey, Body: "warm up", Priority: "now"}, nil); err != nil {
		return err
	}
	if err := s.await("warm up"); err != nil {
		return err
	}
	const clients = 8
	total := r.n(4000) / clients * clients
	errs := make(chan error, clients)
	begin := time.Now()
	for range clients {
		go func() {
			c, err := r.asUser()
			if err != nil {
				errs <- err
				return
			}
			defer c.Close()
			for range total / clients {
				if err := r.do(c, bus.SendSubject(r.mesh, bus.User, "dm"), bus.SendRequest{To: info.Pubkey, Body: strings.Repeat("y", 256), Priority: "now"}, nil); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for n := 0; n < total; n++ {
		select {
		case _, ok := <-s.lines:
			if !ok {
				return fmt.Errorf("the shim ended")
			}
		case <-time.After(60 * time.Second):
			return fmt.Errorf("%d of %d messages came", n, total)
		}
	}
	elapsed := time.Since(begin)
	for range clients {
		if err := <-errs; err != nil {
			return err
		}
	}
	row("sustained, send → shim, 8 senders", "%.0f messages/s over %d  (reference 43–55/s)", float64(total)/elapsed.Seconds(), total)
	return r.drained()
}

// tap measures requests with and without a tap that subscribed to everything and stopped reading, in turns.
func (r *rig) tap() error {
	var t bus.Tap
	if err := r.do(r.user, bus.DaemonSubject(bus.User, bus.OpTap), bus.TapRequest{}, &t); err != nil {
		return err
	}
	var with, without sample
	trip := func(s *sample) error {
		for range r.n(1000) {
			d, err := timed(func() error { return r.do(r.user, bus.DaemonSubject(bus.User, bus.OpVersion), nil, nil) })
			if err != nil {
				return err
			}
			*s = append(*s, d)
		}
		return nil
	}
	for range 5 {
		if err := trip(&without); err != nil {
			return err
		}
		c, err := stuckTap(t)
		if err != nil {
			return err
		}
		err = trip(&with)
		c.Close()
		if err != nil {
			return err
		}
	}
	row("request round trip", "p50 %s  p99 %s", ms(without.median()), ms(without.at(0.99)))
	row("  with a tap that stopped reading", "p50 %s  p99 %s: %.2f times", ms(with.median()), ms(with.at(0.99)), float64(with.median())/float64(without.median()))
	return nil
}

// stuckTap speaks just enough of the client protocol to be sent everything, and reads none of it.
func stuckTap(t bus.Tap) (net.Conn, error) {
	u, err := url.Parse(t.URL)
	if err != nil {
		return nil, err
	}
	token, err := os.ReadFile(t.TokenFile)
	if err != nil {
		return nil, err
	}
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		return nil, err
	}
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(c, "CONNECT {\"auth_token\":%q,\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\nSUB > 1\r\n", strings.TrimSpace(string(token)))
	return c, err
}
