package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
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

// accepts measures the accept alone: from request to the 202 that means committed. Rows pile up in the outbox and drain behind it, as they do for a user.
func (r *rig) accepts() error {
	sink, err := r.session("heap")
	if err != nil {
		return err
	}
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
					d, err := timed(func() error { return r.do(conns[i], subject, bus.SendRequest{To: sink.Pubkey, Body: body}, nil) })
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
		if clients == 1 {
			note = "  (aim: one fsync + 0.5 ms; reference 0.8 ms without fsync, 750/s)"
		}
		if clients == 64 {
			note = "  (aim > 5,000/s; reference 1,400/s with 32)"
		}
		row(fmt.Sprintf("accept, %d client(s)", clients), "p50 %s  p99 %s  %.0f/s%s", ms(all.median()), ms(all.at(0.99)), float64(len(all))/elapsed.Seconds(), note)
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
	s := &shim{cmd: c, lines: make(chan string, 65536)}
	ready := make(chan struct{})
	go func() {
		defer close(s.lines)
		scan := bufio.NewScanner(out)
		scan.Buffer(nil, 4<<20)
		for scan.Scan() {
			var m struct {
				ID     any
				Method string
				Params struct{ Content string }
			}
			if json.Unmarshal(scan.Bytes(), &m) != nil {
				continue
			}
			if m.Method == "" && m.ID != nil {
				close(ready)
			}
			if m.Method == "notifications/claude/channel" {
				s.lines <- m.Params.Content
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

// endToEnd measures one message at a time: from the send request to the line that the receiving session's shim writes to its client.
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
		if err := r.do(r.user, subject, bus.SendRequest{To: info.Pubkey, Body: text}, nil); err != nil {
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
				if err := r.do(c, bus.SendSubject(r.mesh, bus.User, "dm"), bus.SendRequest{To: info.Pubkey, Body: strings.Repeat("y", 256)}, nil); err != nil {
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
