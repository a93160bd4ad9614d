package cli

import (
	"context"
	"fmt"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/daemon"
)

func daemonAcceptHostVerb() verb {
	return verb{
		name: "accept-host", args: "", short: "the data directory was moved to this host: use it here",
		long: `The daemon starts only on the host on which its data directory was first used. A changed network, name or interface does not count; the
machine's own id does (or CLAUDEMESH_HOST_ID, where machines share one, as containers may). Accept this host when the data was moved to
it and the other host does not use it any more. --json prints {"ok", "fingerprint_prefix"}.`,
		examples: []string{"claudemesh daemon accept-host"},
		fails:    []string{"6  a daemon runs: it has accepted this host already", "8  this system has no machine id"},
		run: func(_ context.Context, c *call) error {
			o, err := c.hostOptions("claudemesh daemon accept-host")
			if err != nil {
				return err
			}
			prefix, err := daemon.AcceptHost(o)
			if err != nil {
				return hostFailure(err)
			}
			return c.ui.result(map[string]any{"ok": true, "fingerprint_prefix": prefix}, func() error { return c.ui.print("this host is accepted (%s)", prefix) })
		},
	}
}

func daemonRemintVerb() verb {
	return verb{
		name: "remint", args: "", short: "the data directory is a copy: begin anew on this host",
		long: `For a data directory that was copied from a host that goes on using the original. Everything in it is put aside, not deleted: messages,
sessions with their keys, tokens, and the store of a broker if there is one. The daemon then starts with an empty directory. Memberships
stay, because they are in config.json: both hosts are the same member. Meshes whose broker is the other host's daemon are reached there, or
not at all. --json prints {"ok", "fingerprint_prefix", "aside"}.`,
		examples: []string{"claudemesh daemon remint --yes"},
		fails:    []string{"1  not confirmed", "3  nobody can be asked, and --yes is not given", "6  a daemon runs here", "8  this system has no machine id"},
		flags:    []urfave.Flag{yesFlag()},
		run: func(ctx context.Context, c *call) error {
			o, err := c.hostOptions("claudemesh daemon remint")
			if err != nil {
				return err
			}
			if err := c.confirm("put everything in " + o.Dir + " aside and begin anew?"); err != nil {
				return err
			}
			aside, prefix, err := daemon.Remint(o)
			if err != nil {
				return hostFailure(err)
			}
			return c.ui.result(map[string]any{"ok": true, "fingerprint_prefix": prefix, "aside": aside}, func() error {
				return c.ui.print("the data directory is empty and belongs to this host (%s)\n  what was in it  %s", prefix, aside)
			})
		},
	}
}

func (c *call) hostOptions(form string) (daemon.Options, error) {
	if err := c.want(0, 0, form); err != nil {
		return daemon.Options{}, err
	}
	dir, err := c.daemonDir()
	return daemon.Options{Dir: dir, Clock: c.clock, HostID: func() (string, error) { return daemon.HostID(c.getenv) }}, err
}

// hostFailure names what stands against touching the directory.
func hostFailure(err error) error {
	if f := explain(err); f.Code == "already_running" {
		f.Exit, f.Message, f.Hint = exitConflict, fmt.Sprintf("a daemon runs here: %v", bus.ErrLocked), "stop it with: claudemesh daemon down"
		return f
	}
	return err
}
