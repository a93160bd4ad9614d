package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/cli/urlhandler"
	"claudemesh/mesh"
)

// linkStart is how a link begins that the system hands to this program.
const linkStart = urlhandler.Scheme + "://"

func urlHandlerVerb() verb {
	return verb{name: "url-handler", short: "open claudemesh:// links with this program", subs: []verb{urlInstallVerb(), urlUninstallVerb(), urlOpenVerb()}}
}

func urlInstallVerb() verb {
	return verb{
		name: "install", args: "", short: "have the system open claudemesh:// links with this program",
		long: `For this user only: a desktop file on Linux, a small application on macOS, two registry keys on Windows. A link opens a terminal that says
which mesh it is of, and asks before it joins.`,
		examples: []string{"claudemesh url-handler install"},
		fails:    []string{"8  a tool of the system fails", "10  a file cannot be written"},
		run: func(ctx context.Context, c *call) error {
			return c.urlHandler(ctx, "claudemesh url-handler install", urlhandler.Handler.Install, "claudemesh:// links open with this program", "nothing was to be done")
		},
	}
}

func urlUninstallVerb() verb {
	return verb{
		name: "uninstall", aliases: []string{"remove"}, args: "", short: "take that back",
		long:     `Removes what install wrote. It is no error when nothing is there.`,
		examples: []string{"claudemesh url-handler uninstall"},
		fails:    []string{"8  a tool of the system fails", "10  a file cannot be removed"},
		run: func(ctx context.Context, c *call) error {
			return c.urlHandler(ctx, "claudemesh url-handler uninstall", urlhandler.Handler.Uninstall, "claudemesh:// links are not opened any more", "no handler was installed")
		},
	}
}

func (c *call) urlHandler(ctx context.Context, form string, do func(urlhandler.Handler, context.Context) (urlhandler.Result, error), done, nothing string) error {
	if err := c.want(0, 0, form); err != nil {
		return err
	}
	binary, err := c.executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	home := cmp.Or(c.getenv("HOME"), c.getenv("USERPROFILE"))
	if home == "" {
		return mesh.ErrNoHome
	}
	r, err := do(urlhandler.Handler{
		Binary: binary, Home: home, DataHome: c.getenv("XDG_DATA_HOME"),
		Run: func(ctx context.Context, name string, args ...string) ([]byte, error) {
			cmd := exec.CommandContext(ctx, name, args...)
			cmd.Env = c.environ()
			return cmd.CombinedOutput()
		},
	}, ctx)
	var file *fs.PathError
	switch {
	case errors.As(err, &file):
		return &failure{Code: "io_error", Message: err.Error(), Exit: exitIO}
	case err != nil:
		return err
	}
	files, notes := append([]string{}, r.Files...), append([]string{}, r.Notes...)
	return c.ui.result(map[string]any{"ok": true, "files": files, "notes": notes}, func() error {
		for _, n := range r.Notes {
			c.ui.warn("%s", n)
		}
		if len(files) == 0 {
			return c.ui.print("%s", nothing)
		}
		return c.ui.print("%s\n  %s", done, strings.Join(files, "\n  "))
	})
}

func urlOpenVerb() verb {
	return verb{
		name: "open", args: "LINK", short: "join the mesh of a claudemesh:// link, after asking",
		long: `What the system runs for a link, and what claudemesh LINK does. A link comes from a web page or a mail: it says whose mesh it is and asks before
it joins; where nobody can be asked, --yes is needed.`,
		examples: []string{"claudemesh url-handler open claudemesh://mesh.example.org/i/ABCD2345"},
		fails: []string{
			"1  you said no", "3  it is no link of a mesh; it does not say which broker it is of; nobody to ask", "4  the broker cannot be reached", "5  the invite is not good", "6  the mesh is joined already",
		},
		flags: []urfave.Flag{
			yesFlag(), &urfave.StringFlag{Name: "broker", Usage: "the broker of a bare code, at this `URL`"}, &urfave.BoolFlag{Name: "pause", Usage: "wait for Enter at the end, so that a window that closes can be read"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh url-handler open LINK"); err != nil {
				return err
			}
			err := c.openLink(ctx, c.args()[0])
			if !c.cmd.Bool("pause") || !terminal(c.stdin) || !terminal(c.stderr) {
				return err
			}
			if err != nil {
				f := explain(err)
				c.ui.fail(f)
				err = &exitError{f.Exit}
			}
			fmt.Fprint(c.stderr, "press Enter to close ")
			_, _ = bufio.NewReader(c.stdin).ReadString('\n') // the end of the input closes as well
			return err
		},
	}
}

func (c *call) openLink(ctx context.Context, link string) error {
	if !strings.HasPrefix(strings.ToLower(link), linkStart) || len(link) > mesh.MaxInvite {
		return usagef("%s is no claudemesh:// link", quoted(link))
	}
	req := bus.MeshJoin{Invite: mesh.NormalInvite(link), BrokerURL: c.cmd.String("broker")}
	if err := c.checkInvite(req); err != nil {
		return err
	}
	if err := c.confirm(inviteQuestion(req)); err != nil {
		return err
	}
	n, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer n.Close()
	out, err := c.join(ctx, n, req)
	if err != nil {
		return err
	}
	return c.ui.result(membership(out), func() error {
		return c.ui.print("joined mesh %s\n  broker  %s\n  next    claudemesh launch %[1]s", out.Mesh, cleanLine(out.BrokerURL))
	})
}

// inviteQuestion says what would be joined, as far as the invite tells; it was checked.
func inviteQuestion(req bus.MeshJoin) string {
	if base, code, short := mesh.InviteCode(req.Invite); short {
		return fmt.Sprintf("a link invites you into a mesh of the broker at %s (code %s). Its members will be able to write to your sessions. Join?", cleanLine(cmp.Or(base, req.BrokerURL)), cleanLine(code))
	}
	in, _, err := mesh.ParseInvite(req.Invite)
	if err != nil {
		return "join by this link?"
	}
	return fmt.Sprintf("a link invites you into the mesh %s at %s, as %s. Its members will be able to write to your sessions. Join?", quoted(in.MeshSlug), cleanLine(in.BrokerURL), cleanLine(in.Role))
}
