//go:build unix

package cli

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// skillCommands are the commands that the skill shows: lines of code, and code inside of a line.
func skillCommands(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, line := range strings.Split(bundledSkill, "\n") {
		if code, ok := strings.CutPrefix(line, "    "); ok {
			if strings.HasPrefix(code, "claudemesh ") {
				code, _, _ = strings.Cut(code, "   ") // what it is for stands behind it
				out = append(out, code)
			}
			continue
		}
		for _, m := range regexp.MustCompile("`(claudemesh [^`]+)`").FindAllStringSubmatch(line, -1) {
			out = append(out, m[1])
		}
	}
	if len(out) < 25 {
		t.Fatalf("only %d commands found", len(out))
	}
	return out
}

// A model does what the skill says. So every command in it is run as it stands there, by the real program against a real daemon, and must succeed.
func TestEveryCommandOfTheSkillWorks(t *testing.T) {
	home, err := os.MkdirTemp("/tmp", "cm")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	daemonDir := filepath.Join(home, ".claudemesh", "daemon")
	defer stopDaemon(t, daemonDir)
	for name, text := range map[string]string{"file": "a long text\n", "notes.txt": "notes\n"} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	defer cancel()
	env := []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "USER=ada", "CLAUDE_BIN=/bin/true"}
	run := func(command string) (string, error) {
		cmd := exec.CommandContext(ctx, "sh", "-c", command)
		cmd.Dir, cmd.Env = home, env
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("claudemesh create team"); err != nil {
		t.Fatal(err, out)
	}
	// The peer of the examples.
	bob := exec.CommandContext(ctx, "claudemesh", "session", "run", "--name", "bob", "--groups", "reviewers", "--", "cat")
	bob.Dir, bob.Env = home, env
	stay, err := bob.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := bob.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stay.Close()
		if err := bob.Wait(); err != nil {
			t.Error(err)
		}
	}()
	if !until(func() bool { out, _ := run("claudemesh peer list --json=name"); return strings.Contains(out, "bob") }) {
		t.Fatal("bob does not come")
	}
	id, err := run(`claudemesh send bob hello --json | sed -n 's/.*"messageId": "\(.*\)".*/\1/p'`)
	if id = strings.TrimSpace(id); err != nil || id == "" {
		t.Fatal(err, id)
	}
	stands := strings.NewReplacer("--name NAME", "--name carol", "NAME", "bob", "FROM", "bob", "MESH", "team", "VERB", "send", "COMMAND", "true", "ID", id)
	for _, c := range skillCommands(t) {
		t.Run(c, func(t *testing.T) {
			if out, err := run(stands.Replace(c)); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func TestTheSkillIsShort(t *testing.T) {
	if n := len(bundledSkill); n > 6<<10 {
		t.Errorf("%d bytes: a model reads all of it each time", n)
	}
}
