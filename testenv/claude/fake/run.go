//go:build unix

package fake

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
)

// version is what this client says it is.
const version = "2.1.330"

// EnvChannels switches channel messages on, as the vendor's switch does.
const EnvChannels = "CLAUDE_FAKE_CHANNELS"

// Main is the program: it returns the exit code.
func Main() int {
	a, err := parseArgs(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if a.version {
		fmt.Println(version + " (Claude Code)")
		return 0
	}
	code, err := run(a)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// run is the client from its start to its end.
func run(a args) (int, error) {
	cwd, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	home := os.Getenv("HOME")
	hooks, err := loadHooks(home, cwd, a.settings)
	if err != nil {
		return 0, err
	}
	servers, err := loadServers(home, a)
	if err != nil {
		return 0, err
	}
	id, source, history, err := conversation(home, cwd, a)
	if err != nil {
		return 0, err
	}
	log := io.Discard
	if a.debugFile != "" {
		f, err := os.OpenFile(a.debugFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		log = f
	}
	var mu sync.Mutex
	line := func(w io.Writer, prefix string) func(string, ...any) {
		return func(format string, args ...any) {
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintf(w, prefix+format+"\n", args...)
		}
	}
	s := &session{
		home: home, cwd: cwd, env: os.Environ(), queue: newQueue(), screen: line(os.Stdout, ""), debug: line(log, "[DEBUG] "), servers: map[string]*mcpServer{},
		model: api{url: os.Getenv("ANTHROPIC_BASE_URL"), key: os.Getenv("ANTHROPIC_API_KEY"), system: "You are a scripted client. " + a.appendSystem},
	}
	s.hooks = &hookRunner{groups: hooks, dir: cwd, waiting: map[*exec.Cmd]bool{}, wake: s.woken}
	closeInbox, err := s.openInbox()
	if err != nil {
		return 0, err
	}
	defer closeInbox()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP)
	// Ctrl-C twice is the user's way out of the real one; here once, and only from outside of the terminal, as launchers send it.
	signal.Notify(signals, syscall.SIGINT)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		n := <-signals
		s.queue.push(item{kind: kindControl, text: fmt.Sprint("!exit ", 128+int(n.(syscall.Signal)))})
		cancel()
	}()

	s.id = id
	s.screen("Claude Code v%s (scripted)", version)
	s.connectServers(ctx, servers, a)
	s.begin(ctx, id, source, history)
	s.screen("❯ ")
	go s.readLines(os.Stdin)
	return s.loop(ctx), nil
}

// conversation decides which conversation this is.
func conversation(home, cwd string, a args) (id, source string, history []message, err error) {
	if a.cont {
		if a.resume = lastSession(home, cwd); a.resume == "" {
			return "", "", nil, fmt.Errorf("No conversation found to continue")
		}
	}
	if a.resume != "" {
		history, err := newTranscript(home, cwd, a.resume).history()
		if err != nil {
			return "", "", nil, fmt.Errorf("No conversation found with session ID: %s", a.resume)
		}
		return a.resume, "resume", history, nil
	}
	if a.session == "" {
		return uuid.NewString(), "startup", nil, nil
	}
	if newTranscript(home, cwd, a.session).known() {
		return "", "", nil, fmt.Errorf("Error: Session ID %s is already in use.", a.session)
	}
	return a.session, "startup", nil, nil
}

// connectServers starts all servers; one that cannot start is noted, and the session goes on.
func (s *session) connectServers(ctx context.Context, servers map[string]server, a args) {
	var wait sync.WaitGroup
	var mu sync.Mutex
	for name, conf := range servers {
		wait.Go(func() {
			m := newServer(name, s.debug, s.channel(name, a))
			if err := m.start(conf, s.cwd, s.environ("CLAUDE_PROJECT_DIR="+s.cwd)); err != nil {
				s.debug("MCP server %q: Connection failed: %v", name, err)
				return
			}
			if err := m.connect(ctx); err != nil {
				s.debug("MCP server %q: Connection failed: %v", name, err)
				m.stop()
				return
			}
			s.debug("MCP server %q: Successfully connected", name)
			mu.Lock()
			s.servers[name] = m
			mu.Unlock()
		})
	}
	wait.Wait()
	for _, m := range s.servers {
		if m.instructions != "" {
			s.instructions = append(s.instructions, "# MCP Server Instructions\n\n## "+m.name+"\n"+m.instructions)
		}
	}
}

// channel is what becomes of a server's channel messages, nil when they are dropped.
func (s *session) channel(name string, a args) func(string, map[string]string) {
	asked := false
	for _, c := range a.channels {
		asked = asked || c == "server:"+name
	}
	if !asked {
		return nil
	}
	if os.Getenv(EnvChannels) != "on" {
		s.screen("--dangerously-load-development-channels ignored (server:%s)\nChannels are not currently available", name)
		s.debug("MCP server %q: Channel notifications skipped: channels feature is not currently available", name)
		return nil
	}
	s.debug("MCP server %q: Channel notifications registered", name)
	return func(content string, meta map[string]string) {
		s.enqueue(item{kind: kindChannel, from: name, text: channelTag(name, content, meta)})
	}
}

// woken is told the last words of a waiting hook.
func (s *session) woken(hookName, stderr string) {
	s.enqueue(item{kind: kindWake, from: hookName, text: notification(hookName, stderr)})
}

// enqueue notes in the transcript that something waits, as the real client does before the model knows anything of it.
func (s *session) enqueue(it item) {
	s.record().write(object{"type": "queue-operation", "operation": "enqueue", "content": it.text})
	s.queue.push(it)
}

// openInbox opens the socket on which other programs of the user write to the session.
func (s *session) openInbox() (closed func(), err error) {
	dir := filepath.Join(os.TempDir(), "cc-socks")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s.socket = filepath.Join(dir, strconv.Itoa(os.Getpid())+".sock")
	l, err := net.Listen("unix", s.socket)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.readInbox(c)
		}
	}()
	return func() { _ = l.Close() }, nil
}

func (s *session) readInbox(c net.Conn) {
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	lines := bufio.NewScanner(c)
	lines.Buffer(make([]byte, 4<<10), 1<<20)
	for lines.Scan() {
		var m struct {
			Type    string `json:"type"`
			Message struct {
				Content string `json:"content"`
			} `json:"message"`
		}
		if json.Unmarshal(lines.Bytes(), &m) == nil && m.Type == "user" && m.Message.Content != "" {
			s.enqueue(item{kind: kindInbox, text: m.Message.Content})
		}
	}
}

// readLines is the user at the keyboard; a terminal that is closed ends the client.
func (s *session) readLines(in io.Reader) {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 4<<10), 1<<20)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == "":
		case strings.HasPrefix(line, "!"), line == "/exit", line == "/clear":
			s.queue.push(item{kind: kindControl, text: line})
		default:
			s.queue.push(item{kind: kindTyped, text: line})
		}
	}
	s.queue.push(item{kind: kindControl, text: "!exit 0"})
}

// loop is the session's life; it returns the exit code.
func (s *session) loop(ctx context.Context) int {
	for {
		it := s.queue.next()
		if it.kind != kindControl {
			if it.kind == kindTyped {
				it.text = s.expandPrompt(ctx, it.text)
			}
			s.turn(ctx, it)
			s.screen("❯ ")
			continue
		}
		word, rest, _ := strings.Cut(it.text, " ")
		switch word {
		case "/clear":
			s.clear(ctx)
			s.screen("❯ ")
		case "!notify":
			s.runHooks(ctx, "Notification", "", object{"notification_type": rest, "message": "Claude needs your attention"})
		case "/exit":
			s.end("prompt_input_exit")
			return 0
		case "!exit":
			code, _ := strconv.Atoi(rest)
			s.end("other")
			return code
		}
	}
}

// end is the goodbye, in the order that was seen: waiting hooks, the interrupt to the servers, the hooks of SessionEnd.
func (s *session) end(reason string) {
	s.hooks.stop()
	var wait sync.WaitGroup
	for _, m := range s.servers {
		wait.Go(m.stop)
	}
	s.runHooks(context.Background(), "SessionEnd", "", object{"reason": reason})
	wait.Wait()
	s.screen("\nResume this session with:\nclaude --resume %s", s.id)
}

// expandPrompt is what a typed line becomes that names a prompt or a resource of a server.
func (s *session) expandPrompt(ctx context.Context, line string) string {
	if rest, ok := strings.CutPrefix(line, "/mcp__"); ok {
		words := strings.Fields(rest)
		name, prompt, _ := strings.Cut(words[0], "__")
		if m := s.servers[name]; m != nil {
			if text, err := m.prompt(ctx, prompt, words[1:]); err == nil {
				return text
			}
		}
		return "Unknown command: " + line
	}
	for _, word := range strings.Fields(line) {
		name, uri, ok := strings.Cut(strings.TrimPrefix(word, "@"), ":")
		if m := s.servers[name]; ok && strings.HasPrefix(word, "@") && m != nil {
			if text, err := m.resource(ctx, uri); err == nil {
				s.context = append(s.context, "Full contents of resource:\n"+text)
			}
		}
	}
	return line
}
