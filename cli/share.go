package cli

import (
	"context"
	"errors"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
)

// Invites: making, listing, revoking.

func shareVerb() verb {
	return verb{
		name: "share", aliases: []string{"invite"}, args: "", short: "make an invite to a mesh",
		long: `Prints a link that holds a short code. Whoever has it can join, as often as --uses says and until it expires: hand it over like a
password. Only the owner of a mesh can invite: the invite is signed by the owner's key, which never leaves this machine.
--list shows the invites of the mesh, --revoke ends one; who came by it stays.`,
		examples: []string{"claudemesh share --mesh team --uses 3 --expires 24h", "claudemesh share --list", "claudemesh share --revoke ABCD2345"},
		fails:    []string{"3  several meshes and none named; a bad number, duration or role", "4  the broker cannot be reached", "5  --revoke: no such invite", "7  you are not the owner"},
		flags: []urfave.Flag{
			&urfave.IntFlag{Name: "uses", Value: 1, Usage: "how many may join with it: `N` (default 1)"},
			&urfave.StringFlag{Name: "expires", Value: "7d", Usage: "how long it is valid: `DURATION` such as 30m, 12h, 7d (default 7d, at most 90d)"},
			&urfave.StringFlag{Name: "role", Value: "member", Usage: "what they become: `member|admin` (default member)"},
			&urfave.StringFlag{Name: "broker-url", Usage: "the broker's `URL` as the invited reach it (default: as this machine does)"},
			&urfave.BoolFlag{Name: "list", Usage: "list the invites instead"},
			&urfave.StringFlag{Name: "revoke", Usage: "end the invite with this `CODE` or id instead"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh share [--mesh SLUG] [--uses N] [--expires 7d] [--role member]"); err != nil {
				return err
			}
			revoke := c.cmd.String("revoke")
			switch {
			case c.cmd.Bool("list") && revoke != "":
				return usagef("--list and --revoke exclude each other")
			case c.cmd.Bool("list"):
				return c.listInvites(ctx)
			case revoke != "":
				return c.revokeInvite(ctx, revoke)
			}
			return c.share(ctx)
		},
	}
}

func (c *call) share(ctx context.Context) error {
	uses := c.cmd.Int("uses")
	if uses < 1 || uses > 1000 {
		return usagef("--uses is a number from 1 to 1000")
	}
	expires, err := parseDuration(c.cmd.String("expires"))
	if err != nil || expires < time.Minute || expires > 90*24*time.Hour {
		return usagef("--expires is a duration from 1m to 90d, such as 12h or 7d")
	}
	role := c.cmd.String("role")
	if role != "member" && role != "admin" {
		return usagef("--role is member or admin")
	}
	var out bus.MeshInvite
	err = c.onMesh(ctx, func(ctx context.Context, n *conn, slug string) error {
		req := bus.MeshShare{Mesh: slug, MaxUses: uses, ExpiresIn: int64(expires / time.Second), Role: role, BrokerURL: c.cmd.String("broker-url")}
		return n.daemon(ctx, bus.OpMeshShare, req, &out)
	})
	if err != nil {
		return err
	}
	when := time.Unix(out.ExpiresAt, 0).UTC()
	link := out.URL
	if link == "" {
		link = out.Invite
	}
	return c.ui.result(inviteJSON{
		OK: true, Mesh: out.Mesh, ID: out.ID, URL: link, Code: out.Code, Invite: out.Invite, Role: role, ExpiresAt: when.Format(time.RFC3339),
		MaxUses: out.MaxUses, Note: out.Note,
	}, func() error {
		if err := c.ui.print("%s", link); err != nil {
			return err
		}
		if out.Code != "" {
			c.ui.note("code %s", out.Code)
		}
		c.ui.note("joins mesh %s, %s, until %s", out.Mesh, plural(out.MaxUses, "time"), when.Format(time.RFC3339))
		if out.Note != "" {
			c.ui.warn("%s", cleanLine(out.Note))
		}
		return nil
	})
}

// inviteJSON is the answer of share. URL is the link to hand out, Invite a longer one that needs no lookup at the broker.
type inviteJSON struct {
	OK        bool   `json:"ok"`
	Mesh      string `json:"mesh"`
	ID        string `json:"id"`
	URL       string `json:"url"`
	Code      string `json:"code"`
	Invite    string `json:"invite"`
	Role      string `json:"role"`
	ExpiresAt string `json:"expires_at"`
	MaxUses   int    `json:"max_uses"`
	Note      string `json:"note,omitempty"`
}

// inviteRow is one invite of a list.
type inviteRow struct {
	ID        string `json:"id"`
	Code      string `json:"code"`
	Role      string `json:"role"`
	ExpiresAt string `json:"expires_at"`
	MaxUses   int    `json:"max_uses"`
	Used      int    `json:"used"`
	State     string `json:"state"` // open, used_up, expired, revoked
	CreatedAt string `json:"created_at,omitempty"`
}

func (c *call) inviteRow(i bus.InviteInfo) inviteRow {
	r := inviteRow{ID: i.ID, Code: i.Code, Role: i.Role, ExpiresAt: time.Unix(i.ExpiresAt, 0).UTC().Format(time.RFC3339), MaxUses: i.MaxUses, Used: i.Used, State: "open"}
	if i.CreatedAt != 0 {
		r.CreatedAt = time.UnixMilli(i.CreatedAt).UTC().Format(time.RFC3339)
	}
	switch {
	case i.Revoked:
		r.State = "revoked"
	case c.clock.Now().Unix() > i.ExpiresAt:
		r.State = "expired"
	case i.Used >= i.MaxUses:
		r.State = "used_up"
	}
	return r
}

func (c *call) askInvites(ctx context.Context, op, invite string) (rows []inviteRow, slug string, err error) {
	var out bus.InviteList
	err = c.onMesh(ctx, func(ctx context.Context, n *conn, slug string) error {
		return n.daemon(ctx, op, bus.InviteQuery{Mesh: slug, Invite: invite}, &out)
	})
	rows = []inviteRow{}
	for _, i := range out.Invites {
		rows = append(rows, c.inviteRow(i))
	}
	return rows, out.Mesh, err
}

func (c *call) listInvites(ctx context.Context) error {
	rows, slug, err := c.askInvites(ctx, bus.OpInviteList, "")
	if err != nil {
		return err
	}
	return c.ui.result(rows, func() error {
		if len(rows) == 0 {
			return c.ui.print("mesh %s has no invites", slug)
		}
		for _, r := range rows {
			code := r.Code
			if code == "" {
				code = r.ID
			}
			if err := c.ui.print("%s  %s  used %d of %d  %s  until %s", c.ui.paint(bold, cleanLine(code)), r.State, r.Used, r.MaxUses, cleanLine(r.Role), r.ExpiresAt); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *call) revokeInvite(ctx context.Context, invite string) error {
	rows, slug, err := c.askInvites(ctx, bus.OpInviteRevoke, strings.TrimSpace(invite))
	if err != nil {
		return err
	}
	if len(rows) != 1 {
		return errors.New("the broker revoked something else than was asked for")
	}
	return c.ui.result(struct {
		OK   bool   `json:"ok"`
		Mesh string `json:"mesh"`
		inviteRow
	}{true, slug, rows[0]}, func() error {
		return c.ui.print("revoked invite %s of mesh %s; who came by it stays", cleanLine(rows[0].Code), slug)
	})
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
