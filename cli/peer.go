package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/jonboulle/clockwork"
	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
)

// peerFields are what --json=FIELDS may select: the keys of a row as the broker sends them, what the daemon adds, and "name".
var peerFields = []string{
	"name", "pubkey", "memberPubkey", "displayName", "status", "summary", "groups", "sessionId", "connectedAt", "cwd", "hostname", "peerType", "channel", "model",
	"stats", "visible", "profile", "peerRole", "role", "allowed_caps", "mesh", "isSelf", "isThisSession", "wake",
}

// rolePlane marks the rows of daemons' own connections: nobody who could be written to sits there that is not listed otherwise.
const rolePlane = "control-plane"

func peerVerb() verb {
	list := peersVerb()
	list.name = "list"
	list.aliases = []string{"ls"}
	return verb{name: "peer", short: "who else is on the mesh", subs: []verb{list, kickVerb(), disconnectVerb(), banVerb(), unbanVerb(), bansVerb(), verifyVerb()}}
}

func peersVerb() verb {
	return verb{
		name: "peers", args: "", short: "list who is on the mesh now", fields: peerFields,
		long: `Lists the sessions connected to the broker: of the mesh named, else the session's own, else of every joined mesh. An offline peer is
not listed, and can be written to all the same.

--json prints an array of peers for one mesh, and an array of {mesh, peers} for several. --json=name,status keeps those keys only.`,
		examples: []string{"claudemesh peer list", "claudemesh peer list --mesh team --json=name,status,pubkey"},
		fails:    []string{"4  the broker cannot be reached", "5  no such mesh"},
		flags:    []urfave.Flag{&urfave.BoolFlag{Name: "all", Usage: "also the connections of daemons themselves"}},
		run: func(ctx context.Context, c *call) error {
			fields, err := c.peerSelection()
			if err != nil {
				return err
			}
			slugs, err := c.meshes(ctx)
			if err != nil {
				return err
			}
			n, err := c.connect(ctx)
			if err != nil {
				return err
			}
			defer n.Close()
			if len(slugs) == 1 {
				peers, err := n.peers(ctx, c.clock, slugs[0], c.cmd.Bool("all"))
				if err != nil {
					return err
				}
				return c.ui.result(project(peers, fields), func() error { return c.printPeers(slugs[0], peers) })
			}
			return c.peersOfAll(ctx, n, slugs, fields)
		},
	}
}

// peerSelection is what --json=FIELDS chose. The fields belong to the rows, also where rows of several meshes are listed, so it is done here. A list of them may
// stand behind a --json of its own, as scripts write it that were made for the reference: a boolean takes no word, but this verb has no other argument.
func (c *call) peerSelection() ([]string, error) {
	list := c.fields
	if c.ui.json && list == "" && len(c.args()) == 1 {
		list = c.args()[0]
	} else if c.cmd.Args().Present() {
		return nil, &usageError{message: "unexpected argument " + quoted(c.args()[0]), hint: "fields are chosen with --json=name,status"}
	}
	c.ui.fields = nil
	return fieldList(list, peerFields)
}

// peerRow is one row: as it came, so that no key of a newer broker is lost, and as far as we understand it.
type peerRow struct {
	raw json.RawMessage
	bus.Peer
}

func (r peerRow) MarshalJSON() ([]byte, error) { return r.raw, nil }

// peers asks for the peers of one mesh, the own session first.
func (n *conn) peers(ctx context.Context, clock clockwork.Clock, slug string, all bool) ([]peerRow, error) {
	var reply struct {
		Peers []json.RawMessage `json:"peers"`
	}
	err := n.whenOpen(ctx, clock, slug, func() error {
		return n.Do(ctx, bus.CallSubject(slug, n.actor, bus.CallListPeers), struct{}{}, &reply)
	})
	if err != nil {
		return nil, err
	}
	rows := []peerRow{}
	for _, raw := range reply.Peers {
		r := peerRow{raw: raw}
		if err := json.Unmarshal(raw, &r.Peer); err != nil {
			return nil, fmt.Errorf("decode list of peers: %w", err)
		}
		if all || r.PeerRole != rolePlane {
			rows = append(rows, r)
		}
	}
	slices.SortStableFunc(rows, func(a, b peerRow) int {
		switch {
		case a.IsThisSession != b.IsThisSession && a.IsThisSession:
			return -1
		case a.IsThisSession != b.IsThisSession:
			return 1
		}
		return strings.Compare(strings.ToLower(a.DisplayName), strings.ToLower(b.DisplayName))
	})
	return rows, nil
}

type meshPeers struct {
	Mesh  string `json:"mesh"`
	Peers any    `json:"peers"`
	Error string `json:"error,omitempty"`
}

// peersOfAll lists several meshes. One that fails is said to fail and does not hide the others; the exit code tells.
func (c *call) peersOfAll(ctx context.Context, n *conn, slugs, fields []string) error {
	var out []meshPeers
	code := exitOK
	for _, slug := range slugs {
		peers, err := n.peers(ctx, c.clock, slug, c.cmd.Bool("all"))
		entry := meshPeers{Mesh: slug, Peers: project(peers, fields)}
		if err != nil {
			f := explain(err)
			code, entry.Error = f.Exit, f.Code
			if !c.ui.json {
				c.ui.warn("mesh %s: %s", slug, f.Message)
			}
		} else if !c.ui.json {
			if err := c.printPeers(slug, peers); err != nil {
				return err
			}
		}
		out = append(out, entry)
	}
	if c.ui.json {
		if err := c.ui.printJSON(out, false); err != nil {
			return err
		}
	}
	if code != exitOK {
		return &exitError{code}
	}
	return nil
}

func (c *call) printPeers(slug string, peers []peerRow) error {
	if err := c.ui.print("%s on %s", plural(len(peers), "peer"), slug); err != nil {
		return err
	}
	for _, p := range peers {
		if err := c.ui.print("%s", c.peerLine(p)); err != nil {
			return err
		}
	}
	return nil
}

func (c *call) peerLine(p peerRow) string {
	dot := c.ui.paint(green, "●")
	if p.Status == "working" {
		dot = c.ui.paint(yellow, "●")
	}
	line := fmt.Sprintf("  %s %s  %s", dot, c.ui.paint(bold, cleanLine(p.DisplayName)), cleanLine(p.Status))
	switch {
	case p.IsThisSession:
		line += "  (this session)"
	case p.IsSelf:
		line += "  (your other session)"
	}
	var groups []string
	for _, g := range p.Groups {
		name := "@" + cleanLine(g.Name)
		if g.Role != "" {
			name += ":" + cleanLine(g.Role)
		}
		groups = append(groups, name)
	}
	if len(groups) > 0 {
		line += "  [" + strings.Join(groups, ", ") + "]"
	}
	line += "  " + c.ui.paint(dim, short(p.Pubkey)+"…")
	if p.Summary != nil && *p.Summary != "" {
		line += "  — " + cleanLine(*p.Summary)
	}
	if p.Role != "" {
		line += "\n      role: " + cleanLine(p.Role)
	}
	if may := allowedText(p.AllowedCaps); may != "" {
		line += "\n      " + may
	}
	if p.Cwd != "" {
		line += "\n      cwd: " + cleanLine(p.Cwd)
	}
	if p.Wake != nil {
		line += "\n      " + wakeText(*p.Wake)
	}
	return line
}

// project keeps the selected keys of every row.
func project(rows []peerRow, fields []string) any {
	if rows == nil {
		rows = []peerRow{}
	}
	if fields == nil {
		return rows
	}
	out := make([]json.RawMessage, 0, len(rows))
	for _, r := range rows {
		keys, _ := object(r.raw) // it was an object before
		out = append(out, pickKeys(keys, fields))
	}
	return out
}
