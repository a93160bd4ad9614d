package cli

import (
	"context"
	"fmt"
	"strings"

	"claudemesh/bus"
	"claudemesh/wire"
)

func sessionListVerb() verb {
	return verb{
		name: "list", aliases: []string{"ls"}, args: "", short: "list the sessions of this machine",
		examples: []string{"claudemesh session list --json"},
		fails:    []string{"5  no such mesh", "7  this session has ended", "8  the daemon does not start or answer"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh session list"); err != nil {
				return err
			}
			slug, err := c.meshFilter(ctx)
			if err != nil {
				return err
			}
			n, err := c.connect(ctx)
			if err != nil {
				return err
			}
			defer n.Close()
			var list bus.SessionList
			if err := n.daemon(ctx, bus.OpSessionList, nil, &list); err != nil {
				return err
			}
			rows := []bus.SessionInfo{}
			for _, s := range list.Sessions {
				if slug == "" || slug == s.Mesh {
					rows = append(rows, s)
				}
			}
			return c.ui.result(rows, func() error {
				if len(rows) == 0 {
					return c.ui.print("no sessions")
				}
				for _, s := range rows {
					if err := c.ui.print("%s", c.sessionLine(s)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

// sessionLine is one session: first what tells it from others, then what it is.
func (c *call) sessionLine(s bus.SessionInfo) string {
	link := s.Link
	if s.LinkError != "" {
		link += " (" + cleanLine(s.LinkError) + ")"
	}
	line := fmt.Sprintf("%s  on %s  pid %d  %s…  link %s  %d unread  %s", c.ui.paint(bold, cleanLine(s.Name)), s.Mesh, s.PID, short(s.Pubkey), link, s.Unread, cleanLine(s.Cwd))
	var more []string
	add := func(what, value string) {
		if value != "" {
			more = append(more, what+" "+cleanLine(value))
		}
	}
	add("role", s.Role)
	groups := make([]string, 0, len(s.Groups))
	for _, g := range s.Groups {
		groups = append(groups, "@"+strings.TrimSuffix(g.Name+":"+g.Role, ":"))
	}
	add("groups", strings.Join(groups, " "))
	if s.MessageMode != wire.ModePush {
		add("messages", s.MessageMode)
	}
	if s.Wake != nil {
		more = append(more, wakeText(*s.Wake))
	}
	if s.Conversation != s.ID {
		add("conversation", s.Conversation)
	}
	if len(more) > 0 {
		line += "\n    " + strings.Join(more, "  ")
	}
	if may := allowedText(s.Caps); may != "" {
		line += "\n    " + may
		switch s.CapsHeld {
		case bus.CapsHeldHere:
			line += "  (only this machine holds it to that: its broker knows no limits of sessions)"
		case bus.CapsUnknown:
			line += "  (this machine holds it to that; its broker has not been reached yet)"
		}
	}
	return line
}
