package cli

import (
	"cmp"
	"context"
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

func groupVerb() verb {
	return verb{name: "group", short: "groups: several peers under one @name", subs: []verb{groupJoinVerb(), groupLeaveVerb(), groupListVerb()}}
}

func groupJoinVerb() verb {
	return verb{
		name: "join", args: "@NAME", short: "be in a group",
		long: `A group is there as soon as somebody is in it. What is sent to @NAME reaches this session (outside of a session: the member), also when it was
offline. A name may have parts: @dev reaches @dev/core, too. Joining again changes the role. --json prints {"group", "role", "mesh"}.`,
		examples: []string{"claudemesh group join @reviewers --role lead"},
		fails:    []string{"3  not a group's name", "4  the broker cannot be reached", "7  this session may not change its groups"},
		flags:    []urfave.Flag{&urfave.StringFlag{Name: "role", Usage: "your `ROLE` in it"}},
		run: func(ctx context.Context, c *call) error {
			name, err := c.groupName("claudemesh group join @NAME [--role ROLE]")
			if err != nil {
				return err
			}
			f := wire.JoinGroup{Name: name, Role: strings.TrimSpace(c.cmd.String("role"))}
			if err := f.Validate(); err != nil {
				return usagef("%v", err)
			}
			slug, err := c.askBroker(ctx, bus.CallJoinGroup, f, nil)
			if err != nil {
				return err
			}
			var role any
			if f.Role != "" {
				role = f.Role
			}
			return c.ui.result(map[string]any{"group": name, "role": role, "mesh": slug}, func() error {
				return c.ui.print("in @%s on %s", cleanLine(name), slug)
			})
		},
	}
}

func groupLeaveVerb() verb {
	return verb{
		name: "leave", args: "@NAME", short: "be in a group no longer",
		long:     `Leaving a group one is not in changes nothing. --json prints {"group", "left", "mesh"}.`,
		examples: []string{"claudemesh group leave @reviewers"},
		fails:    []string{"3  not a group's name", "4  the broker cannot be reached", "7  this session may not change its groups"},
		run: func(ctx context.Context, c *call) error {
			name, err := c.groupName("claudemesh group leave @NAME")
			if err != nil {
				return err
			}
			slug, err := c.askBroker(ctx, bus.CallLeaveGroup, wire.LeaveGroup{Name: name}, nil)
			if err != nil {
				return err
			}
			return c.ui.result(map[string]any{"group": name, "left": true, "mesh": slug}, func() error {
				return c.ui.print("not in @%s on %s any more", cleanLine(name), slug)
			})
		},
	}
}

// groupName reads the one argument, with or without its "@".
func (c *call) groupName(form string) (string, error) {
	if err := c.want(1, 1, form); err != nil {
		return "", err
	}
	name := strings.TrimPrefix(strings.TrimSpace(c.args()[0]), "@")
	if t, err := mesh.ParseTarget("@" + name); err != nil || t.Kind != mesh.TargetGroup || strings.Contains(name, ":") {
		return "", usagef("%s cannot be a group's name", quoted(c.args()[0]))
	}
	return name, nil
}

type groupRow struct {
	Group   string   `json:"group"`
	Mine    bool     `json:"mine"`
	Role    string   `json:"role,omitempty"` // one's own
	Members []string `json:"members"`        // names of those online
}

func groupListVerb() verb {
	return verb{
		name: "list", aliases: []string{"ls"}, args: "", short: "list the groups and who of them is online",
		long:     `--json prints an array of {"group", "mine", "role", "members"}.`,
		examples: []string{"claudemesh group list"},
		fails:    []string{"4  the broker cannot be reached"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh group list"); err != nil {
				return err
			}
			return c.onMesh(ctx, func(ctx context.Context, n *conn, slug string) error {
				peers, err := n.peers(ctx, c.clock, slug, true)
				if err != nil {
					return err
				}
				rows := groupRows(peers, n.session)
				return c.ui.result(rows, func() error {
					if len(rows) == 0 {
						return c.ui.print("nobody is in a group on %s", slug)
					}
					for _, g := range rows {
						mine := ""
						if g.Mine {
							mine = "  (yours)"
						}
						if err := c.ui.print("@%s%s  %s", c.ui.paint(bold, cleanLine(g.Group)), mine, cleanLine(strings.Join(g.Members, ", "))); err != nil {
							return err
						}
					}
					return nil
				})
			})
		},
	}
}

// groupRows turns the list of peers around. inSession says whether one's own row is that of a session, or the member's.
func groupRows(peers []peerRow, inSession bool) []groupRow {
	byName := map[string]*groupRow{}
	for _, p := range peers {
		own := p.IsThisSession || !inSession && p.IsSelf && p.PeerRole == rolePlane
		for _, g := range p.Groups {
			row := byName[g.Name]
			if row == nil {
				row = &groupRow{Group: g.Name, Members: []string{}}
				byName[g.Name] = row
			}
			row.Members = append(row.Members, p.DisplayName)
			if own {
				row.Mine, row.Role = true, g.Role
			}
		}
	}
	rows := []groupRow{}
	for _, row := range byName {
		rows = append(rows, *row)
	}
	slices.SortFunc(rows, func(a, b groupRow) int { return cmp.Compare(a.Group, b.Group) })
	return rows
}
