package testenv

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"claudemesh/daemon"
)

// childEnv makes a test binary run a job instead of its tests; its value is the job as JSON.
const childEnv = "CLAUDEMESH_TESTENV_CHILD"

// childJob is what a child process is to be: a daemon, or with DataDir a standalone broker.
type childJob struct {
	Dir, ConfigDir, DisplayName string
	DataDir, Listen             string
}

// RunIfChild runs the job of a child process and ends the process; in any other process it does nothing. TestMain of every package that uses Process or
// BrokerProcess calls it first.
func RunIfChild() {
	if text := os.Getenv(childEnv); text != "" {
		os.Exit(runChild(text))
	}
}

// runChild serves until its standard input ends: when the test closes it, and also when the test's process is gone.
func runChild(text string) int {
	var j childJob
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		fmt.Fprintln(os.Stderr, "read job:", err)
		return 2
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	o := daemon.Options{
		// Tests and figures send thousands of messages from one session to one peer.
		PairRate: -1, PairReplies: -1,
		Dir: j.Dir, ConfigDir: j.ConfigDir, DisplayName: j.DisplayName, NoTCP: true, Version: "0.0.0-test",
		Log: slog.New(slog.NewJSONHandler(os.Stderr, nil)),
	}
	var err error
	if j.DataDir == "" {
		err = daemon.Run(ctx, o)
	} else {
		err = daemon.ServeBroker(ctx, daemon.BrokerOptions{
			Options: o, DataDir: j.DataDir, Listen: j.Listen, Ready: func(i daemon.BrokerInfo) { fmt.Println(i.Listen) },
		})
	}
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		return 1
	}
	return 0
}

// child is one operating system process at a time that runs a job, and the log of all of them. Its methods belong to the test's goroutine.
type child struct {
	t    testing.TB
	home string
	log  *Log

	mu    sync.Mutex
	cmd   *exec.Cmd
	stdin io.Closer
	lines <-chan string   // what it printed
	ended <-chan struct{} // closed when the process is gone
	asked bool            // its end was asked for
}

func newChild(t testing.TB, home string, log *Log) *child {
	c := &child{t: t, home: home, log: log}
	t.Cleanup(func() {
		c.stop()
		if strings.Contains(log.String(), "DATA RACE") {
			t.Errorf("data race in a child process of %s", home)
		}
		if t.Failed() {
			t.Logf("log of the processes of %s:\n%s", home, log.Tail(60))
		}
	})
	return c
}

// spawn starts the process; it fails the test when one runs already.
func (c *child) spawn(job childJob) {
	c.t.Helper()
	if c.running() {
		c.t.Fatalf("a process of %s runs already", c.home)
	}
	exe, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	text, err := json.Marshal(job)
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Dir, cmd.Stderr = c.home, c.log
	// Without the last one, a process built with the race detector takes a second to end.
	cmd.Env = append(os.Environ(), "HOME="+c.home, childEnv+"="+string(text), "GORACE=atexit_sleep_ms=0")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	out, printed, err := os.Pipe()
	if err != nil {
		c.t.Fatal(err)
	}
	cmd.Stdout = printed
	err = cmd.Start()
	printed.Close()
	if err != nil {
		c.t.Fatalf("start child: %v", err)
	}
	lines, ended := make(chan string, 16), make(chan struct{})
	c.mu.Lock()
	c.cmd, c.stdin, c.lines, c.ended, c.asked = cmd, stdin, lines, ended, false
	c.mu.Unlock()
	go c.watch(cmd, out, lines, ended)
}

// watch owns one process until it is gone.
func (c *child) watch(cmd *exec.Cmd, out io.ReadCloser, lines chan<- string, ended chan<- struct{}) {
	defer close(ended)
	for s := bufio.NewScanner(out); s.Scan(); {
		select {
		case lines <- s.Text():
		default:
		}
	}
	out.Close()
	err := cmd.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.asked {
		c.t.Errorf("a process of %s ended by itself: %v", c.home, err)
	}
}

func (c *child) running() bool {
	if c.ended == nil {
		return false
	}
	select {
	case <-c.ended:
		return false
	default:
		return true
	}
}

// PID is the process's id, 0 when none was started.
func (c *child) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cmd == nil {
		return 0
	}
	return c.cmd.Process.Pid
}

func (c *child) ask() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = true
}

// kill ends the process as kill -9 does and returns when it is gone.
func (c *child) kill() {
	if !c.running() {
		return
	}
	c.ask()
	_ = c.cmd.Process.Kill()
	<-c.ended
}

// stop asks the process to end in good order and returns when it is gone.
func (c *child) stop() {
	if !c.running() {
		return
	}
	c.ask()
	_ = resume(c.cmd.Process) // one that is paused would not hear
	c.stdin.Close()
	<-c.ended
}

// Pause stops the process as SIGSTOP does: it lives, holds its lock and its sockets, and answers nothing.
func (c *child) Pause() {
	c.t.Helper()
	if err := pause(c.cmd.Process); err != nil {
		c.t.Fatalf("pause child: %v", err)
	}
}

// Resume ends a Pause.
func (c *child) Resume() {
	c.t.Helper()
	if err := resume(c.cmd.Process); err != nil {
		c.t.Fatalf("resume child: %v", err)
	}
}

// BrokerProcess is a standalone broker in a process of its own. It keeps its port over restarts.
type BrokerProcess struct {
	*child
	Addr string // host:port
	job  childJob
}

// NewBrokerProcess starts a broker; it and its data end with the test.
func NewBrokerProcess(t testing.TB) *BrokerProcess {
	t.Helper()
	home := TempDir(t)
	b := &BrokerProcess{child: newChild(t, home, &Log{}), job: childJob{DataDir: filepath.Join(home, "broker"), Listen: "127.0.0.1:0"}}
	b.Start()
	return b
}

// URL is the broker's WebSocket address.
func (b *BrokerProcess) URL() string { return "ws://" + b.Addr + "/ws" }

// AdminTokenFile is the file of the token that creates meshes.
func (b *BrokerProcess) AdminTokenFile() string {
	return filepath.Join(b.job.DataDir, daemon.AdminTokenFile)
}

// Start starts the broker and returns when its port is open.
func (b *BrokerProcess) Start() {
	b.t.Helper()
	b.spawn(b.job)
	select {
	case b.Addr = <-b.lines:
		b.job.Listen = b.Addr
	case <-b.ended:
		b.t.Fatalf("the broker did not start:\n%s", b.log.Tail(20))
	case <-after(Patience):
		b.t.Fatal("the broker did not open its port")
	}
}

// Kill ends the broker as kill -9 does.
func (b *BrokerProcess) Kill() { b.kill() }

// Stop ends the broker in good order.
func (b *BrokerProcess) Stop() { b.stop() }
