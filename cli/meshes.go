package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/mesh"
)

// The nouns around membership: create, join, share, list.

func createVerb() verb {
	return verb{
		name: "create", aliases: []string{"new"}, args: "NAME", short: "make a mesh and join it",
		long: `Makes a mesh on the broker inside this machine's daemon: no account, no network. With --broker it is made on that
broker, which asks for its admin token. The name becomes the slug by which the mesh is named everywhere: "My Team" becomes my-team.`,
		examples: []string{"claudemesh create team", "claudemesh create team --broker wss://mesh.example.org/ws --admin-token-file admin.token"},
		fails:    []string{"3  the name holds no letter a-z and no digit", "4  the broker cannot be reached", "6  a mesh of that name is joined here already"},
		flags: []urfave.Flag{
			&urfave.StringFlag{Name: "broker", Usage: "make it on the broker at this `URL` (ws:// or wss://)"},
			&urfave.StringFlag{Name: "admin-token-file", Usage: "`FILE` that holds the broker's admin token"},
			&urfave.StringFlag{Name: "display-name", Usage: "how others see you: `NAME`"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh create NAME"); err != nil {
				return err
			}
			req := bus.MeshCreate{Name: c.args()[0], DisplayName: c.cmd.String("display-name"), BrokerURL: c.cmd.String("broker")}
			if _, err := mesh.Slugify(req.Name); err != nil {
				return usagef("%q cannot name a mesh: %v", req.Name, err)
			}
			if file := c.cmd.String("admin-token-file"); file != "" {
				if req.BrokerURL == "" {
					return usagef("--admin-token-file belongs to --broker")
				}
				path, err := filepath.Abs(file)
				if err != nil {
					return fmt.Errorf("find admin token file: %w", err)
				}
				if _, err := os.Stat(path); err != nil {
					return fmt.Errorf("read admin token file: %w", err)
				}
				req.AdminTokenFile = path
			}
			n, err := c.connect(ctx)
			if err != nil {
				return err
			}
			defer n.Close()
			var out bus.MeshJoined
			if err := n.daemon(ctx, bus.OpMeshCreate, req, &out); err != nil {
				return err
			}
			return c.ui.result(membership(out), func() error {
				if err := c.ui.print("created mesh %s", out.Mesh); err != nil {
					return err
				}
				return c.ui.print("  broker  %s\n  you     %s (%s…)\n  next    claudemesh session run --name NAME -- COMMAND, or claudemesh share",
					cleanLine(out.BrokerURL), cleanLine(out.DisplayName), short(out.Pubkey))
			})
		},
	}
}

// membershipJSON is the answer of create and join; the short keys are those of the reference.
type membershipJSON struct {
	SchemaVersion string `json:"schema_version"`
	OK            bool   `json:"ok"`
	Slug          string `json:"slug"`
	ID            string `json:"id"`
	bus.MeshJoined
}

func membership(m bus.MeshJoined) membershipJSON {
	return membershipJSON{SchemaVersion: "1.0", OK: true, Slug: m.Mesh, ID: m.MeshID, MeshJoined: m}
}

func joinVerb() verb {
	return verb{
		name: "join", aliases: []string{"add"}, args: "INVITE", short: "join a mesh by an invite",
		long: `INVITE is what claudemesh share printed: ic://join/…, a link that holds the token, or the token itself. "-" reads it from
stdin, which keeps it out of the list of processes.`,
		examples: []string{"claudemesh join ic://join/eyJ2Ijox…", "claudemesh join - < invite.txt"},
		fails:    []string{"3  the invite is malformed or its signature is wrong", "4  the broker cannot be reached", "5  the invite has expired or was used up"},
		flags:    []urfave.Flag{&urfave.StringFlag{Name: "display-name", Usage: "how others see you: `NAME`"}},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh join INVITE"); err != nil {
				return err
			}
			invite := strings.TrimSpace(c.args()[0])
			if invite == "-" {
				text, err := c.readText(maxInvite)
				if err != nil {
					return err
				}
				invite = strings.TrimSpace(text)
			}
			// Checked here too, so that a typing error starts no daemon.
			parsed, _, err := mesh.ParseInvite(invite)
			if err != nil {
				return &usageError{message: err.Error(), hint: "paste the whole line that claudemesh share printed"}
			}
			if parsed.Expired(c.clock.Now()) {
				return &bus.APIError{Code: 410, Reason: "invite_expired", Detail: "the invite has expired; ask for a new one"}
			}
			n, err := c.connect(ctx)
			if err != nil {
				return err
			}
			defer n.Close()
			var out bus.MeshJoined
			if err := n.daemon(ctx, bus.OpMeshJoin, bus.MeshJoin{Invite: invite, DisplayName: c.cmd.String("display-name")}, &out); err != nil {
				return err
			}
			return c.ui.result(membership(out), func() error {
				verb := "joined mesh"
				if out.AlreadyMember {
					verb = "already a member of mesh"
				}
				return c.ui.print("%s %s\n  broker  %s\n  you     %s (%s…)\n  next    claudemesh peer list", verb, out.Mesh, cleanLine(out.BrokerURL), cleanLine(out.DisplayName), short(out.Pubkey))
			})
		},
	}
}

// maxInvite bounds an invite read from stdin, in bytes.
const maxInvite = 16 << 10

func shareVerb() verb {
	return verb{
		name: "share", aliases: []string{"invite"}, args: "", short: "make an invite to a mesh",
		long: `Prints an invite. Whoever has it can join, as often as --uses says and until it expires: hand it over like a password.
Only the owner of a mesh can invite.`,
		examples: []string{"claudemesh share --mesh team --uses 3 --expires 24h"},
		fails:    []string{"3  several meshes and none named; a bad number or duration", "4  the broker cannot be reached", "7  you are not the owner"},
		flags: []urfave.Flag{
			&urfave.IntFlag{Name: "uses", Value: 1, Usage: "how many may join with it: `N` (default 1)"},
			&urfave.StringFlag{Name: "expires", Value: "7d", Usage: "how long it is valid: `DURATION` such as 30m, 12h, 7d (default 7d, at most 90d)"},
			&urfave.StringFlag{Name: "broker-url", Usage: "the broker's `URL` as the invited reach it (default: as this machine does)"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh share [--mesh SLUG] [--uses N] [--expires 7d]"); err != nil {
				return err
			}
			uses := c.cmd.Int("uses")
			if uses < 1 || uses > 1000 {
				return usagef("--uses is a number from 1 to 1000")
			}
			expires, err := parseDuration(c.cmd.String("expires"))
			if err != nil || expires < time.Minute || expires > 90*24*time.Hour {
				return usagef("--expires is a duration from 1m to 90d, such as 12h or 7d")
			}
			slug, err := c.mesh(ctx, true)
			if err != nil {
				return err
			}
			n, err := c.connect(ctx)
			if err != nil {
				return err
			}
			defer n.Close()
			var out bus.MeshInvite
			req := bus.MeshShare{Mesh: slug, MaxUses: uses, ExpiresIn: int64(expires / time.Second), BrokerURL: c.cmd.String("broker-url")}
			err = n.whenOpen(ctx, c.clock, slug, func() error { return n.daemon(ctx, bus.OpMeshShare, req, &out) })
			if err != nil {
				return err
			}
			when := time.Unix(out.ExpiresAt, 0).UTC()
			return c.ui.result(inviteJSON{
				SchemaVersion: "1.0", OK: true, Mesh: out.Mesh, URL: out.Invite, Invite: out.Invite, ExpiresAt: when.Format(time.RFC3339), MaxUses: out.MaxUses, Note: out.Note,
			}, func() error {
				if err := c.ui.print("%s", out.Invite); err != nil {
					return err
				}
				c.ui.note("joins mesh %s, %s, until %s", out.Mesh, plural(out.MaxUses, "time"), when.Format(time.RFC3339))
				if out.Note != "" {
					c.ui.warn("%s", cleanLine(out.Note))
				}
				return nil
			})
		},
	}
}

type inviteJSON struct {
	SchemaVersion string `json:"schema_version"`
	OK            bool   `json:"ok"`
	Mesh          string `json:"mesh"`
	URL           string `json:"url"`
	Invite        string `json:"invite"`
	ExpiresAt     string `json:"expires_at"`
	MaxUses       int    `json:"max_uses"`
	Note          string `json:"note,omitempty"`
}

// parseDuration is time.ParseDuration that also knows days: "7d".
func parseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		d, err := time.ParseDuration(days + "h")
		if err != nil || d > 1000*time.Hour {
			return 0, errors.New("bad duration")
		}
		return 24 * d, nil
	}
	return time.ParseDuration(s)
}

func listVerb() verb {
	return verb{
		name: "list", aliases: []string{"ls"}, args: "", short: "list the joined meshes",
		long:     `Lists the meshes of config.json, and the state of their links when a daemon runs. It starts no daemon.`,
		examples: []string{"claudemesh list --json"},
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
			links := c.links(ctx)
			rows := []meshRow{}
			for _, j := range config.Meshes {
				rows = append(rows, meshRow{Slug: j.Slug, Name: j.Name, MeshID: j.MeshID, MemberID: j.MemberID, Pubkey: j.Pubkey, BrokerURL: j.BrokerURL, JoinedAt: j.JoinedAt, Link: links[j.Slug]})
			}
			return c.ui.result(rows, func() error {
				if len(rows) == 0 {
					return c.ui.print("no mesh is joined\n  make one  claudemesh create NAME\n  join one  claudemesh join INVITE")
				}
				for _, r := range rows {
					link := r.Link
					if link == "" {
						link = "daemon not running"
					}
					if err := c.ui.print("%s  %s  %s", c.ui.paint(bold, r.Slug), link, cleanLine(r.BrokerURL)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

type meshRow struct {
	Slug      string `json:"slug"`
	Name      string `json:"name"`
	MeshID    string `json:"mesh_id"`
	MemberID  string `json:"member_id"`
	Pubkey    string `json:"pubkey"`
	BrokerURL string `json:"broker_url"`
	JoinedAt  string `json:"joined_at"`
	Link      string `json:"link,omitempty"` // connecting, open, waiting, closed; absent when no daemon runs
}

// links asks a running daemon for the state of each mesh; what cannot be known is left out.
func (c *call) links(ctx context.Context) map[string]string {
	links := map[string]string{}
	n, err := c.running(ctx)
	if err != nil {
		return links
	}
	defer n.Close()
	var list bus.MeshList
	if n.daemon(ctx, bus.OpMeshList, nil, &list) == nil {
		for _, m := range list.Meshes {
			links[m.Mesh] = m.Link
		}
	}
	return links
}
