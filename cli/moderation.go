package cli

import (
	"context"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/wire"
)

// Moderation: kick, disconnect, ban, unban, bans. Only administrators of a mesh may; the broker decides.

func kickVerb() verb {
	return verb{
		name: "kick", args: "PEER\n--stale DURATION\n--all", short: "end other sessions' connections for good",
		long: `Closes the connections of a peer: a display name, a key, or 8 or more digits of one. A kicked session does not come back by itself; a daemon's own
connection is left alone, because the mail of its whole machine goes over it. --stale means those that gave no sign of life for so long, --all everybody
below you; neither is ever about your own. To shut a member out, ban it.`,
		examples: []string{"claudemesh kick builder -y", "claudemesh kick --stale 10m -y --json"},
		fails:    moderationFails("5  no such peer is connected"),
		flags:    expelFlags(),
		run:      func(ctx context.Context, c *call) error { return c.expel(ctx, wire.TypeKick, "kick", "kicked") },
	}
}

func disconnectVerb() verb {
	return verb{
		name: "disconnect", args: "PEER\n--stale DURATION\n--all", short: "cut other members' connections; they come back",
		long:     `Closes the connections of a peer, its daemon's too. Their clients connect again at once: it is a nudge. See kick for the arguments.`,
		examples: []string{"claudemesh disconnect bob -y"},
		fails:    moderationFails("5  no such peer is connected"),
		flags:    expelFlags(),
		run: func(ctx context.Context, c *call) error {
			return c.expel(ctx, wire.TypeDisconnect, "disconnect", "disconnected")
		},
	}
}

func expelFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "stale", Usage: "those without a sign of life for `DURATION` such as 90s, 10m, 1h (at most a day)"},
		&urfave.BoolFlag{Name: "all", Usage: "everybody below you"},
		yesFlag(),
	}
}

func moderationFails(more ...string) []string {
	return append([]string{"1  you said no", "3  the peer is ambiguous; or it needs --yes, as there is nobody to ask", "4  the broker cannot be reached"},
		append(more, "7  you are no administrator of the mesh, or the peer is not below you")...)
}

func (c *call) expel(ctx context.Context, op, verb, done string) error {
	req := wire.Kick{All: c.cmd.Bool("all")}
	stale := c.cmd.String("stale")
	choices := 0
	for _, chosen := range []bool{req.All, stale != "", c.cmd.Args().Present()} {
		if chosen {
			choices++
		}
	}
	usage := "claudemesh " + verb + " PEER | --stale DURATION | --all"
	if choices != 1 {
		return &usageError{message: "say whom: a peer, --stale or --all", hint: "usage: " + usage}
	}
	if err := c.want(0, 1, usage); err != nil {
		return err
	}
	whom := "everybody below you"
	switch {
	case stale != "":
		d, err := parseDuration(stale)
		if err != nil || d.Milliseconds() <= 0 {
			return usagef("--stale %q is no duration such as 90s, 10m or 1h", stale)
		}
		req.Stale, whom = d.Milliseconds(), "those who were silent for "+stale
	case !req.All:
		req.Target = c.args()[0]
		whom = quoted(req.Target)
	}
	if err := req.Validate(); err != nil {
		return usagef("%v", err)
	}
	slug, err := c.mesh(ctx, true)
	if err != nil {
		return err
	}
	if err := c.confirm(verb + " " + whom + " on mesh " + slug + "?"); err != nil {
		return err
	}
	var ack wire.KickAck
	if slug, err = c.askBroker(ctx, op, req, &ack); err != nil {
		return err
	}
	if req.Target != "" && len(ack.Kicked)+len(ack.SkippedControlPlane) == 0 {
		return &failure{Code: "peer_not_found", Message: "no connected peer answers to " + quoted(req.Target), Hint: "see who is there with: claudemesh peer list --all", Exit: exitNotFound}
	}
	return c.ui.result(map[string]any{"ok": true, "mesh": slug, done: list(ack.Kicked), "skipped_control_plane": list(ack.SkippedControlPlane)}, func() error {
		if len(ack.Kicked) == 0 {
			if err := c.ui.print("nobody was %s", done); err != nil {
				return err
			}
		} else if err := c.ui.print("%s: %s", done, cleanLine(strings.Join(ack.Kicked, ", "))); err != nil {
			return err
		}
		if len(ack.SkippedControlPlane) > 0 {
			return c.ui.print("  left alone, as daemons' own connections: %s", cleanLine(strings.Join(ack.SkippedControlPlane, ", ")))
		}
		return nil
	})
}

// list is names as JSON shows them: never null.
func list(names []string) []string { return append([]string{}, names...) }

func banVerb() verb {
	return verb{
		name: "ban", args: "PEER", short: "remove a member until it is unbanned",
		long: `Closes all connections of the member and revokes its API keys. It cannot connect any more, nor join again with its key, whatever invite it has.
What it made stays. PEER is a display name, a key, or 8 or more digits of one. Nobody bans the owner, and administrators do not ban one another.`,
		examples: []string{"claudemesh ban mallory -y"},
		fails:    moderationFails("5  no such member"),
		flags:    []urfave.Flag{yesFlag()},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh ban PEER"); err != nil {
				return err
			}
			slug, err := c.mesh(ctx, true)
			if err != nil {
				return err
			}
			if err := c.confirm("ban " + quoted(c.args()[0]) + " from mesh " + slug + "?"); err != nil {
				return err
			}
			var ack wire.BanAck
			if slug, err = c.askBroker(ctx, wire.TypeBan, wire.Ban{Target: c.args()[0]}, &ack); err != nil {
				return err
			}
			return c.ui.result(map[string]any{"ok": true, "mesh": slug, "banned": ack.Banned}, func() error {
				return c.ui.print("banned %s from %s", cleanLine(ack.Banned), slug)
			})
		},
	}
}

func unbanVerb() verb {
	return verb{
		name: "unban", args: "PEER", short: "let a banned member in again",
		examples: []string{"claudemesh unban mallory"},
		fails:    []string{"3  the peer is ambiguous", "4  the broker cannot be reached", "5  no such member is banned", "7  you are no administrator of the mesh"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh unban PEER"); err != nil {
				return err
			}
			var ack wire.UnbanAck
			slug, err := c.askBroker(ctx, wire.TypeUnban, wire.Ban{Target: c.args()[0]}, &ack)
			if err != nil {
				return err
			}
			return c.ui.result(map[string]any{"ok": true, "mesh": slug, "unbanned": ack.Unbanned}, func() error {
				return c.ui.print("%s may come back to %s", cleanLine(ack.Unbanned), slug)
			})
		},
	}
}

func bansVerb() verb {
	return verb{
		name: "bans", args: "", short: "list the banned members",
		examples: []string{"claudemesh bans --json"},
		fails:    []string{"4  the broker cannot be reached", "7  you are no administrator of the mesh"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh bans"); err != nil {
				return err
			}
			var out wire.ListBansResult
			slug, err := c.askBroker(ctx, wire.TypeListBans, nil, &out)
			if err != nil {
				return err
			}
			return c.ui.result(append([]wire.BanRecord{}, out.Bans...), func() error {
				if len(out.Bans) == 0 {
					return c.ui.print("nobody is banned from %s", slug)
				}
				for _, b := range out.Bans {
					if err := c.ui.print("  %s  %s…  since %s", c.ui.paint(bold, cleanLine(b.Name)), cleanLine(short(b.Pubkey)), cleanLine(b.RevokedAt)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}
