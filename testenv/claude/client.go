//go:build unix

package claude

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/creack/pty"

	"claudemesh/testenv"
)

// beforeEnter is what the real client needs between a text and Enter: what comes in one go is taken for pasted.
const beforeEnter = 150 * time.Millisecond

// Client is a program on a terminal of its own: the client, or what starts it. Its methods belong to the test's goroutine.
type Client struct {
	t     testing.TB
	home  *Home
	cmd   *exec.Cmd
	tty   *os.File
	ended chan struct{} // closed when the program is gone and its screen was read
	err   error         // of its end

	mu     sync.Mutex
	screen []byte
	drawn  chan struct{} // one for each piece drawn
}

// Start runs the client with these arguments, in bypass mode, and returns when it is ready.
func (h *Home) Start(args ...string) *Client {
	h.T.Helper()
	c := h.Run(append([]string{h.Client()}, h.ClientArgs(args...)...)...)
	c.WaitReady()
	return c
}

// ClientArgs are the arguments that every client is started with, and some more.
func (h *Home) ClientArgs(args ...string) []string {
	return append([]string{"--permission-mode", "bypassPermissions", "--debug-file", h.DebugFile()}, args...)
}

// Run starts a program on a terminal, in the project, as the leader of a session; it is killed with all that is still in its group when the test ends.
func (h *Home) Run(argv ...string) *Client {
	h.T.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = h.Project, h.Environ()
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 50, Cols: 160})
	if err != nil {
		h.T.Fatalf("start %s: %v", argv[0], err)
	}
	c := &Client{t: h.T, home: h, cmd: cmd, tty: tty, ended: make(chan struct{}), drawn: make(chan struct{}, 1)}
	go c.watch()
	h.T.Cleanup(func() {
		c.Kill()
		if h.T.Failed() {
			h.T.Logf("screen of %v:\n%s", argv, tail(c.Screen(), 4000))
		}
	})
	return c
}

// watch owns the terminal and the process until both are at their end.
func (c *Client) watch() {
	defer close(c.ended)
	buf := make([]byte, 64<<10)
	for {
		n, err := c.tty.Read(buf)
		c.mu.Lock()
		c.screen = append(c.screen, buf[:n]...)
		c.mu.Unlock()
		if strings.Contains(string(buf[:n]), "\x1b[c") {
			_, _ = c.tty.WriteString("\x1b[?62c") // it asks what terminal this is, and waits
		}
		select {
		case c.drawn <- struct{}{}:
		default:
		}
		if err != nil {
			break
		}
	}
	c.err = c.cmd.Wait()
	c.tty.Close()
}

// Screen is everything drawn so far, without the control sequences.
func (c *Client) Screen() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return ansi.Strip(string(c.screen))
}

// WaitScreen waits until a text was drawn. Blanks do not count: the real client moves the cursor instead of drawing them.
func (c *Client) WaitScreen(text string) {
	c.t.Helper()
	want := squeeze(text)
	testenv.Wait(c.t, "the screen to show "+text, c.drawn, func() bool {
		shown := strings.Contains(squeeze(c.Screen()), want)
		if !shown && c.gone() {
			c.t.Fatalf("the client ended (%v) before it showed %q", c.err, text)
		}
		return shown
	})
}

// WaitReady waits for the prompt sign.
func (c *Client) WaitReady() {
	c.t.Helper()
	c.WaitScreen("❯")
}

// Prompt types a line, waits until the client has drawn it, and enters it.
func (c *Client) Prompt(text string) {
	c.t.Helper()
	c.mu.Lock()
	from := len(c.screen)
	c.mu.Unlock()
	c.Type(text)
	want := squeeze(text)
	testenv.Wait(c.t, "the screen to show what is typed: "+text, c.drawn, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return strings.Contains(squeeze(ansi.Strip(string(c.screen[from:]))), want)
	})
	pause := time.NewTimer(beforeEnter)
	defer pause.Stop()
	<-pause.C
	c.Type("\r")
}

// Type types keys.
func (c *Client) Type(keys string) {
	c.t.Helper()
	if _, err := c.tty.WriteString(keys); err != nil {
		c.t.Fatalf("type %q: %v", keys, err)
	}
}

// PID is the process's id.
func (c *Client) PID() int { return c.cmd.Process.Pid }

// Exit leaves the client as a user does and returns its exit code.
func (c *Client) Exit() int {
	c.t.Helper()
	c.Prompt("/exit")
	return c.WaitEnd()
}

// WaitEnd waits for the end of the program and returns its exit code, -1 when a signal ended it.
func (c *Client) WaitEnd() int {
	c.t.Helper()
	select {
	case <-c.ended:
	case <-time.After(testenv.Patience):
		c.t.Fatalf("the client does not end; its screen:\n%s", tail(c.Screen(), 2000))
	}
	var exit *exec.ExitError
	if errors.As(c.err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

// Signal sends a signal to the program alone.
func (c *Client) Signal(s syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatalf("send %v: %v", s, err)
	}
}

// Kill ends the program and its group as kill -9 does, and returns when it is gone.
func (c *Client) Kill() {
	if !c.gone() {
		_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
		_ = c.cmd.Process.Kill()
	}
	<-c.ended
}

func (c *Client) gone() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

func squeeze(s string) string { return strings.Join(strings.Fields(s), "") }

func tail(s string, n int) string { return s[max(0, len(s)-n):] }
