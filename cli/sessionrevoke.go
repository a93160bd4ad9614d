package cli

import (
	"context"
	"strings"

	"claudemesh/bus"
)

func sessionRevokeVerb() verb {
	return verb{
		name: "revoke", args: "SESSION", short: "end a session's registration",
		long: `Ends a session that runs on this machine: its token opens nothing from now on, its connections are cut, its link to the broker is closed.
The program itself goes on, without the mesh. SESSION is the session's id, or the beginning of it, or its name. Messages that it had not been shown
wait for the next session of its name.`,
		examples: []string{"claudemesh session revoke alice", "claudemesh session revoke 0f94a6d8 --json"},
		fails:    []string{"3  several sessions answer to that name", "5  no such session", "7  a session asked: only the user may"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh session revoke SESSION"); err != nil {
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
			s, err := chooseSession(list.Sessions, c.args()[0], slug)
			if err != nil {
				return err
			}
			if err := n.daemon(ctx, bus.OpSessionEnd, bus.SessionID{ID: s.ID}, nil); err != nil {
				return err
			}
			return c.ui.result(s, func() error {
				return c.ui.print("ended session %s (%s on %s); process %d still runs, without the mesh", s.ID, cleanLine(s.Name), s.Mesh, s.PID)
			})
		},
	}
}

// leastPrefix is how much of an id names a session.
const leastPrefix = 4

// chooseSession finds the one session that is meant: by its id, else by its name, else by the beginning of its id.
func chooseSession(all []bus.SessionInfo, word, slug string) (bus.SessionInfo, error) {
	for _, fits := range []func(bus.SessionInfo) bool{
		func(s bus.SessionInfo) bool { return s.ID == word },
		func(s bus.SessionInfo) bool { return s.Name == word },
		func(s bus.SessionInfo) bool { return len(word) >= leastPrefix && strings.HasPrefix(s.ID, word) },
	} {
		var found []bus.SessionInfo
		for _, s := range all {
			if (slug == "" || s.Mesh == slug) && fits(s) {
				found = append(found, s)
			}
		}
		switch len(found) {
		case 0:
			continue
		case 1:
			return found[0], nil
		}
		var ids, lines []string
		for _, s := range found {
			ids, lines = append(ids, s.ID), append(lines, s.ID+"  "+cleanLine(s.Name)+" on "+s.Mesh)
		}
		return bus.SessionInfo{}, &failure{
			Code: "session_ambiguous", Message: "several sessions answer to " + quoted(word), Hint: "name one by its id:\n  " + strings.Join(lines, "\n  "),
			Data: map[string]any{"sessions": ids}, Exit: exitUsage,
		}
	}
	return bus.SessionInfo{}, &failure{Code: "no_session", Message: "no session " + quoted(word) + " runs here", Hint: "see which do with: claudemesh session list", Exit: exitNotFound}
}
