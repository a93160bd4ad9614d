//go:build unix

package fake

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/google/uuid"
)

// session is the client with its conversation.
type session struct {
	home, cwd string
	env       []string // the client's own
	socket    string   // the inbox socket
	model     model
	hooks     *hookRunner
	servers   map[string]*mcpServer
	queue     *queue
	screen    func(format string, args ...any)
	debug     func(format string, args ...any)

	id           string
	mu           sync.Mutex // of transcript, which what comes from outside is noted in
	transcript   *transcript
	conversation []message
	sent         int      // how many of them the transcript has as sent
	context      []string // what hooks gave that goes with the next message
	envFiles     []string // of SessionStart hooks
	instructions []string // of the servers
}

// environ is the environment of what the client starts.
func (s *session) environ(more ...string) []string {
	env := append([]string{}, s.env...)
	return append(append(env, "CLAUDECODE=1", "CLAUDE_CODE_SESSION_ID="+s.id, "AI_AGENT=claude-code_scripted", "CLAUDE_CODE_MESSAGING_SOCKET="+s.socket), more...)
}

// childEnviron is that of hooks and of the Bash tool.
func (s *session) childEnviron(more ...string) []string {
	return s.environ(append([]string{fmt.Sprint("CLAUDE_PID=", os.Getpid()), "CLAUDE_CODE_CHILD_SESSION=1"}, more...)...)
}

// runHooks runs the hooks of an event and keeps what they want to tell the model.
func (s *session) runHooks(ctx context.Context, event, tool string, more object) []outcome {
	input := object{"session_id": s.id, "transcript_path": s.transcript.path, "cwd": s.cwd, "hook_event_name": event}
	if event != "SessionStart" {
		input["prompt_id"], input["permission_mode"] = uuid.NewString(), "bypassPermissions"
	}
	for k, v := range more {
		input[k] = v
	}
	name := event
	if tool != "" {
		name += ":" + tool
	} else if source, ok := more["source"].(string); ok {
		name += ":" + source
	}
	env := s.childEnviron("CLAUDE_PROJECT_DIR=" + s.cwd)
	if event == "SessionStart" {
		dir := filepath.Join(s.home, ".claude", "session-env", s.id)
		_ = os.MkdirAll(dir, 0o700)
		file := filepath.Join(dir, "sessionstart-hook-0.sh")
		env = append(env, "CLAUDE_ENV_FILE="+file)
		s.envFiles = []string{file}
	}
	all := s.hooks.run(ctx, event, name, tool, input, env)
	label := name
	if event == "SessionStart" {
		label = event
	}
	for _, o := range all {
		if o.command != "" {
			s.debug("hook %s %q: exit code %d", name, o.command, o.code)
		}
		if o.context == "" {
			continue
		}
		if event == "PostToolUse" || event == "SessionStart" {
			s.transcript.attachment(object{"type": "hook_success", "hookName": name, "hookEvent": event, "stdout": o.stdout, "stderr": o.stderr, "exitCode": 0, "command": o.command})
		}
		s.transcript.attachment(object{"type": "hook_additional_context", "content": []string{o.context}, "hookName": label, "hookEvent": event})
		s.context = append(s.context, label+" hook additional context: "+o.context)
	}
	return all
}

// turn is one round from something that happened until the model has nothing more to do.
func (s *session) turn(ctx context.Context, it item) {
	origin := map[string]string{kindTyped: "human", kindWake: "task-notification", kindChannel: "channel", kindInbox: "peer"}[it.kind]
	if it.kind != kindTyped {
		s.transcript.write(object{"type": "queue-operation", "operation": "dequeue"})
	}
	s.runHooks(ctx, "UserPromptSubmit", "", object{"prompt": it.text})
	s.transcript.user(it.text, origin)
	s.conversation = append(s.conversation, text("user", asTurn(it)))
	for stopActive := it.kind == kindWake; ; {
		s.tellContext()
		reply, err := s.ask(ctx)
		if err != nil {
			s.screen("API Error: %v", err)
			break
		}
		if use := toolUse(reply); use != nil {
			s.tool(ctx, *use)
			continue
		}
		s.screen("● %s", said(reply))
		reason, blocked := s.stopHooks(ctx, said(reply), stopActive)
		if !blocked {
			break
		}
		stopActive = true
		s.transcript.user("Stop hook feedback:\n"+reason, "")
		s.conversation = append(s.conversation, text("user", "Stop hook feedback:\n"+reason))
	}
	s.transcript.write(object{"type": "system", "subtype": "turn_duration", "durationMs": 1})
}

// tellContext puts what hooks and the world gave into a message of role system.
func (s *session) tellContext() {
	if len(s.context) > 0 {
		s.conversation = append(s.conversation, text("system", strings.Join(s.context, "\n\n")))
		s.context = nil
	}
}

// ask asks the model and records what it was asked and what it says.
func (s *session) ask(ctx context.Context) (message, error) {
	added := s.sent
	for _, m := range s.conversation[added:] {
		s.transcript.write(object{"type": "api-request-blob", "hash": uuid.NewString(), "message": m})
	}
	s.sent = len(s.conversation)
	s.transcript.write(object{"type": "api-request", "id": uuid.NewString()})
	reply, err := s.model.ask(ctx, s.id, s.conversation, added)
	if err != nil {
		return message{}, err
	}
	reply = message{Role: "assistant", Content: reply.Content}
	s.conversation = append(s.conversation, reply)
	s.sent = len(s.conversation)
	s.transcript.write(object{"type": "assistant", "message": reply, "uuid": uuid.NewString()})
	return reply, nil
}

// tool runs the Bash tool; what has happened meanwhile is told with its result.
func (s *session) tool(ctx context.Context, use block) {
	var input struct {
		Command string `json:"command"`
	}
	_ = json.Unmarshal(use.Input, &input)
	s.runHooks(ctx, "PreToolUse", use.Name, object{"tool_name": use.Name, "tool_input": use.Input, "tool_use_id": use.ID})
	s.context = nil
	out := s.bash(ctx, input.Command)
	s.transcript.write(object{"type": "user", "message": message{Role: "user", Content: []block{{Type: "tool_result", ToolUseID: use.ID, Content: out}}}, "toolUseResult": object{"stdout": out}})
	s.conversation = append(s.conversation, message{Role: "user", Content: []block{{Type: "tool_result", ToolUseID: use.ID, Content: out}}})
	s.runHooks(ctx, "PostToolUse", use.Name, object{"tool_name": use.Name, "tool_input": use.Input, "tool_response": object{"stdout": out}, "tool_use_id": use.ID})
	for _, it := range s.queue.midTurn() {
		s.transcript.write(object{"type": "queue-operation", "operation": "remove", "content": it.text})
		s.transcript.attachment(object{"type": "queued_command", "prompt": it.text})
		s.context = append(s.context, asNews(it))
		s.runHooks(ctx, "UserPromptSubmit", "", object{"prompt": it.text})
	}
}

func (s *session) bash(ctx context.Context, command string) string {
	script := ""
	for _, file := range s.envFiles {
		script += "[ ! -e '" + file + "' ] || . '" + file + "'\n"
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", script+command)
	cmd.Dir, cmd.Env = s.cwd, s.childEnviron()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	if code := exitCode(err); code != 0 {
		return fmt.Sprintf("Exit code %d\n%s", code, out)
	}
	return strings.TrimRight(string(out), "\n")
}

// stopHooks tells whether a hook wants the model to go on, and why.
func (s *session) stopHooks(ctx context.Context, last string, active bool) (reason string, blocked bool) {
	var reasons []string
	for _, o := range s.runHooks(ctx, "Stop", "", object{"stop_hook_active": active, "last_assistant_message": last, "background_tasks": []string{}, "session_crons": []string{}}) {
		if o.block {
			reasons = append(reasons, o.reason)
			s.transcript.attachment(object{"type": "hook_blocking_error", "hookName": "Stop", "hookEvent": "Stop", "blockingError": object{"blockingError": o.reason, "command": o.command}})
			s.context = append(s.context, fmt.Sprintf("Stop hook blocking error from command: \"%s\": %s", o.command, o.reason))
		}
	}
	s.transcript.write(object{"type": "system", "subtype": "stop_hook_summary", "hookErrors": reasons})
	return strings.Join(reasons, "\n"), len(reasons) > 0
}

// clear begins a new conversation with the same servers.
func (s *session) clear(ctx context.Context) {
	s.runHooks(ctx, "SessionEnd", "", object{"reason": "clear"})
	s.begin(ctx, uuid.NewString(), "clear", nil)
}

// begin makes a conversation this session's and says so to the hooks.
func (s *session) begin(ctx context.Context, id, source string, history []message) {
	s.mu.Lock()
	s.id, s.transcript = id, newTranscript(s.home, s.cwd, id)
	s.mu.Unlock()
	s.conversation, s.sent, s.context = history, len(history), slices.Clone(s.instructions)
	s.runHooks(ctx, "SessionStart", "", object{"source": source})
}

// record is the transcript of the conversation now.
func (s *session) record() *transcript {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.transcript
}

func toolUse(m message) *block {
	for _, b := range m.Content {
		if b.Type == "tool_use" {
			return &b
		}
	}
	return nil
}

func said(m message) string {
	var b strings.Builder
	for _, c := range m.Content {
		b.WriteString(c.Text)
	}
	return b.String()
}
