package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/cli/claudeconf"
	"claudemesh/daemon/service"
	"claudemesh/mesh"
)

// Outcomes of an item beside those of claudeconf.
const (
	itemSkipped = "skipped"
	itemFailed  = "failed"
)

// installJSON is what install and uninstall print.
type installJSON struct {
	OK     bool                `json:"ok"`
	Binary string              `json:"binary,omitempty"`
	Items  []claudeconf.Change `json:"items"`
}

func installVerb() verb {
	return verb{
		name: "install", args: "", short: "let every claude on this machine take part: MCP server, hooks, skill, daemon service",
		long: `Puts into Claude Code's own files: the MCP server (~/.claude.json), hooks and permission rules (~/.claude/settings.json) and the skill
(~/.claude/skills/claudemesh), and makes the daemon a service that starts with your login. It may be repeated, and tells for each item whether it was added,
updated, unchanged or kept. Nothing else in those files is changed; claudemesh uninstall gives them back as they were. CLAUDE_CONFIG_DIR is honoured.

The permission rules let the model send, read what it was sent, and look around without asking you: ` + strings.Join(claudeconf.Rules(), ", ") + `.

--json prints {"ok", "binary", "items": [{"item", "action", "path", "note"}]}.`,
		examples: []string{"claudemesh install", "claudemesh install --no-service --status-line"},
		fails:    []string{"3  this program is a passing one (go run), or not named claudemesh", "8  the service does not start; the rest is installed", "10  a file of the client's cannot be understood (nothing is changed then), or not written"},
		flags: []urfave.Flag{
			&urfave.BoolFlag{Name: "no-service", Usage: "no service: the daemon starts with the first command that needs it"},
			&urfave.BoolFlag{Name: "no-hooks", Usage: "no hooks: sessions are not woken, and their status is not known"},
			&urfave.BoolFlag{Name: "no-skill", Usage: "no skill file"},
			&urfave.BoolFlag{Name: "status-line", Usage: "show mesh, peers and unread messages in the client's status line"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh install"); err != nil {
				return err
			}
			return c.install(ctx)
		},
	}
}

func (c *call) install(ctx context.Context) error {
	binary, onPath, err := c.stableBinary()
	if err != nil {
		return err
	}
	setup, err := c.claudeSetup()
	if err != nil {
		return err
	}
	want := claudeconf.Want{Binary: binary, Hooks: !c.cmd.Bool("no-hooks"), Skill: !c.cmd.Bool("no-skill"), StatusLine: c.cmd.Bool("status-line")}
	out := installJSON{OK: true, Binary: binary}
	if out.Items, err = setup.Install(ctx, want, []byte(bundledSkill)); err != nil {
		return explainClaude(err, "nothing is installed; correct the file and run it again: claudemesh install",
			"some of it may be installed; run it again, or take it back with: claudemesh uninstall")
	}
	var failed error
	if !c.cmd.Bool("no-service") {
		var item claudeconf.Change
		if item, failed = c.installServiceItem(ctx, binary); failed != nil {
			out.OK = false
		}
		out.Items = append(out.Items, item)
	}
	if !onPath {
		c.ui.warn("claudemesh on your PATH is not %s; the skill tells models to run claudemesh", binary)
	}
	if err := c.ui.result(out, func() error {
		if err := c.printItems(out.Items); err != nil {
			return err
		}
		return c.ui.print("restart Claude Code, and every session is on the mesh")
	}); err != nil {
		return err
	}
	if failed != nil {
		if !c.ui.json {
			c.ui.fail(explain(failed))
		}
		return &exitError{explain(failed).Exit}
	}
	return nil
}

// installServiceItem makes the daemon a service. Where that is not possible it is said, and no failure.
func (c *call) installServiceItem(ctx context.Context, binary string) (claudeconf.Change, error) {
	item := claudeconf.Change{Item: "service", Action: itemSkipped}
	outcome, file, err := c.installService(ctx, binary, false)
	item.Path = file
	var ci *ciError
	switch {
	case err == nil:
		item.Action = outcome
	case errors.Is(err, service.ErrUnsupported), errors.Is(err, service.ErrNoManager), errors.As(err, &ci):
		item.Note, item.Path = whyNoService(err)+"; the daemon starts with the first command that needs it", ""
		return item, nil
	default:
		item.Action, item.Note = itemFailed, explain(err).Message
	}
	return item, err
}

// whyNoService is the reason in a few words: what the service manager's command said is for those who ask for the service itself.
func whyNoService(err error) string {
	for _, known := range []error{service.ErrUnsupported, service.ErrNoManager} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return err.Error()
}

// claudeSetup finds the client's files and ours.
func (c *call) claudeSetup() (claudeconf.Setup, error) {
	dir, err := mesh.ConfigDir(c.getenv)
	if err != nil {
		return claudeconf.Setup{}, err
	}
	home := c.getenv("HOME")
	if home == "" {
		home = c.getenv("USERPROFILE") // Windows
	}
	moved := c.getenv("CLAUDE_CONFIG_DIR")
	switch {
	case moved != "" && !filepath.IsAbs(moved):
		return claudeconf.Setup{}, usagef("CLAUDE_CONFIG_DIR must be an absolute path, not %q", moved)
	case moved == "" && !filepath.IsAbs(home):
		return claudeconf.Setup{}, mesh.ErrNoHome
	}
	return claudeconf.Setup{Dir: dir, Claude: claudeconf.ClaudeFiles(home, moved)}, nil
}

// explainClaude says what a failure with the client's files means: a file that is not understood, or one that cannot be read or written.
func explainClaude(err error, notUnderstood, notWritten string) error {
	f := &failure{Code: "io_error", Message: err.Error(), Hint: notWritten, Exit: exitIO}
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, claudeconf.ErrNotJSON), errors.Is(err, claudeconf.ErrShape):
		f.Code, f.Hint = "file_not_understood", notUnderstood
	case errors.Is(err, claudeconf.ErrLedger):
		f.Code, f.Hint = "install_record_damaged", "it may hold the only copy of what was there before; move it away to go on without"
	}
	return f
}

func (c *call) printItems(items []claudeconf.Change) error {
	for _, i := range items {
		line := fmt.Sprintf("%-12s %-9s", i.Item, i.Action)
		if i.Path != "" {
			line += "  " + cleanLine(i.Path)
		}
		if i.Note != "" {
			line += "  (" + cleanLine(i.Note) + ")"
		}
		if err := c.ui.print("%s", strings.TrimRight(line, " ")); err != nil {
			return err
		}
	}
	return nil
}

func uninstallVerb() verb {
	return verb{
		name: "uninstall", args: "", short: "undo install: Claude Code's files become what they were",
		long: `Takes out whatever claudemesh install put in. A file that nobody has written since gets its very bytes back; in one that was changed, our
entries go and the rest stays as it is. The daemon's service is stopped and removed. Meshes, messages and keys stay: they are in ~/.claudemesh.

--json prints {"ok", "items": [{"item", "action", "path", "note"}]}.`,
		examples: []string{"claudemesh uninstall"},
		fails:    []string{"8  the service does not stop", "10  a file of the client's cannot be understood or written: it is kept as it is, the others are done"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh uninstall"); err != nil {
				return err
			}
			setup, err := c.claudeSetup()
			if err != nil {
				return err
			}
			// First the service: it must not start what is being taken away.
			out := installJSON{Items: []claudeconf.Change{}}
			outcome, file, serviceErr := c.removeService(ctx)
			switch {
			case errors.Is(serviceErr, service.ErrUnsupported):
				serviceErr = nil
			case serviceErr != nil:
				out.Items = append(out.Items, claudeconf.Change{Item: "service", Action: itemFailed, Path: file, Note: serviceErr.Error()})
			default:
				out.Items = append(out.Items, claudeconf.Change{Item: "service", Action: outcome, Path: file})
			}
			items, err := setup.Uninstall(ctx)
			out.Items = append(out.Items, items...)
			if err != nil {
				const again = "what could not be undone is as it was; correct it and run it again: claudemesh uninstall"
				err = explainClaude(err, again, again)
			} else {
				err = serviceErr
			}
			if err != nil {
				f := explain(err)
				f.Data = map[string]any{"items": out.Items}
				if !c.ui.json {
					if err := c.printItems(out.Items); err != nil {
						return err
					}
				}
				c.ui.fail(f)
				return &exitError{f.Exit}
			}
			out.OK = true
			return c.ui.result(out, func() error { return c.printItems(out.Items) })
		},
	}
}
