package cli

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// What a session, or outside of one the member, tells about itself: summary, visibility, profile.

func summaryVerb() verb {
	return verb{
		name: "summary", args: "TEXT…", short: "tell peers in a line what you are working on",
		long:     `The text shows in the list of peers. "" removes it. --json prints {"summary", "mesh"}.`,
		examples: []string{"claudemesh summary fixing the build of the parser"},
		fails:    []string{"3  no text, or too much", "4  the broker cannot be reached", "7  this session may not change its profile"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, -1, "claudemesh summary TEXT…"); err != nil {
				return err
			}
			text := strings.TrimSpace(strings.Join(c.args(), " "))
			f := wire.SetSummary{Summary: text}
			if err := f.Validate(); err != nil {
				return usagef("%v", err)
			}
			slug, err := c.askBroker(ctx, bus.CallSetSummary, f, nil)
			if err != nil {
				return err
			}
			return c.ui.result(map[string]any{"summary": text, "mesh": slug}, func() error {
				if text == "" {
					return c.ui.print("no summary on %s any more", slug)
				}
				return c.ui.print("summary on %s: %s", slug, cleanLine(text))
			})
		},
	}
}

func visibleVerb() verb {
	return verb{
		name: "visible", args: "yes|no", short: "be listed to others, or not",
		long: `With no, other members do not see you in the list of peers, and messages to groups and to everybody pass you by. Direct messages arrive all
the same. --json prints {"visible", "mesh"}.`,
		examples: []string{"claudemesh visible no"},
		fails:    []string{"3  neither yes nor no", "4  the broker cannot be reached", "7  this session may not change its profile"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh visible yes|no"); err != nil {
				return err
			}
			var visible bool
			switch strings.ToLower(c.args()[0]) {
			case "yes", "y", "true", "1":
				visible = true
			case "no", "n", "false", "0":
			default:
				return usagef("%s is neither yes nor no", quoted(c.args()[0]))
			}
			slug, err := c.askBroker(ctx, bus.CallSetVisible, map[string]bool{"visible": visible}, nil)
			if err != nil {
				return err
			}
			return c.ui.result(map[string]any{"visible": visible, "mesh": slug}, func() error {
				if visible {
					return c.ui.print("others see you on %s", slug)
				}
				return c.ui.print("others do not see you on %s", slug)
			})
		},
	}
}

func profileVerb() verb {
	status := verb{name: "status", short: "say what you are doing", subs: []verb{statusSetVerb("set")}}
	return verb{
		name: "profile", short: "show or change what peers learn about you",
		long: `Without flags: shows how this session (outside of a session: the member) is listed to others. With flags: changes the fields named; an
empty value removes one. --json prints the profile with name, key, status, summary and groups.`,
		examples: []string{"claudemesh profile", `claudemesh profile --title builder --bio "I fix CI" --capabilities go,ci`},
		fails:    []string{"3  a value is too long", "4  the broker cannot be reached", "7  this session may not change its profile"},
		flags: []urfave.Flag{
			&urfave.StringFlag{Name: "avatar", Usage: "an `EMOJI` or the address of a picture"},
			&urfave.StringFlag{Name: "title", Usage: "a few `WORDS`"},
			&urfave.StringFlag{Name: "bio", Usage: "some `TEXT`"},
			&urfave.StringFlag{Name: "capabilities", Usage: "what you can do: `A,B,C`"},
		},
		subs: []verb{status, summaryVerb(), visibleVerb()},
		run: func(ctx context.Context, c *call) error {
			if c.cmd.Args().Present() {
				return c.unknownCommand(c.args()[0])
			}
			f, changes := c.profileChange()
			if err := f.Validate(); err != nil {
				return usagef("%v", err)
			}
			return c.onMesh(ctx, func(ctx context.Context, n *conn, slug string) error {
				if changes {
					if err := n.broker(ctx, slug, bus.CallSetProfile, f, nil); err != nil {
						return err
					}
				}
				me, err := c.ownRow(ctx, n, slug)
				if err != nil {
					return err
				}
				return c.printProfile(slug, me)
			})
		},
	}
}

// profileChange is the change that the flags ask for.
func (c *call) profileChange() (f wire.SetProfile, changes bool) {
	for name, to := range map[string]**string{"avatar": &f.Avatar, "title": &f.Title, "bio": &f.Bio} {
		if c.cmd.IsSet(name) {
			value := strings.TrimSpace(c.cmd.String(name))
			*to, changes = &value, true
		}
	}
	if c.cmd.IsSet("capabilities") {
		caps := []string{}
		for _, s := range strings.Split(c.cmd.String("capabilities"), ",") {
			if s = strings.TrimSpace(s); s != "" {
				caps = append(caps, s)
			}
		}
		f.Capabilities, changes = &caps, true
	}
	return f, changes
}

// ownRow is how the caller is listed: its session, or the member's own connection.
func (c *call) ownRow(ctx context.Context, n *conn, slug string) (peerRow, error) {
	rows, err := n.peers(ctx, c.clock, slug, true)
	if err != nil {
		return peerRow{}, err
	}
	i := slices.IndexFunc(rows, func(r peerRow) bool {
		return r.IsThisSession || !n.session && r.IsSelf && r.PeerRole == rolePlane
	})
	if i < 0 {
		return peerRow{}, &bus.APIError{Code: 503, Reason: "not_listed", Detail: "the broker does not list this " + map[bool]string{true: "session", false: "member"}[n.session] + " now; its link may just be opening"}
	}
	return rows[i], nil
}

type profileJSON struct {
	Mesh    string          `json:"mesh"`
	Name    string          `json:"name"`
	Pubkey  string          `json:"pubkey"`
	Status  string          `json:"status"`
	Summary *string         `json:"summary"`
	Visible bool            `json:"visible"`
	Groups  []mesh.Group    `json:"groups"`
	Profile json.RawMessage `json:"profile"`
}

func (c *call) printProfile(slug string, me peerRow) error {
	out := profileJSON{
		Mesh: slug, Name: me.DisplayName, Pubkey: me.Pubkey, Status: me.Status, Summary: me.Summary, Visible: me.Visible, Groups: me.Groups, Profile: me.Profile,
	}
	if out.Profile == nil {
		out.Profile = json.RawMessage("{}")
	}
	return c.ui.result(out, func() error {
		if err := c.ui.print("%s on %s", c.ui.paint(bold, cleanLine(me.DisplayName)), slug); err != nil {
			return err
		}
		var p wire.PeerProfile
		_ = json.Unmarshal(out.Profile, &p) // a strange profile shows as none
		summary := ""
		if me.Summary != nil {
			summary = *me.Summary
		}
		visible := ""
		if !me.Visible {
			visible = "no"
		}
		for _, row := range [][2]string{
			{"key", short(me.Pubkey) + "…"},
			{"status", me.Status},
			{"summary", summary},
			{"visible", visible},
			{"groups", groupNames(me.Groups)},
			{"avatar", p.Avatar},
			{"title", p.Title},
			{"bio", p.Bio},
			{"can", strings.Join(p.Capabilities, ", ")},
		} {
			if row[1] == "" {
				continue
			}
			if err := c.ui.print("  %-8s %s", row[0], cleanLine(row[1])); err != nil {
				return err
			}
		}
		return nil
	})
}

func groupNames(groups []mesh.Group) string {
	names := make([]string, 0, len(groups))
	for _, g := range groups {
		name := "@" + g.Name
		if g.Role != "" {
			name += ":" + g.Role
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}
