//go:build unix

package fake

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// maxLine is the longest line that a server may write.
const maxLine = 16 << 20

// Times of the real client with its servers.
const (
	answerLimit = 3 * time.Second        // for the probe; then initialize is sent all the same
	startLimit  = 30 * time.Second       // for the first answers
	termAfter   = 100 * time.Millisecond // between the interrupt and the end
	killAfter   = 4 * time.Second
)

// mcpServer is a server that runs, and what it offers.
type mcpServer struct {
	name  string
	debug func(format string, args ...any)
	heard func(content string, meta map[string]string) // a channel message; nil: they are dropped

	cmd   *exec.Cmd
	in    io.WriteCloser
	ended chan struct{}

	mu           sync.Mutex
	next         int
	calls        map[string]chan rpc
	initialized  bool
	instructions string
	Tools        []string
	Prompts      []string
	Resources    []string
	relist       sync.WaitGroup
}

// rpc is any message of JSON-RPC.
type rpc struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

func newServer(name string, debug func(string, ...any), heard func(string, map[string]string)) *mcpServer {
	return &mcpServer{name: name, debug: debug, heard: heard, calls: map[string]chan rpc{}, ended: make(chan struct{})}
}

// start starts the server's process and begins to read; connect does the rest.
func (s *mcpServer) start(conf server, dir string, env []string) error {
	getenv := func(k string) string {
		for i := len(env) - 1; i >= 0; i-- {
			if v, ok := strings.CutPrefix(env[i], k+"="); ok {
				return v
			}
		}
		return ""
	}
	args := make([]string, len(conf.Args))
	for i, a := range conf.Args {
		args[i] = expand(a, getenv)
	}
	s.cmd = exec.Command(expand(conf.Command, getenv), args...)
	if !strings.Contains(s.cmd.Path, "/") { // found by the PATH of the client, which need not be this process's
		if path, err := lookPath(s.cmd.Path, getenv("PATH")); err == nil {
			s.cmd.Path, s.cmd.Err = path, nil
		}
	}
	s.cmd.Dir = dir
	s.cmd.Env = append([]string{}, env...)
	for k, v := range conf.Env {
		s.cmd.Env = append(s.cmd.Env, k+"="+expand(v, getenv))
	}
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	go s.read(out)
	return nil
}

func lookPath(name, path string) (string, error) {
	for _, dir := range strings.Split(path, ":") {
		if info, err := os.Stat(dir + "/" + name); err == nil && info.Mode()&0o111 != 0 && !info.IsDir() {
			return dir + "/" + name, nil
		}
	}
	return "", exec.ErrNotFound
}

// read owns the server's output until it ends.
func (s *mcpServer) read(out io.Reader) {
	defer close(s.ended)
	lines := bufio.NewScanner(out)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	for lines.Scan() {
		var m rpc
		if json.Unmarshal(lines.Bytes(), &m) != nil {
			continue
		}
		switch {
		case m.Method == "" && len(m.ID) > 0:
			s.mu.Lock()
			answer := s.calls[string(m.ID)]
			delete(s.calls, string(m.ID))
			s.mu.Unlock()
			if answer != nil {
				answer <- m
			}
		case m.Method == "ping" && len(m.ID) > 0:
			_ = s.write(rpc{ID: m.ID, Result: json.RawMessage("{}")})
		case m.Method == "roots/list" && len(m.ID) > 0:
			_ = s.write(rpc{ID: m.ID, Result: json.RawMessage(`{"roots":[]}`)})
		default:
			s.notified(m)
		}
	}
	if lines.Err() != nil {
		s.debug("MCP server %q: wrote >16MB to stdout without a JSON-RPC message boundary", s.name)
	}
	_ = s.cmd.Wait()
	s.debug("MCP server %q: transport closed", s.name)
}

func (s *mcpServer) notified(m rpc) {
	kind, changed := strings.CutSuffix(m.Method, "/list_changed")
	switch {
	case changed:
		kind = strings.TrimPrefix(kind, "notifications/")
		s.relist.Go(func() { _ = s.list(context.Background(), kind) })
	case m.Method == "notifications/claude/channel":
		var p struct {
			Content *string           `json:"content"`
			Meta    map[string]string `json:"meta"`
		}
		// As the real client: a value that is not a string makes the whole notification invalid.
		if err := json.Unmarshal(m.Params, &p); err != nil || p.Content == nil {
			s.debug("MCP server %q: invalid channel notification", s.name)
			return
		}
		s.mu.Lock()
		ready := s.initialized
		s.mu.Unlock()
		if s.heard != nil && ready {
			s.heard(*p.Content, p.Meta)
		}
	}
}

func (s *mcpServer) write(m rpc) error {
	m.Version = "2.0"
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err = s.in.Write(append(b, '\n'))
	return err
}

// call asks and waits for the answer.
func (s *mcpServer) call(ctx context.Context, id any, method string, params any) (json.RawMessage, error) {
	if id == nil {
		s.mu.Lock()
		id = s.next
		s.next++
		s.mu.Unlock()
	}
	rawID, err := json.Marshal(id)
	if err != nil {
		return nil, err
	}
	rawParams, err := json.Marshal(params)
	if err != nil {
		return nil, err
	}
	answer := make(chan rpc, 1)
	s.mu.Lock()
	s.calls[string(rawID)] = answer
	s.mu.Unlock()
	if err := s.write(rpc{ID: rawID, Method: method, Params: rawParams}); err != nil {
		return nil, err
	}
	select {
	case m := <-answer:
		if m.Error != nil {
			return nil, fmt.Errorf("%s: %s (%d)", method, m.Error.Message, m.Error.Code)
		}
		return m.Result, nil
	case <-s.ended:
		return nil, fmt.Errorf("%s: the server has ended", method)
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", method, ctx.Err())
	}
}

// connect is the opening of the real client, from the probe to the lists.
func (s *mcpServer) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	probe, done := context.WithTimeout(ctx, answerLimit)
	_, err := s.call(probe, "server-discover-probe-1", "server/discover", object{"_meta": object{"io.modelcontextprotocol/protocolVersion": "2026-07-28"}})
	done()
	if err == nil {
		return errors.New("it answered server/discover: this client takes no such server to be one with channels")
	}
	raw, err := s.call(ctx, nil, "initialize", object{
		"protocolVersion": "2025-11-25", "clientInfo": object{"name": "claude-code", "version": version},
		"capabilities": object{"roots": object{"listChanged": true}, "elicitation": object{"form": object{}, "url": object{}}},
	})
	if err != nil {
		return err
	}
	var r struct {
		Version      string `json:"protocolVersion"`
		Instructions string `json:"instructions"`
		Capabilities struct {
			Tools, Prompts, Resources *struct{}
			Experimental              map[string]any `json:"experimental"`
		} `json:"capabilities"`
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return fmt.Errorf("initialize: %w", err)
	}
	s.instructions = r.Instructions[:min(len(r.Instructions), 2<<10)]
	if r.Capabilities.Experimental["claude/channel"] == nil {
		s.heard = nil
	}
	if err := s.write(rpc{Method: "notifications/initialized"}); err != nil {
		return err
	}
	s.mu.Lock()
	s.initialized = true
	s.mu.Unlock()
	for _, l := range []struct {
		kind    string
		offered bool
	}{{"tools", r.Capabilities.Tools != nil}, {"prompts", r.Capabilities.Prompts != nil}, {"resources", r.Capabilities.Resources != nil}} {
		if l.offered {
			if err := s.list(ctx, l.kind); err != nil {
				return err
			}
		}
	}
	return nil
}

// list asks for all tools, prompts or resources.
func (s *mcpServer) list(ctx context.Context, kind string) error {
	var names []string
	for cursor, first := "", true; first || cursor != ""; first = false {
		params := object{}
		if cursor != "" {
			params["cursor"] = cursor
		}
		raw, err := s.call(ctx, nil, kind+"/list", params)
		if err != nil {
			return err
		}
		var r struct {
			Tools, Prompts []struct{ Name string }
			Resources      []struct{ URI string }
			NextCursor     string
		}
		if err := json.Unmarshal(raw, &r); err != nil {
			return fmt.Errorf("%s/list: %w", kind, err)
		}
		for _, x := range append(r.Tools, r.Prompts...) {
			names = append(names, x.Name)
		}
		for _, x := range r.Resources {
			names = append(names, x.URI)
		}
		cursor = r.NextCursor
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch kind {
	case "tools":
		s.Tools = names
	case "prompts":
		s.Prompts = names
	case "resources":
		s.Resources = names
	}
	s.debug("MCP server %q: %s/list: %q", s.name, kind, names)
	return nil
}

// prompt is the text of a prompt; blanks split its arguments, which are given in the order of its declaration.
func (s *mcpServer) prompt(ctx context.Context, name string, words []string) (string, error) {
	raw, err := s.call(ctx, nil, "prompts/list", object{})
	if err != nil {
		return "", err
	}
	var known struct {
		Prompts []struct {
			Name      string
			Arguments []struct{ Name string }
		}
	}
	if err := json.Unmarshal(raw, &known); err != nil {
		return "", err
	}
	args := map[string]string{}
	for _, p := range known.Prompts {
		for i, a := range p.Arguments {
			if p.Name == name && i < len(words) {
				args[a.Name] = words[i]
			}
		}
	}
	if raw, err = s.call(ctx, nil, "prompts/get", object{"name": name, "arguments": args}); err != nil {
		return "", err
	}
	var r struct {
		Messages []struct{ Content struct{ Text string } }
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return "", err
	}
	var b strings.Builder
	for _, m := range r.Messages {
		b.WriteString(m.Content.Text)
	}
	return b.String(), nil
}

// resource is the text of a resource.
func (s *mcpServer) resource(ctx context.Context, uri string) (string, error) {
	raw, err := s.call(ctx, nil, "resources/read", object{"uri": uri})
	if err != nil {
		return "", err
	}
	var r struct{ Contents []struct{ Text string } }
	if err := json.Unmarshal(raw, &r); err != nil {
		return "", err
	}
	var b strings.Builder
	for _, c := range r.Contents {
		b.WriteString(c.Text)
	}
	return b.String(), nil
}

// stop ends the server as the client does: interrupt, a tenth of a second later the end, and no patience for one that ignores both.
func (s *mcpServer) stop() {
	for _, step := range []struct {
		signal os.Signal
		wait   time.Duration
	}{{syscall.SIGINT, termAfter}, {syscall.SIGTERM, killAfter}} {
		_ = s.cmd.Process.Signal(step.signal)
		select {
		case <-s.ended:
		case <-time.After(step.wait):
			continue
		}
		break
	}
	select {
	case <-s.ended:
	default:
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
	s.relist.Wait()
	_ = s.in.Close()
}
