package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"claudemesh/bus"
)

// rig is the machine under test: one HOME, one daemon, one mesh.
type rig struct {
	bin, home string
	options
	mesh  string
	user  *bus.Client
	procs []*exec.Cmd
}

func (r *rig) dir() string { return filepath.Join(r.home, ".claudemesh", "daemon") }

// n scales a number of repetitions.
func (r *rig) n(full int) int {
	if r.quick {
		return max(full/10, 3)
	}
	return full
}

func (r *rig) env(home string) []string {
	env := []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "USER=bench", "NO_COLOR=1"}
	return env
}

// cmd runs the binary to its end and returns what it printed.
func (r *rig) cmd(args ...string) (string, error) {
	c := exec.Command(r.bin, args...)
	c.Env = r.env(r.home)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s%s", filepath.Base(r.bin), strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String(), nil
}

func (r *rig) close() {
	if r.user != nil {
		r.user.Close()
	}
	for _, p := range r.procs {
		_ = p.Process.Kill()
		_ = p.Wait()
	}
	_, _ = r.cmd("daemon", "down")
	_ = os.RemoveAll(r.home)
}

func (r *rig) connect(tokenFile, actor string) (*bus.Client, error) {
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return bus.Connect(ctx, bus.ClientConfig{Dir: r.dir(), Token: strings.TrimSpace(string(token)), Actor: actor, Name: "bench"})
}

func (r *rig) asUser() (*bus.Client, error) {
	return r.connect(filepath.Join(r.dir(), "local-token"), bus.User)
}

func (r *rig) do(c *bus.Client, subject string, in, out any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	return c.Do(ctx, subject, in, out)
}

// setUp leaves a daemon with one mesh running.
func (r *rig) setUp() (err error) {
	if r.user != nil {
		return nil // an earlier part has done it
	}
	if _, err := r.cmd("create", "team"); err != nil {
		return err
	}
	r.mesh = "team"
	if r.user, err = r.asUser(); err != nil {
		return err
	}
	return r.waitOpen()
}

func (r *rig) waitOpen() error {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		var s bus.Status
		if err := r.do(r.user, bus.DaemonSubject(bus.User, bus.OpStatus), nil, &s); err != nil {
			return err
		}
		if len(s.Meshes) > 0 && s.Meshes[0].Link == "open" {
			return nil
		}
	}
	return errors.New("the mesh's link did not open")
}

// sample is a set of durations.
type sample []time.Duration

func (s sample) at(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	t := slices.Clone(s)
	slices.Sort(t)
	return t[min(int(q*float64(len(t))), len(t)-1)]
}

func (s sample) median() time.Duration { return s.at(0.5) }

// ms prints a duration as milliseconds with as many digits as matter.
func ms(d time.Duration) string {
	v := float64(d) / float64(time.Millisecond)
	switch {
	case v < 1:
		return fmt.Sprintf("%.3f ms", v)
	case v < 10:
		return fmt.Sprintf("%.2f ms", v)
	default:
		return fmt.Sprintf("%.1f ms", v)
	}
}

func row(name, format string, a ...any) { report(name, fmt.Sprintf(format, a...)) }

func report(name, text string) { fmt.Printf("%-46s %s\n", name, text) }

// timed is how long f takes.
func timed(f func() error) (time.Duration, error) {
	begin := time.Now()
	err := f()
	return time.Since(begin), err
}
