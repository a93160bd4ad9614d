//go:build unix

package cli

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// readmeElsewhere are the commands of the README that other tests run, because they end only when they are told to or need what a README cannot bring along.
var readmeElsewhere = map[string]string{
	"claudemesh broker serve":      "broker.txtar: runs until it is stopped, and needs certificates",
	"claudemesh broker status":     "broker.txtar",
	"claudemesh create team --bro": "broker.txtar",
	"claudemesh service publish":   "service.txtar: runs until it is stopped",
}

// readmeCommands are the lines of the README's code blocks that run the program, without the remarks behind them.
func readmeCommands(t *testing.T) (run []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	code, elsewhere := false, map[string]bool{}
lines:
	for _, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, "```") {
			code = !code
		}
		if !code || !strings.HasPrefix(line, "claudemesh ") {
			continue
		}
		line, _, _ = strings.Cut(line, " # ")
		for begin := range readmeElsewhere {
			if strings.HasPrefix(line, begin) {
				elsewhere[begin] = true
				continue lines
			}
		}
		run = append(run, strings.TrimSpace(line))
	}
	if len(run) < 15 || len(elsewhere) != len(readmeElsewhere) {
		t.Fatalf("found %q, and elsewhere %v", run, elsewhere)
	}
	return run
}

// People try what the README shows. So its commands are run in the order in which they stand there, by the real program, and must succeed.
func TestEveryCommandOfTheReadmeWorks(t *testing.T) {
	base, err := os.MkdirTemp("/tmp", "cm")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(base)
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	defer cancel()
	in := func(home, stdin, command string) (string, error) {
		cmd := exec.CommandContext(ctx, "sh", "-c", command)
		cmd.Dir, cmd.Stdin = filepath.Join(base, home), strings.NewReader(stdin)
		cmd.Env = []string{"HOME=" + cmd.Dir, "PATH=" + os.Getenv("PATH"), "USER=ada", "CLAUDE_BIN=/bin/true", "CI=1"}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, home := range []string{"one", "two"} {
		if err := os.MkdirAll(filepath.Join(base, home, "my-skill"), 0o700); err != nil {
			t.Fatal(err)
		}
		defer stopDaemon(t, filepath.Join(base, home, ".claudemesh", "daemon"))
	}
	for name, text := range map[string]string{"plan.pdf": "a plan\n", "my-skill/SKILL.md": "---\nname: my-skill\ndescription: does it\n---\nDo it.\n"} {
		if err := os.WriteFile(filepath.Join(base, "one", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	peers := map[string]bool{}
	// come starts a session that stays, as the README's reader has it in another terminal.
	come := func(name string) {
		cmd := exec.CommandContext(ctx, "claudemesh", "session", "run", "--name", name, "--", "cat")
		cmd.Dir = filepath.Join(base, "one")
		cmd.Env = []string{"HOME=" + cmd.Dir, "PATH=" + os.Getenv("PATH"), "USER=ada"}
		stay, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stay.Close(); _ = cmd.Wait() })
		if !until(func() bool {
			out, _ := in("one", "", "claudemesh peer list --json=name")
			return strings.Contains(out, name)
		}) {
			t.Fatalf("%s does not come", name)
		}
		peers[name] = true
	}
	for _, c := range readmeCommands(t) {
		if strings.Contains(c, "carol") {
			come("alice")
			come("bob")
		}
		t.Run(c, func(t *testing.T) {
			home, stdin, command := "one", "", c
			switch {
			case strings.Contains(c, "--reply-to ID"):
				id, err := in("one", "", "claudemesh send bob hello --jq .messageId")
				if err != nil {
					t.Fatal(err, id)
				}
				command = strings.Replace(c, "ID", strings.TrimSpace(id), 1)
			case strings.HasPrefix(c, "claudemesh join"):
				link, err := in("one", "", "claudemesh share --quiet")
				if err != nil {
					t.Fatal(err, link)
				}
				home, command = "two", strings.Replace(c, "http://…/i/CODE", strings.Fields(link)[0], 1)
			case strings.HasPrefix(c, "claudemesh vault set"):
				stdin = "a secret"
			}
			if out, err := in(home, stdin, command); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	if !peers["bob"] {
		t.Error("the README has no session to write to")
	}
}
