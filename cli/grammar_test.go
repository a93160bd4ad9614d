package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	urfave "github.com/urfave/cli/v3"
)

// everyVerb calls f for every command that does something, hidden ones too, with its path below the program's name.
func everyVerb(f func(path string, cmd *urfave.Command, v verb)) {
	var walk func(cmd *urfave.Command)
	walk = func(cmd *urfave.Command) {
		if v := verbOf(cmd); v.run != nil {
			f(strings.TrimPrefix(fullName(cmd), "claudemesh "), cmd, v)
		}
		for _, sub := range cmd.Commands {
			walk(sub)
		}
	}
	root := testApp().tree()
	walk(root)
}

// runIn runs the program with an environment of its own and no terminal.
func runIn(t *testing.T, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	e := hostEnv(append([]string{"claudemesh"}, args...))
	e.stdin, e.stdout, e.stderr = strings.NewReader(""), &out, &errs
	e.getenv = func(name string) string { return env[name] }
	e.environ = func() []string { return nil }
	code = run(context.Background(), e)
	return code, out.String(), errs.String()
}

func TestEveryVerbSaysWhatItDoesHowAndWhatCanFail(t *testing.T) {
	fails := regexp.MustCompile(`^\d+(, \d+)*  \S`)
	count := 0
	everyVerb(func(path string, _ *urfave.Command, v verb) {
		count++
		if v.short == "" || strings.HasSuffix(v.short, ".") || strings.ToLower(v.short[:1]) != v.short[:1] {
			t.Errorf("%s: short text %q", path, v.short)
		}
		if len(v.examples) == 0 {
			t.Errorf("%s has no example", path)
		}
		for _, e := range v.examples {
			if !strings.Contains(e, "claudemesh") && !strings.Contains(e, "nats ") {
				t.Errorf("%s: example %q", path, e)
			}
		}
		if len(v.fails) == 0 {
			t.Errorf("%s does not say what can fail", path)
		}
		for _, f := range v.fails {
			if !fails.MatchString(f) {
				t.Errorf("%s: %q does not begin with exit codes and two spaces", path, f)
			}
		}
	})
	if count < 100 {
		t.Fatalf("only %d verbs were looked at", count)
	}
}

func TestEveryFlagHasAName(t *testing.T) {
	everyVerb(func(path string, cmd *urfave.Command, _ verb) {
		seen := map[string]bool{}
		for _, f := range cmd.Flags {
			for _, n := range f.Names() {
				if seen[n] {
					t.Errorf("%s has --%s twice", path, n)
				}
				if seen[n] = true; slices.Contains([]string{"json", "jq", "mesh", "help", "h"}, n) {
					t.Errorf("%s has a --%s of its own", path, n)
				}
			}
		}
	})
}

// The words of the reference, and the verb that they name here.
func TestWordsOfTheReferenceNameTheSameVerbs(t *testing.T) {
	for words, want := range map[string]string{
		"new x": "create", "add url": "join", "ls": "list", "rm x": "delete", "invite": "share", "connect team": "launch",
		"peers": "peers", "peer list": "peer list", "peer kick x": "peer kick", "peer disconnect x": "peer disconnect", "peer ban x": "peer ban",
		"peer unban x": "peer unban", "peer bans": "peer bans", "peer verify": "peer verify",
		"message send x y": "message send", "message inbox": "message inbox", "message status id": "message status", "msg-status id": "msg-status",
		"memory remember x": "memory remember", "memory recall x": "memory recall", "memory forget id": "memory forget",
		"profile status set dnd": "profile status set", "profile summary x": "profile summary", "profile visible yes": "profile visible",
		"members": "member", "api-key list": "apikey list", "mesh-mcp list": "service list", "mesh-mcp call a b": "service call", "mesh-mcp catalog": "service list",
		"schedule msg x": "schedule msg", "schedule remind x": "schedule msg", "schedule list": "schedule list", "schedule cancel id": "schedule cancel",
		"remind list": "remind list", "remind cancel id": "remind cancel",
		"workspace": "workspace", "workspace launch": "workspace launch", "workspace connect": "workspace launch", "workspace open team": "workspace launch",
		"workspace list": "workspace list", "workspace ls": "workspace list", "workspace info": "workspace info", "workspace create x": "workspace create",
		"workspace new x": "workspace create", "workspace join url": "workspace join", "workspace add url": "workspace join", "workspace delete": "workspace delete",
		"workspace rm x": "workspace delete", "workspace rename a b": "workspace rename", "workspace share": "workspace share",
		"workspace invite": "workspace share", "workspace overview": "workspace overview", "me": "me", "me overview": "me overview", "me workspace": "me overview",
		"daemon start": "daemon up", "daemon stop": "daemon down", "daemon outbox": "daemon outbox", "daemon outbox list": "daemon outbox list",
		"daemon outbox requeue id": "daemon outbox requeue", "daemon install-service": "daemon install-service", "daemon uninstall-service": "daemon uninstall-service",
		"daemon version": "daemon version", "skill": "skill", "skill get x": "skill get", "skill remove x": "skill remove", "status": "status", "status set idle": "status set",
		"status-line": "status-line", "completions bash": "completion", "group join @x": "group join", "vault list": "vault list", "watch add url": "watch add",
		"webhook create x": "webhook create", "file share x": "file share", "topic tail x": "topic tail", "grants": "grants", "mcp": "mcp", "hook idle": "hook idle",
	} {
		t.Run(words, func(t *testing.T) {
			args := strings.Fields(words)
			path, _ := findCommand(testApp().tree(), args)
			var names []string
			for _, c := range path[1:] {
				names = append(names, c.Name)
			}
			if got := strings.Join(names, " "); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if v := verbOf(path[len(path)-1]); v.run == nil {
				t.Errorf("%q does nothing", words)
			}
		})
	}
}

func TestHelpForModels(t *testing.T) {
	code, out, errs := runIn(t, nil, "help", "--llm")
	if code != 0 || errs != "" {
		t.Fatalf("exit %d: %s", code, errs)
	}
	t.Logf("%d bytes", len(out))
	if len(out) > 14<<10 {
		t.Errorf("%d bytes are too many for something that a model reads at each start", len(out))
	}
	everyVerb(func(path string, _ *urfave.Command, v verb) {
		if group, _, _ := strings.Cut(path, " "); v.hidden || group == "hook" {
			return
		}
		word := regexp.MustCompile(`(?m)(^|= |, )` + regexp.QuoteMeta(path) + `($|[ ,)])`)
		if !word.MatchString(out) {
			t.Errorf("%s is missing", path)
		}
	})
	for _, want := range []string{
		"\nsend TO TEXT… | TO - [priority= reply-to= wait= timeout= idempotency-key= self] - send a message", "(= message send)", "\ninbox [unread follow limit=] - ", "(= new",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}

	t.Run("of one group", func(t *testing.T) {
		_, out, _ := runIn(t, nil, "help", "topic", "--llm")
		if !strings.HasPrefix(out, "topic create ") || strings.Contains(out, "\nsend") {
			t.Errorf("got %s", out)
		}
	})
	t.Run("as JSON", func(t *testing.T) {
		_, out, _ := runIn(t, nil, "help", "--llm", "--json")
		var got struct {
			Schema   string `json:"schema_version"`
			Commands []llmLine
		}
		if err := json.Unmarshal([]byte(out), &got); err != nil || got.Schema == "" || len(got.Commands) < 80 {
			t.Errorf("%v, %d commands", err, len(got.Commands))
		}
	})
}

func TestHelpOfEveryVerb(t *testing.T) {
	everyVerb(func(path string, _ *urfave.Command, v verb) {
		code, out, errs := runIn(t, nil, append(strings.Fields(path), "--help")...)
		if code != 0 || errs != "" || !strings.Contains(out, v.examples[0]) || !strings.Contains(out, "fails with:") || !strings.Contains(out, "--jq EXPR") {
			t.Errorf("%s --help: exit %d\n%s%s", path, code, out, errs)
		}
		code, out, _ = runIn(t, nil, append(strings.Fields(path), "--help", "--json")...)
		var h helpJSON
		if err := json.Unmarshal([]byte(out), &h); code != 0 || err != nil || h.Command != "claudemesh "+path || h.Short != v.short || len(h.Flags) < 4 {
			t.Errorf("%s --help --json: exit %d, %v\n%s", path, code, err, out)
		}
	})
}

func TestUnknownFlagsAreErrorsEverywhere(t *testing.T) {
	everyVerb(func(path string, _ *urfave.Command, _ verb) {
		code, out, errs := runIn(t, nil, append(strings.Fields(path), "--frobnicate-it")...)
		if code != exitUsage || out != "" || !strings.Contains(errs, "unknown flag --frobnicate-it") {
			t.Errorf("%s: exit %d\n%s%s", path, code, out, errs)
		}
	})
}

func TestNearestWord(t *testing.T) {
	words := []string{"send", "inbox", "peers", "peer", "rm", "up", "state", "status"}
	for in, want := range map[string]string{
		"sned": "send", "sen": "send", "inbx": "inbox", "INBOX": "inbox", "statsu": "status", "stat": "state", "upp": "up", "x": "", "": "", "frobnicate": "", "r": "",
	} {
		if got := nearest(in, words); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestTextKeepsToTheWidth(t *testing.T) {
	long := "one two three four five six seven eight nine ten\neleven twelve\n\n  kept as it is, however long it may be for the terminal\nlast"
	if got := reflow(long, 0); got != long {
		t.Errorf("without a width: %q", got)
	}
	want := "one two three four five six seven eight\nnine ten eleven twelve\n\n  kept as it is, however long it may be for the terminal\nlast"
	if got := reflow(long, 40); got != want {
		t.Errorf("got %q", got)
	}
	rows := [][2]string{{"--a", "short"}, {"--long-name VALUE", "a text that is longer than what is left of the line"}}
	if got, want := table(rows, 0), "  --a                short\n  --long-name VALUE  a text that is longer than what is left of the line\n"; got != want {
		t.Errorf("got\n%s", got)
	}
	for _, line := range strings.Split(table(rows, 44), "\n") {
		if len(line) > 44 {
			t.Errorf("%q is too long", line)
		}
	}
}
