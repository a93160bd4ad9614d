package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"claudemesh/bus"
	"claudemesh/mesh"
)

func listVerb() verb {
	return verb{
		name: "list", aliases: []string{"ls"}, args: "", short: "list the joined meshes",
		long: `Lists the meshes of config.json. When a daemon runs it tells the state of their links, and the brokers that answer tell role, owner and
how many members there are. It starts no daemon.`,
		examples: []string{"claudemesh list --json"},
		fails:    []string{"10  config.json cannot be read"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh list"); err != nil {
				return err
			}
			dir, err := mesh.ConfigDir(c.getenv)
			if err != nil {
				return err
			}
			config, err := mesh.LoadConfig(dir)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			known := c.known(ctx)
			rows := []meshRow{}
			for _, j := range config.Meshes {
				row := meshRow{Slug: j.Slug, Name: j.Name, MeshID: j.MeshID, MemberID: j.MemberID, Pubkey: j.Pubkey, BrokerURL: j.BrokerURL, JoinedAt: j.JoinedAt}
				if m, ok := known[j.Slug]; ok {
					row.Link, row.Error = m.Link, m.Error
					row.say(m.Server)
				}
				rows = append(rows, row)
			}
			return c.ui.result(rows, func() error { return c.printMeshes(rows) })
		},
	}
}

// meshRow is one mesh of the list. What comes from the broker is absent when it did not answer.
type meshRow struct {
	Slug       string `json:"slug"`
	Name       string `json:"name"`
	MeshID     string `json:"mesh_id"`
	MemberID   string `json:"member_id"`
	Pubkey     string `json:"pubkey"`
	BrokerURL  string `json:"broker_url"`
	JoinedAt   string `json:"joined_at"`
	Link       string `json:"link,omitempty"`  // connecting, open, waiting, closed; absent when no daemon runs
	Error      string `json:"error,omitempty"` // why the link is not open
	Role       string `json:"role,omitempty"`
	IsOwner    *bool  `json:"is_owner,omitempty"`
	Owner      string `json:"owner,omitempty"` // display name
	Members    *int   `json:"member_count,omitempty"`
	Online     *int   `json:"active_peers,omitempty"` // connections
	ServerSlug string `json:"server_slug,omitempty"`  // only when it is another one than here
}

func (r *meshRow) say(s *bus.MeshServer) {
	if s == nil {
		return
	}
	r.Role, r.IsOwner, r.Owner, r.Members, r.Online = s.Role, &s.IsOwner, s.OwnerName, &s.Members, &s.Online
	if s.Slug != r.Slug {
		r.ServerSlug = s.Slug
	}
}

func (c *call) printMeshes(rows []meshRow) error {
	if len(rows) == 0 {
		return c.ui.print("no mesh is joined\n  make one  claudemesh create NAME\n  join one  claudemesh join INVITE")
	}
	for _, r := range rows {
		parts := []string{c.ui.paint(bold, r.Slug)}
		switch {
		case r.Link == "":
			parts = append(parts, "daemon not running")
		case r.Error != "":
			parts = append(parts, r.Link+" ("+cleanLine(r.Error)+")")
		default:
			parts = append(parts, r.Link)
		}
		if r.Members != nil {
			parts = append(parts, cleanLine(r.Role), fmt.Sprintf("%s, %d online", plural(*r.Members, "member"), *r.Online))
			if !*r.IsOwner {
				parts = append(parts, "owner "+cleanLine(r.Owner))
			}
		}
		if r.ServerSlug != "" {
			parts = append(parts, "called "+cleanLine(r.ServerSlug)+" at the broker")
		}
		if err := c.ui.print("%s", strings.Join(append(parts, cleanLine(r.BrokerURL)), "  ")); err != nil {
			return err
		}
	}
	return nil
}

// known asks a running daemon, and through it the brokers, about each mesh; what cannot be known is left out.
func (c *call) known(ctx context.Context) map[string]bus.MeshStatus {
	known := map[string]bus.MeshStatus{}
	if c.daemonUse() == useNone {
		return known
	}
	n, err := c.running(ctx)
	if err != nil {
		return known
	}
	defer n.Close()
	var list bus.MeshList
	if n.daemon(ctx, bus.OpMeshList, bus.MeshQuery{Server: true}, &list) == nil {
		for _, m := range list.Meshes {
			known[m.Mesh] = m
		}
	}
	return known
}
