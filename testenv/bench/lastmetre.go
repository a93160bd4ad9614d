package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"claudemesh/bus"
)

// The last metre: what hooks, shims and launches cost, and how long a message takes until there is evidence that it is before a model.

// client is a client with a transcript: its shim is a process, and what the shim notifies is written into the transcript, as a model's client does.
type client struct {
	info       bus.SessionInfo
	transcript string
	shim       *shim
}

func (r *rig) client(name string) (*client, error) {
	info, err := r.session(name)
	if err != nil {
		return nil, err
	}
	k := &client{info: info, transcript: filepath.Join(r.home, name+".jsonl")}
	if err := os.WriteFile(k.transcript, nil, 0o600); err != nil {
		return nil, err
	}
	if err := r.hook(k, "SessionStart", "presence"); err != nil {
		return nil, err
	}
	k.shim, err = r.shim(info)
	return k, err
}

func (k *client) environ(r *rig) []string {
	return append(r.env(r.home), "CLAUDEMESH_SESSION_ID="+k.info.ID, "CLAUDEMESH_IPC_TOKEN_FILE="+k.info.TokenFile, "CLAUDEMESH_MESH="+k.info.Mesh)
}

// hook runs one hook of the client.
func (r *rig) hook(k *client, event, verb string) error {
	c := exec.Command(r.bin, "hook", verb)
	c.Env = k.environ(r)
	in, err := json.Marshal(map[string]string{"hook_event_name": event, "session_id": "c-" + k.info.ID, "transcript_path": k.transcript, "cwd": r.home})
	if err != nil {
		return err
	}
	c.Stdin = bytes.NewReader(in)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("hook %s: %w: %s", event, err, out)
	}
	return nil
}

// show plays the client: every message that is notified is appended to the transcript.
func (k *client) show() error {
	f, err := os.OpenFile(k.transcript, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for id := range k.shim.ids {
		if _, err := fmt.Fprintf(f, "{\"type\":\"user\",\"content\":\"<channel source=\\\"claudemesh\\\" message_id=\\\"%s\\\">\"}\n", id); err != nil {
			return err
		}
	}
	return nil
}

// hooks measures whole hook processes, beside a program that does nothing.
func (r *rig) hooks() error {
	k, err := r.client("hooked")
	if err != nil {
		return err
	}
	hello := filepath.Join(r.home, "hello", "hello")
	if _, err := os.Stat(hello); err != nil {
		if hello, err = r.buildHello(); err != nil {
			return err
		}
	}
	var drain, nothing sample
	for range r.n(200) {
		d, err := timed(func() error { return r.hook(k, "PostToolUse", "drain") })
		if err != nil {
			return err
		}
		drain = append(drain, d)
		if d, err = timed(exec.Command(hello).Run); err != nil {
			return err
		}
		nothing = append(nothing, d)
	}
	row("hook drain, the whole process", "p50 %s  p99 %s  (aim < 15 ms); %.2f times a hello-world binary", ms(drain.median()), ms(drain.at(0.99)), float64(drain.median())/float64(nothing.median()))

	w := exec.Command(r.bin, "hook", "wait")
	w.Env, w.Stdin = k.environ(r), strings.NewReader(`{"hook_event_name":"Stop"}`)
	if err := w.Start(); err != nil {
		return err
	}
	r.procs = append(r.procs, w)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		var list bus.SessionList
		if err := r.do(r.user, bus.DaemonSubject(bus.User, bus.OpSessionList), nil, &list); err != nil {
			return err
		}
		for _, s := range list.Sessions {
			if s.ID == k.info.ID && s.Wake != nil && s.Wake.Waiting {
				waits, err := rss(w.Process.Pid)
				if err != nil {
					return err
				}
				shimSize, err := rss(k.shim.cmd.Process.Pid)
				if err != nil {
					return err
				}
				row("RSS of a hook that waits, of a shim", "%.1f MB, %.1f MB", waits, shimSize)
				return r.shimStart()
			}
		}
	}
	return fmt.Errorf("no hook waits")
}

// shimStart measures from exec to the answer to initialize.
func (r *rig) shimStart() error {
	var s sample
	for i := range r.n(50) {
		info, err := r.session(fmt.Sprintf("starts-%d", i))
		if err != nil {
			return err
		}
		d, err := timed(func() error { _, err := r.shim(info); return err })
		if err != nil {
			return err
		}
		s = append(s, d)
	}
	row("shim, from exec to initialized", "p50 %s  p99 %s", ms(s.median()), ms(s.at(0.99)))
	return nil
}

// surfaced measures from a send request until its sender knows that the message is before the recipient's model.
func (r *rig) surfaced() error {
	k, err := r.client("shown")
	if err != nil {
		return err
	}
	var shows sync.WaitGroup
	shows.Go(func() { _ = k.show() })
	defer shows.Wait()
	defer k.shim.cmd.Process.Kill()
	heard := make(chan bus.Receipt, 4096)
	sub, err := r.user.Subscribe(bus.ReceiptSubject(r.mesh, bus.User, "*"), func(m *nats.Msg) {
		var rc bus.Receipt
		if json.Unmarshal(m.Data, &rc) == nil {
			heard <- rc
		}
	})
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }()
	send := func(text string) error {
		var reply bus.SendReply
		if err := r.do(r.user, bus.SendSubject(r.mesh, bus.User, "dm"), bus.SendRequest{To: k.info.Pubkey, Body: text, Priority: "now"}, &reply); err != nil {
			return err
		}
		limit := time.After(30 * time.Second)
		for {
			select {
			case rc := <-heard:
				if rc.ClientMessageID == reply.ClientMessageID && rc.State == bus.StateSurfaced {
					return nil
				}
			case <-limit:
				return fmt.Errorf("no receipt for %q within 30 s", text)
			}
		}
	}
	if err := send("warm up"); err != nil {
		return err
	}
	var lat sample
	for i := range r.n(300) {
		d, err := timed(func() error { return send(fmt.Sprint("message ", i)) })
		if err != nil {
			return err
		}
		lat = append(lat, d)
	}
	row("send → known to be surfaced (transcript)", "p50 %s  p99 %s", ms(lat.median()), ms(lat.at(0.99)))
	return nil
}

// fifty measures the daemon with 50 sessions that each have a shim.
func (r *rig) fifty() error {
	var shims []*shim
	for i := range 50 {
		info, err := r.session(fmt.Sprintf("crowd-%d", i))
		if err != nil {
			return err
		}
		s, err := r.shim(info)
		if err != nil {
			return err
		}
		shims = append(shims, s)
	}
	figures, err := r.atRest()
	if err != nil {
		return err
	}
	report("daemon with 50 sessions and their shims", figures)
	for _, s := range shims {
		_ = s.cmd.Process.Kill()
	}
	return nil
}

// launches measures what launch adds in front of the client, beside the client alone.
func (r *rig) launches() error {
	bin := filepath.Join(r.home, "client")
	if err := os.WriteFile(bin, []byte("#!/bin/sh\nexit 0\n"), 0o700); err != nil {
		return err
	}
	var through, alone sample
	for i := range r.n(100) {
		c := exec.Command(r.bin, "launch", r.mesh, "--name", fmt.Sprintf("launched-%d", i), "--quiet")
		c.Env = append(r.env(r.home), "CLAUDE_BIN="+bin)
		d, err := timed(c.Run)
		if err != nil {
			return fmt.Errorf("launch: %w", err)
		}
		through = append(through, d)
		if d, err = timed(exec.Command(bin).Run); err != nil {
			return err
		}
		alone = append(alone, d)
	}
	row("launch: overhead, start and end of the session", "p50 %s  p99 %s  (aim < 100 ms; reference over 2 s)", ms(through.median()-alone.median()), ms(through.at(0.99)-alone.median()))
	return nil
}
