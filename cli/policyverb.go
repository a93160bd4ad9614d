package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/cli/policy"
)

func policyVerb() verb {
	return verb{name: "policy", short: "which commands run, which ask first, which are refused", subs: []verb{policyShowVerb(), policyCheckVerb(), policyInitVerb(), policyLogVerb()}}
}

func policyShowVerb() verb {
	return verb{
		name: "show", args: "", short: "show the approval mode and the policy that are in force",
		long: `The mode comes from --approval-mode, else CLAUDEMESH_APPROVAL_MODE: plan says what would be done and does only what looks; read-only refuses
the rest; write asks before what an admin would do; yolo asks nothing. The policy is --policy FILE, else CLAUDEMESH_POLICY, else ~/.claudemesh/policy.yaml; what it denies is denied in every mode.
A file that is not understood allows nothing. Sessions inherit both. It protects from mistakes, not from somebody who wants to get around it.`,
		examples: []string{"claudemesh policy show", "claudemesh policy show --approval-mode plan --json"},
		fails:    []string{"3  the mode or the policy is not understood", "10  the policy cannot be read"},
		run: func(_ context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh policy show"); err != nil {
				return err
			}
			s, err := c.standing()
			if err != nil {
				return err
			}
			return c.ui.result(map[string]any{"ok": true, "mode": s.mode, "file": s.path, "policy": s.policy}, func() error {
				mode := s.mode
				if mode == "" {
					mode = "none named: nothing is asked but what commands ask themselves"
				}
				lines := []string{"mode    " + mode}
				if s.policy == nil {
					lines = append(lines, "policy  none; claudemesh policy init writes one to begin with")
				} else {
					lines = append(lines, fmt.Sprintf("policy  %s, default %s", s.path, s.policy.Default))
					for _, r := range s.policy.Rules {
						lines = append(lines, "  "+cleanLine(ruleText(r)))
					}
				}
				return c.ui.print("%s", strings.Join(lines, "\n"))
			})
		},
	}
}

func ruleText(r policy.Rule) string {
	text := fmt.Sprintf("%-6s  %s %s", r.Decision, r.Resource, r.Verb)
	if r.Mesh != "" {
		text += " on mesh " + r.Mesh
	}
	if len(r.Peers) > 0 {
		text += " for " + strings.Join(r.Peers, ", ")
	}
	if r.Reason != "" {
		text += "  (" + r.Reason + ")"
	}
	return text
}

func policyCheckVerb() verb {
	return verb{
		name: "check", args: "VERB… [-- ARGUMENTS]", short: "say what would become of a command, and run nothing",
		examples: []string{"claudemesh policy check peer kick", "claudemesh policy check send -- bob", "claudemesh policy check delete --mesh team --json"},
		fails:    []string{"3  the mode or the policy is not understood", "5  no such command"},
		run: func(_ context.Context, c *call) error {
			if err := c.want(1, -1, "claudemesh policy check VERB…"); err != nil {
				return err
			}
			cmd, rest, words := c.cmd.Root(), c.args(), []string{}
			for len(rest) > 0 && cmd.Command(rest[0]) != nil {
				cmd, rest = cmd.Command(rest[0]), rest[1:]
				words = append(words, cmd.Name)
			}
			op, known := operationOf(strings.Join(words, " "), func(string) bool { return false })
			if !known {
				return &failure{Code: "not_found", Message: "no such command: " + quoted(strings.Join(c.args(), " ")), Hint: "see: claudemesh help", Exit: exitNotFound}
			}
			s, err := c.standing()
			if err != nil {
				return err
			}
			q := policy.Question{Resource: op.resource, Verb: op.verb, Mesh: c.meshForPolicy()}
			if op.peer && len(rest) > 0 {
				q.Peer = rest[0]
			}
			v := verdict{decision: policy.Allow}
			if op.class != free {
				v = s.judge(op, q)
			}
			return c.ui.result(map[string]any{
				"ok": true, "resource": op.resource, "verb": op.verb, "class": op.class.String(), "mesh": q.Mesh, "decision": v.decision, "planned": v.planned, "reason": v.reason,
			}, func() error {
				text := string(v.decision)
				if v.planned {
					text = "plan"
				}
				if v.reason != "" {
					text += ": " + cleanLine(v.reason)
				}
				return c.ui.print("%s", text)
			})
		},
	}
}

func policyInitVerb() verb {
	return verb{
		name: "init", args: "", short: "write a policy to begin with",
		long:     `Allows everything, and asks before what takes something from others or cannot be taken back. Where nobody can be asked, such a command then needs --yes.`,
		examples: []string{"claudemesh policy init"},
		fails:    []string{"6  there is one already (--force replaces it)", "10  it cannot be written"},
		flags:    []urfave.Flag{&urfave.BoolFlag{Name: "force", Usage: "replace the one that is there"}},
		run: func(_ context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh policy init"); err != nil {
				return err
			}
			path := c.cmd.String("policy")
			if path == "" {
				dir, err := c.userDir()
				if err != nil {
					return err
				}
				if err := os.MkdirAll(dir, 0o700); err != nil {
					return fmt.Errorf("write policy: %w", err)
				}
				path = filepath.Join(dir, policyName)
			}
			f, err := newFile(path, c.cmd.Bool("force"))
			if err != nil {
				return err
			}
			_, err = f.WriteString(policy.Default)
			if err := f.finish(err); err != nil {
				return err
			}
			return c.ui.result(map[string]any{"ok": true, "file": path}, func() error { return c.ui.print("wrote %s", path) })
		},
	}
}

func policyLogVerb() verb {
	return verb{
		name: "log", args: "", short: "show what was decided: the audit log",
		long:     `Written while a mode or a policy is in force, to ~/.claudemesh/audit.log (0600; at 1 MiB it becomes audit.log.1). One JSON object a line, the newest last; without arguments of commands.`,
		examples: []string{"claudemesh policy log --lines 20"},
		fails:    []string{"3  --lines is no number above 0", "10  it cannot be read"},
		flags:    []urfave.Flag{&urfave.IntFlag{Name: "lines", Value: 50, Usage: "the last `N` (default 50)"}},
		run: func(_ context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh policy log [--lines N]"); err != nil {
				return err
			}
			n := c.cmd.Int("lines")
			if n < 1 {
				return usagef("--lines is a number above 0")
			}
			dir, err := c.userDir()
			if err != nil {
				return err
			}
			f, err := os.Open(filepath.Join(dir, auditName))
			if errors.Is(err, fs.ErrNotExist) {
				if c.ui.json {
					return nil
				}
				return c.ui.print("nothing was written down: no mode and no policy was in force")
			}
			if err != nil {
				return fmt.Errorf("read audit log: %w", err)
			}
			defer f.Close()
			text, err := io.ReadAll(io.LimitReader(f, 2*auditLimit))
			if err != nil {
				return fmt.Errorf("read audit log: %w", err)
			}
			lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
			for _, l := range lines[max(0, len(lines)-n):] {
				if err := c.ui.print("%s", clean(l)); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
