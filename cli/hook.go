package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"claudemesh/bus"
	"claudemesh/mcp"
	"claudemesh/mcp/feed"
	"claudemesh/mcp/frame"
)

// Hooks of Claude Code. They are run by the client, many times an hour, and must neither hold it up nor fail it: whatever goes wrong, they end with 0 and say
// nothing. They never start a daemon.

// Limits of a hook.
const (
	hookInput   = 1 << 20                // of the client's JSON on stdin: a prompt may be long
	hookStdin   = 500 * time.Millisecond // how long it is waited for
	hookLimit   = 2 * time.Second        // for everything: a daemon that is stuck holds no client up
	hookSeen    = 256                    // ids that are reported as seen
	envHookPID  = "CLAUDE_PID"           // the client's process, as newer clients tell it
	envHookFile = "CLAUDE_ENV_FILE"      // what a SessionStart hook writes there is in the environment of the client's shell commands
	envHookLog  = "CLAUDEMESH_HOOK_DEBUG"
)

func hookVerb() verb {
	return verb{
		name: "hook", short: "what Claude Code's hooks run", hidden: true,
		long: `Put into the client's settings by claudemesh install, and run by the client. Each reads the client's JSON from stdin, ends with 0 whatever happens, and never
starts a daemon. CLAUDEMESH_HOOK_DEBUG=1 shows on stderr what went wrong.`,
		subs: []verb{
			hookEventVerb("drain", true, "hand over what waits at a turn boundary, and tell what the client is doing"),
			hookEventVerb("presence", false, "tell what the client is doing"),
			hookWaitVerb(),
			hookStatusVerb("idle"), hookStatusVerb("working"), hookStatusVerb("dnd"),
		},
	}
}

// hookInputJSON is what the client writes to a hook, as far as it is of use here.
type hookInputJSON struct {
	SessionID        string `json:"session_id"`
	TranscriptPath   string `json:"transcript_path"`
	Cwd              string `json:"cwd"`
	Event            string `json:"hook_event_name"`
	Source           string `json:"source"`
	NotificationType string `json:"notification_type"`
	StopHookActive   bool   `json:"stop_hook_active"`
	Prompt           string `json:"prompt"`
}

func hookFails() []string {
	return []string{"0  whatever happens: a hook neither fails nor holds up the client"}
}

func hookEventVerb(name string, drain bool, short string) verb {
	return verb{name: name, short: short, examples: []string{`echo '{"hook_event_name":"Stop"}' | claudemesh hook ` + name}, fails: hookFails(), run: func(ctx context.Context, c *call) error {
		return c.hook(ctx, func(ctx context.Context) error {
			in, err := c.hookInput()
			if err != nil {
				return err
			}
			ev := bus.HookEvent{
				Event: in.Event, Conversation: in.SessionID, Transcript: in.TranscriptPath, Cwd: in.Cwd, Source: in.Source, Notification: in.NotificationType,
				StopActive: in.StopHookActive, PID: c.clientPID(), Drain: drain, Seen: seenIn(in.Prompt), ByUser: in.Prompt != "" && !byMachine(in.Prompt),
			}
			return c.tellEvent(ctx, ev)
		})
	}}
}

// hookStatusVerb is a hook as the reference installs it: the status itself is the word.
func hookStatusVerb(status string) verb {
	return verb{name: status, short: "tell that the client is " + status, examples: []string{"claudemesh hook " + status}, fails: hookFails(), run: func(ctx context.Context, c *call) error {
		return c.hook(ctx, func(ctx context.Context) error {
			in, err := c.hookInput()
			if err != nil {
				return err
			}
			return c.tellEvent(ctx, bus.HookEvent{Status: status, Conversation: in.SessionID, Transcript: in.TranscriptPath, Cwd: in.Cwd, PID: c.clientPID()})
		})
	}}
}

// hook runs one hook under its limits.
func (c *call) hook(ctx context.Context, run func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, hookLimit)
	defer cancel()
	if err := run(ctx); err != nil && c.getenv(envHookLog) == "1" {
		c.ui.warn("hook: %v", err)
	}
	return nil
}

// hookInput reads what the client says. A hook that is run by hand has none.
func (c *call) hookInput() (in hookInputJSON, err error) {
	if terminal(c.stdin) {
		return in, nil
	}
	type read struct {
		data []byte
		err  error
	}
	got := make(chan read, 1)
	// It ends with the process at the latest: a client that keeps its end open is not waited for.
	go func() {
		data, err := io.ReadAll(io.LimitReader(c.stdin, hookInput))
		got <- read{data, err}
	}()
	var r read
	select {
	case r = <-got:
	case <-c.clock.After(hookStdin):
		return in, errors.New("no input from the client")
	}
	if r.err != nil {
		return in, fmt.Errorf("read input: %w", r.err)
	}
	if len(bytes.TrimSpace(r.data)) == 0 {
		return in, nil
	}
	if err := json.Unmarshal(r.data, &in); err != nil {
		return in, fmt.Errorf("decode input: %w", err)
	}
	return in, nil
}

// clientPID is the client's process, 0 when it does not tell: a hook's parent is often a shell.
func (c *call) clientPID() int {
	pid, err := strconv.Atoi(c.getenv(envHookPID))
	if err != nil || pid <= 0 {
		return 0
	}
	return pid
}

// framed finds the ids of messages in a prompt: when a message starts a turn, the client shows the hook what it shows the model.
var framed = regexp.MustCompile(`<(?:mesh-message|channel)\b[^>]*?\b(?:message_)?id="([A-Za-z0-9_.:-]+)"`)

// byMachine reports whether a prompt is one that the client made of something that arrived: a hook that woke it, a channel, its inbox socket.
func byMachine(prompt string) bool {
	prompt = strings.TrimSpace(prompt)
	for _, start := range []string{"<task-notification>", "<channel ", "<mesh-message ", "Another Claude session sent a message"} {
		if strings.HasPrefix(prompt, start) {
			return true
		}
	}
	return strings.HasSuffix(prompt, mcp.NudgeHint)
}

func seenIn(prompt string) []string {
	var ids []string
	for _, m := range framed.FindAllStringSubmatch(prompt, hookSeen) {
		ids = append(ids, m[1])
	}
	return ids
}

// tellEvent tells the daemon, and gives the client what is to be shown.
func (c *call) tellEvent(ctx context.Context, ev bus.HookEvent) error {
	n, err := c.running(ctx)
	if err != nil {
		return err
	}
	defer n.Close()
	var reply bus.HookReply
	if err := n.daemon(ctx, bus.OpHook, ev, &reply); err != nil {
		return err
	}
	if reply.TokenFile != "" && ev.Event == "SessionStart" {
		if err := c.giveIdentity(reply); err != nil {
			return err
		}
	}
	text := frame.Batch(reply.Items, reply.More)
	if text == "" {
		return nil
	}
	// The client's own format: no envelope of ours belongs into it.
	answer, err := marshal(hookAnswer(ev.Event, text))
	if err != nil {
		return fmt.Errorf("encode answer of the hook: %w", err)
	}
	return c.ui.writeJSON(answer, true)
}

// hookAnswer is what the client takes text for its model from: the end of a turn is put off with a reason, anywhere else it is context.
func hookAnswer(event, text string) any {
	if event == "Stop" {
		return map[string]string{"decision": "block", "reason": text}
	}
	return map[string]any{"hookSpecificOutput": map[string]string{"hookEventName": event, "additionalContext": text}}
}

// giveIdentity lets the shell commands of a client that nobody launched act as its session. The token itself is not written: its file is named.
func (c *call) giveIdentity(r bus.HookReply) error {
	path := c.getenv(envHookFile)
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("write environment of the client: %w", err)
	}
	var b strings.Builder
	for _, kv := range [][2]string{{feed.EnvSession, r.Session}, {feed.EnvMesh, r.Mesh}, {feed.EnvName, r.Name}, {feed.EnvTokenFile, r.TokenFile}} {
		fmt.Fprintf(&b, "export %s='%s'\n", kv[0], strings.ReplaceAll(kv[1], "'", `'\''`))
	}
	_, err = f.WriteString(b.String())
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write environment of the client: %w", err)
	}
	return nil
}
