package cli

import (
	"context"
	"errors"
	"os/exec"
	"time"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/cli/release"
	"claudemesh/mesh"
)

// Newer releases. Where a release server is named, a person at a terminal hears once a day of one that is newer. The command that tells has not asked: a process
// of its own did, started by an earlier command, so that nothing ever waits for a server.

// releaseEnv names the release server; without it nobody is asked.
const releaseEnv = "CLAUDEMESH_RELEASE_URL"

// askEveryDay is how often a server is asked, and how often the user is told.
const askEveryDay = 24 * time.Hour

func upgradeVerb() verb {
	return verb{
		name: "upgrade", aliases: []string{"update"}, args: "", short: "is there a newer release",
		long: `Asks the release server that ` + releaseEnv + ` names, and prints what it says. Nothing is installed: the program was put in
its place by you or by a package manager, and so is the next one. A daemon that runs is replaced by the first command of the new program.

The server answers with a JSON object that has version and url, or with a release of GitHub's API.
Where it is named, other commands tell at a terminal, once a day, of a newer release; they never wait for the server.

--json prints {"ok", "current", "latest", "newer", "url"}.`,
		examples: []string{"claudemesh upgrade --check", releaseEnv + "=https://api.github.com/repos/OWNER/claudemesh/releases/latest claudemesh upgrade"},
		fails:    []string{"3  no release server is named, or its address is not https", "4  it does not answer, or not with a version"},
		flags: []urfave.Flag{
			&urfave.BoolFlag{Name: "check", Usage: "only ask (the default, and all there is)"},
			&urfave.BoolFlag{Name: "refresh", Hidden: true, Usage: "remember the answer for later, and say nothing"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh upgrade"); err != nil {
				return err
			}
			return c.askRelease(ctx)
		},
	}
}

func (c *call) askRelease(ctx context.Context) error {
	address := c.getenv(releaseEnv)
	if address == "" {
		return &usageError{message: "no release server is named", hint: "set " + releaseEnv + " to the address of one"}
	}
	latest, err := release.Fetch(ctx, address)
	if errors.Is(err, release.ErrAddress) {
		return &usageError{message: err.Error(), hint: "look at " + releaseEnv}
	}
	if err != nil {
		return &failure{Code: "release_unknown", Message: cleanLine(err.Error()), Hint: "try again later, or look at " + releaseEnv, Exit: exitNetwork}
	}
	dir, err := mesh.ConfigDir(c.getenv)
	if err != nil {
		return err
	}
	heard := release.Recall(dir)
	heard.Latest, heard.AskedAt = latest, c.clock.Now().UnixMilli()
	if err := release.Remember(dir, heard); err != nil || c.cmd.Bool("refresh") {
		return err
	}
	newer := latest.Newer(c.app.release)
	out := map[string]any{"ok": true, "current": c.app.release, "latest": latest.Version, "newer": newer, "url": latest.URL}
	return c.ui.result(out, func() error {
		if !newer {
			return c.ui.print("claudemesh v%s is the newest release", c.app.release)
		}
		return c.ui.print("claudemesh v%s is out, this is v%s\n  %s", latest.Version, c.app.release, latest.URL)
	})
}

// tellRelease runs after a command: it tells what was heard, and has it heard anew when that is old. Only a person at a terminal is told.
func (a *app) tellRelease() {
	if a.getenv(releaseEnv) == "" || a.getenv("CI") != "" || a.ui.json || !terminal(a.stderr) {
		return
	}
	dir, err := mesh.ConfigDir(a.getenv)
	if err != nil {
		return
	}
	heard, now := release.Recall(dir), a.clock.Now()
	old := func(at int64) bool { return now.Sub(time.UnixMilli(at)).Abs() >= askEveryDay }
	tell, ask := heard.Newer(a.release) && old(heard.ToldAt), old(heard.AskedAt)
	if !tell && !ask {
		return
	}
	if tell {
		heard.ToldAt = now.UnixMilli()
	}
	if ask {
		heard.AskedAt = now.UnixMilli() // also when nobody will answer
	}
	if release.Remember(dir, heard) != nil {
		return // or it would be told, and asked, with every command
	}
	if tell {
		a.ui.note("[claudemesh] info version %s is out, this is %s: %s", heard.Version, a.release, heard.URL)
	}
	if exe, err := a.executable(); ask && err == nil {
		cmd := exec.Command(exe, "upgrade", "--refresh")
		cmd.Env = a.environ()
		detach(cmd)
		if cmd.Start() == nil {
			_ = cmd.Process.Release() // it outlives us, and nobody waits for it
		}
	}
}
