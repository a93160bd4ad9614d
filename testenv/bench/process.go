package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"claudemesh/bus"
)

// machine prints what the figures depend on most: cores, and what one write and fsync costs.
func (r *rig) machine() error {
	f, err := os.Create(filepath.Join(r.home, "fsync"))
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 512)
	var s sample
	for range r.n(500) {
		d, err := timed(func() error {
			if _, err := f.Write(buf); err != nil {
				return err
			}
			return f.Sync()
		})
		if err != nil {
			return err
		}
		s = append(s, d)
	}
	row("machine", "%d cores, %s/%s, %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	row("one write of 512 B and fsync", "p50 %s  p99 %s", ms(s.median()), ms(s.at(0.99)))
	return nil
}

func (r *rig) size() error {
	info, err := os.Stat(r.bin)
	if err != nil {
		return err
	}
	row("binary", "%.1f MB", float64(info.Size())/1e6)
	return nil
}

// start measures from exec of a foreground daemon to the first answer on its bus.
func (r *rig) start() error {
	if _, err := r.cmd("create", "start"); err != nil { // a daemon with a mesh and its broker, as a user has
		return err
	}
	if _, err := r.cmd("daemon", "down"); err != nil {
		return err
	}
	var ready, up sample
	for range r.n(20) {
		c := exec.Command(r.bin, "daemon", "up", "--foreground")
		c.Env = r.env(r.home)
		d, err := timed(func() error {
			if err := c.Start(); err != nil {
				return err
			}
			return r.waitAnswer()
		})
		if err != nil {
			return err
		}
		ready = append(ready, d)
		if _, err := r.cmd("daemon", "down"); err != nil {
			return err
		}
		_ = c.Wait()
		d, err = timed(func() error { _, err := r.cmd("daemon", "up"); return err })
		if err != nil {
			return err
		}
		up = append(up, d)
		if _, err := r.cmd("daemon", "down"); err != nil {
			return err
		}
	}
	row("daemon start to ready", "p50 %s  (aim < 150 ms)", ms(ready.median()))
	row("daemon up, the whole command", "p50 %s", ms(up.median()))
	return nil
}

func (r *rig) waitAnswer() error {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if !bus.Held(r.dir()) {
			continue
		}
		c, err := r.asUser()
		if err != nil {
			continue
		}
		err = r.do(c, bus.DaemonSubject(bus.User, bus.OpVersion), nil, nil)
		c.Close()
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("no daemon answered within 10 s")
}

// autoStart measures a first command that finds no daemon, beside the same command with one.
func (r *rig) autoStart() error {
	var cold, warm sample
	for range r.n(20) {
		d, err := timed(func() error { _, err := r.cmd("inbox", "--json"); return err })
		if err != nil {
			return err
		}
		cold = append(cold, d)
		if d, err = timed(func() error { _, err := r.cmd("inbox", "--json"); return err }); err != nil {
			return err
		}
		warm = append(warm, d)
		if _, err := r.cmd("daemon", "down"); err != nil {
			return err
		}
	}
	row("first command without a daemon", "p50 %s, with one %s: auto-start costs %s", ms(cold.median()), ms(warm.median()), ms(cold.median()-warm.median()))
	if err := os.RemoveAll(filepath.Join(r.home, ".claudemesh")); err != nil {
		return err
	}
	return nil
}

// oneShot measures whole send commands, interleaved with a Go program that does nothing and with node if there is one.
func (r *rig) oneShot() error {
	hello, err := r.buildHello()
	if err != nil {
		return err
	}
	others := map[string][]string{"hello-world Go binary": {hello}}
	if node, err := exec.LookPath("node"); err == nil {
		others["node -e 0"] = []string{node, "-e", "0"}
	}
	times := map[string]sample{}
	var send, peers sample
	if _, err := r.session("sink"); err != nil {
		return err
	}
	for i := range r.n(200) {
		d, err := timed(func() error { _, err := r.cmd("send", "sink", "hello "+strconv.Itoa(i)); return err })
		if err != nil {
			return err
		}
		send = append(send, d)
		if d, err = timed(func() error { _, err := r.cmd("peer", "list", "--json"); return err }); err != nil {
			return err
		}
		peers = append(peers, d)
		for name, argv := range others {
			d, err := timed(exec.Command(argv[0], argv[1:]...).Run)
			if err != nil {
				return err
			}
			times[name] = append(times[name], d)
		}
	}
	row("claudemesh send, the whole command", "p50 %s  p99 %s  (aim < 15 ms; reference 303 ms)", ms(send.median()), ms(send.at(0.99)))
	row("claudemesh peer list", "p50 %s  (reference 303 ms)", ms(peers.median()))
	for _, name := range []string{"hello-world Go binary", "node -e 0"} {
		if s := times[name]; len(s) > 0 {
			row("  beside it: "+name, "p50 %s; send takes %.2f times that", ms(s.median()), float64(send.median())/float64(s.median()))
		}
	}
	return nil
}

func (r *rig) buildHello() (string, error) {
	dir := filepath.Join(r.home, "hello")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	files := map[string]string{"go.mod": "module hello\n\ngo 1.26\n", "main.go": "package main\n\nfunc main() { println(\"hello\") }\n"}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	c := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", "hello", ".")
	c.Dir = dir
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build hello: %w: %s", err, out)
	}
	return filepath.Join(dir, "hello"), nil
}

// idleFresh measures a daemon with one mesh at rest.
func (r *rig) idleFresh() error {
	figures, err := r.atRest()
	if err != nil {
		return err
	}
	report("daemon idle", figures+"  (aim < 45 MB; reference 88 MiB)")
	return nil
}

// idleLoaded measures it again after the load: first as it is then, and started anew over what the load has left in its stores.
func (r *rig) idleLoaded() error {
	warm, err := r.atRest()
	if err != nil {
		return err
	}
	if _, err := r.cmd("daemon", "down"); err != nil {
		return err
	}
	r.user.Close()
	if _, err := r.cmd("daemon", "up"); err != nil {
		return err
	}
	if r.user, err = r.asUser(); err != nil {
		return err
	}
	if err := r.waitOpen(); err != nil {
		return err
	}
	cold, err := r.atRest()
	if err != nil {
		return err
	}
	var s bus.Status
	if err := r.do(r.user, bus.DaemonSubject(bus.User, bus.OpStatus), nil, &s); err != nil {
		return err
	}
	stored := 0
	for _, m := range s.Meshes {
		stored += m.Outbox["done"]
	}
	report("  after the load, a minute later", warm)
	report(fmt.Sprintf("  started over %d stored messages", stored), cold)
	return nil
}

// atRest waits until the daemon has come to rest and measures it for half a minute.
func (r *rig) atRest() (string, error) {
	settle, wait := 30*time.Second, 30*time.Second
	if r.quick {
		settle, wait = 12*time.Second, 5*time.Second
	}
	info, err := bus.ReadInfo(r.dir())
	if err != nil {
		return "", err
	}
	time.Sleep(settle)
	before, err := cpu(info.PID)
	if err != nil {
		return "not measured: " + err.Error(), nil // only Linux tells
	}
	time.Sleep(wait)
	after, err := cpu(info.PID)
	if err != nil {
		return "", err
	}
	size, err := rss(info.PID)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("RSS %.1f MB, CPU %.2f %% of a core over %s", size, 100*float64(after-before)/float64(wait), wait), nil
}

// rss is the resident size of a process in MB.
func rss(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.Atoi(strings.Fields(v)[0])
			return float64(kb) * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("no VmRSS in /proc/%d/status", pid)
}

// cpu is the processor time a process has used, in the kernel's ticks of 10 ms.
func cpu(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 13 {
		return 0, fmt.Errorf("short /proc/%d/stat", pid)
	}
	user, err := strconv.Atoi(f[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond, err
}
