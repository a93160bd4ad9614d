//go:build unix

package claude_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"claudemesh/testenv"
	"claudemesh/testenv/claude"
)

// These tests are about the client alone: what claudemesh relies on, said once, and asked of both clients.

// rig is a HOME whose hooks are shell scripts that note what they were told.
type rig struct {
	*claude.Home
	t     *testing.T
	hooks map[string][]any
}

func newRig(t *testing.T, real string) *rig {
	t.Helper()
	return &rig{Home: claude.NewHome(t, testenv.TempDir(t), real, mcpTest), t: t, hooks: map[string][]any{}}
}

// hook adds a hook: a script that notes its input and then does what the text says.
func (r *rig) hook(event, script string, more map[string]any) {
	r.t.Helper()
	path := filepath.Join(r.Dir, fmt.Sprintf("hook %s %d", event, len(r.hooks[event]))) // with blanks: the command goes through a shell
	log := r.logFile(event)
	text := "#!/bin/sh\n{ cat; echo; } >'" + log + ".'$$; cat '" + log + ".'$$ >>'" + log + "'\n" + script + "\n"
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		r.t.Fatal(err)
	}
	h := map[string]any{"type": "command", "command": "'" + path + "'"}
	for k, v := range more {
		h[k] = v
	}
	r.hooks[event] = append(r.hooks[event], map[string]any{"hooks": []any{h}})
}

func (r *rig) logFile(event string) string { return filepath.Join(r.Dir, "log-"+event) }

// inline is the hooks for --settings.
func (r *rig) inline() string {
	b, err := json.Marshal(map[string]any{"hooks": r.hooks})
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

// told is what the hooks of an event were told so far.
func (r *rig) told(event string) []map[string]any {
	b, _ := os.ReadFile(r.logFile(event))
	var all []map[string]any
	for _, line := range strings.Split(string(b), "\n") {
		var m map[string]any
		if json.Unmarshal([]byte(line), &m) == nil {
			all = append(all, m)
		}
	}
	return all
}

func (r *rig) waitTold(event string, n int) map[string]any {
	r.t.Helper()
	testenv.Wait(r.t, fmt.Sprintf("%d hooks of %s", n, event), nil, func() bool { return len(r.told(event)) >= n })
	return r.told(event)[n-1]
}

// fifo makes a pipe that a script waits on, and returns its path and what ends the wait with a text.
func (r *rig) fifo(name string) (path string, release func(text string)) {
	r.t.Helper()
	path = filepath.Join(r.Dir, name)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path, func(text string) {
		r.t.Helper()
		f, err := os.OpenFile(path, os.O_WRONLY, 0) // waits for the reader
		if err == nil {
			_, err = f.WriteString(text)
			f.Close()
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

func contextOf(event, text string) string {
	return fmt.Sprintf(`printf '%%s' '{"hookSpecificOutput":{"hookEventName":"%s","additionalContext":"%s"}}'`, event, text)
}

func TestWhatAHookAddsIsInTheNextRequestOnce(t *testing.T) {
	each(t, func(t *testing.T, real string) {
		r := newRig(t, real)
		r.hook("UserPromptSubmit", contextOf("UserPromptSubmit", "added to the prompt"), nil)
		r.hook("PostToolUse", contextOf("PostToolUse", "added after the tool"), nil)
		r.API.Script(claude.Run("echo tool-$((40+2))"), claude.Say("done"))
		c := r.Start("--settings", r.inline())
		c.Prompt("hello there")
		r.WaitIdle(2)
		first, second := r.API.Requests()[0], r.API.Requests()[1]
		if first.Count("hello there") != 1 || first.Count("UserPromptSubmit hook additional context: added to the prompt") != 1 {
			t.Errorf("the first request: %+v", first.Messages)
		}
		if second.Count("tool-42") != 1 || second.Count("PostToolUse:Bash hook additional context: added after the tool") != 1 {
			t.Errorf("the second request: %+v", second.Messages)
		}
		r.API.Once("added to the prompt")
		r.API.Once("added after the tool")
		transcript := r.Transcripts()[first.Session]
		for _, text := range []string{"hello there", "added to the prompt", "added after the tool"} {
			if !transcript.Sent(text) {
				t.Errorf("%q is in a request, and not in the transcript", text)
			}
		}
		for event, want := range map[string]map[string]any{
			"UserPromptSubmit": {"hook_event_name": "UserPromptSubmit", "prompt": "hello there", "session_id": first.Session, "transcript_path": transcript.Path, "cwd": r.Project},
			"PostToolUse":      {"hook_event_name": "PostToolUse", "tool_name": "Bash", "session_id": first.Session},
		} {
			got := r.waitTold(event, 1)
			for k, v := range want {
				if got[k] != v {
					t.Errorf("%s: %s is %v, want %v", event, k, got[k], v)
				}
			}
		}
		if code := c.Exit(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
}

func TestAStopHookThatBlocksMakesTheModelGoOn(t *testing.T) {
	each(t, func(t *testing.T, real string) {
		r := newRig(t, real)
		r.hook("Stop", `if mkdir '`+r.Dir+`/once' 2>/dev/null; then printf '{"decision":"block","reason":"look <here> \\"now\\""}'; fi`, nil)
		c := r.Start("--settings", r.inline())
		c.Prompt("hello")
		r.WaitIdle(2)
		r.API.Once(`look <here> "now"`)
		if first, second := r.waitTold("Stop", 1), r.waitTold("Stop", 2); first["stop_hook_active"] != false || second["stop_hook_active"] != true {
			t.Errorf("stop_hook_active: first %v, then %v", first["stop_hook_active"], second["stop_hook_active"])
		}
		if n := len(r.API.Requests()); n != 2 {
			t.Errorf("%d requests, want 2", n)
		}
		c.Exit()
	})
}

func TestAWaitingHookWakesAnIdleSession(t *testing.T) {
	each(t, func(t *testing.T, real string) {
		r := newRig(t, real)
		wake, release := r.fifo("wake")
		r.hook("SessionStart", "read line <'"+wake+"'; echo \"$line\" >&2; exit 2", map[string]any{"asyncRewake": true, "timeout": 600})
		r.hook("UserPromptSubmit", "", nil)
		c := r.Start("--settings", r.inline())
		r.waitTold("SessionStart", 1)
		release("woken by <m1>\n")
		r.API.WaitText("woken by <m1>")
		r.WaitIdle(1)
		r.API.Once("woken by <m1>")
		if p, _ := r.waitTold("UserPromptSubmit", 1)["prompt"].(string); !strings.Contains(p, "woken by <m1>") {
			t.Errorf("the hook of the turn was told the prompt %q", p)
		}
		c.Exit()
	})
}

func TestAWaitingHookReachesABusySessionAfterItsTool(t *testing.T) {
	each(t, func(t *testing.T, real string) {
		r := newRig(t, real)
		wake, release := r.fifo("wake")
		tool, finish := r.fifo("tool")
		r.hook("SessionStart", "read line <'"+wake+"'; echo \"$line\" >&2; exit 2", map[string]any{"asyncRewake": true, "timeout": 600})
		r.hook("UserPromptSubmit", "if grep -q 'news while' '"+r.logFile("UserPromptSubmit")+"'; then "+contextOf("UserPromptSubmit", "added to the news")+"; fi", nil)
		r.API.Script(claude.Run("read line <'"+tool+"'; echo \"$line\""), claude.Say("done"))
		c := r.Start("--settings", r.inline())
		c.Prompt("work")
		r.API.WaitText("work")
		r.waitTold("SessionStart", 1)
		release("news while busy\n")
		testenv.Wait(t, "the client to queue it", nil, func() bool {
			for _, tr := range r.Transcripts() {
				for _, l := range tr.Lines() {
					if l.Type == "queue-operation" && strings.Contains(string(l.Raw), "news while busy") {
						return true
					}
				}
			}
			return false
		})
		if n := len(r.API.Requests()); n != 1 {
			t.Errorf("%d requests before the tool ended", n)
		}
		finish("tool finished\n")
		r.WaitIdle(2)
		r.API.Once("news while busy")
		second := r.API.Requests()[1]
		if m, _ := second.Where("news while busy"); m.Role != "system" || second.Count("tool finished") != 1 {
			t.Errorf("it came in a message of role %q", m.Role)
		}
		if n := len(r.told("UserPromptSubmit")); n != 2 {
			t.Errorf("UserPromptSubmit fired %d times, want twice: for the prompt and for the news", n)
		}
		r.API.Once("added to the news")
		c.Exit()
	})
}

func TestClearBeginsANewConversation(t *testing.T) {
	each(t, func(t *testing.T, real string) {
		r := newRig(t, real)
		r.hook("SessionStart", "", nil)
		r.hook("SessionEnd", "", nil)
		c := r.Start("--settings", r.inline())
		started := r.waitTold("SessionStart", 1)
		if started["source"] != "startup" {
			t.Errorf("source %v", started["source"])
		}
		c.Prompt("oldest-word")
		r.WaitIdle(1)
		c.Prompt("/clear")
		ended, again := r.waitTold("SessionEnd", 1), r.waitTold("SessionStart", 2)
		if ended["reason"] != "clear" || ended["session_id"] != started["session_id"] {
			t.Errorf("SessionEnd was told %v", ended)
		}
		if again["source"] != "clear" || again["session_id"] == started["session_id"] || again["transcript_path"] == started["transcript_path"] {
			t.Errorf("SessionStart was told %v", again)
		}
		c.Prompt("newest-word")
		after := r.API.WaitText("newest-word")
		if after.Session != again["session_id"] || after.Count("oldest-word") != 0 {
			t.Errorf("the request after it: %+v", after)
		}
		r.WaitIdle(2)
		c.Exit()
		if last := r.waitTold("SessionEnd", 2); last["reason"] != "prompt_input_exit" {
			t.Errorf("reason %v", last["reason"])
		}
	})
}

func TestAConversationIsTakenUpAgain(t *testing.T) {
	each(t, func(t *testing.T, real string) {
		const id = "11111111-2222-4333-8444-555555555555"
		r := newRig(t, real)
		r.hook("SessionStart", "", nil)
		c := r.Start("--settings", r.inline(), "--session-id", id)
		c.Prompt("the first word")
		r.WaitIdle(1)
		c.Exit()
		for i, args := range [][]string{{"--resume", id}, {"--continue"}} {
			c = r.Start(append([]string{"--settings", r.inline()}, args...)...)
			if told := r.waitTold("SessionStart", i+2); told["session_id"] != id || told["source"] != "resume" {
				t.Errorf("%v: SessionStart was told %v", args, told)
			}
			word := fmt.Sprint("word number ", i)
			c.Prompt(word)
			q := r.API.WaitText(word)
			if q.Session != id || q.Count("the first word") != 1 {
				t.Errorf("%v: the request: %+v", args, q.Messages)
			}
			r.WaitIdle(i + 2)
			c.Exit()
		}
		if n := len(r.Transcripts()); n != 1 {
			t.Errorf("%d transcripts, want one", n)
		}
	})
}

func TestHooksOfTheUserAndOfTheCommandLineBothRun(t *testing.T) {
	each(t, func(t *testing.T, real string) {
		r := newRig(t, real)
		r.hook("UserPromptSubmit", contextOf("UserPromptSubmit", "from the settings file"), nil)
		r.Settings(map[string]any{"hooks": r.hooks})
		r.hooks = map[string][]any{"Stop": nil}
		r.hook("Stop", "", nil)
		r.hooks["UserPromptSubmit"] = []any{map[string]any{"hooks": []any{map[string]any{"type": "command", "command": contextOf("UserPromptSubmit", "from the command line")}}}}
		c := r.Start("--settings", r.inline())
		c.Prompt("hello")
		r.WaitIdle(1)
		r.API.Once("from the settings file")
		r.API.Once("from the command line")
		c.Exit()
	})
}

func TestTheEnvironmentOfHooksAndOfTheBashTool(t *testing.T) {
	each(t, func(t *testing.T, real string) {
		r := newRig(t, real)
		r.Setenv("OUTER=from outside")
		env := filepath.Join(r.Dir, "env")
		r.hook("SessionStart", `echo "export GIVEN='by a hook'" >>"$CLAUDE_ENV_FILE"; env >'`+env+`'`, nil)
		r.API.Script(claude.Run("env"), claude.Say("done"))
		c := r.Start("--settings", r.inline())
		session := fmt.Sprint(r.waitTold("SessionStart", 1)["session_id"])
		c.Prompt("show")
		r.WaitIdle(2)
		hook, err := os.ReadFile(env)
		if err != nil {
			t.Fatal(err)
		}
		wantLines(t, "the hook's environment", string(hook), "CLAUDECODE=1", "CLAUDE_CODE_SESSION_ID="+session, "CLAUDE_PROJECT_DIR="+r.Project, fmt.Sprint("CLAUDE_PID=", c.PID()), "OUTER=from outside")
		bash, _ := r.API.Requests()[1].Where("CLAUDECODE=1")
		wantLines(t, "the tool's environment", bash.Text, "CLAUDE_CODE_SESSION_ID="+session, fmt.Sprint("CLAUDE_PID=", c.PID()), "OUTER=from outside", "GIVEN=by a hook")
		c.Exit()
	})
}

func wantLines(t *testing.T, what, text string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if !strings.Contains("\n"+text+"\n", "\n"+l+"\n") {
			t.Errorf("%s lacks %s:\n%s", what, l, text)
		}
	}
}
