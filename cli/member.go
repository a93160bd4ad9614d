package cli

import (
	"context"
	"encoding/json"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

func memberVerb() verb {
	return memberListVerb().alsoAlone(verb{
		name: "member", aliases: []string{"members"}, short: "who belongs to the mesh, and as what", subs: []verb{memberListVerb(), memberShowVerb(), memberEditVerb()},
	})
}

// memberRow is a member as it is shown: what the mesh knows of it, and how it is now.
type memberRow struct {
	MemberID     string       `json:"memberId"`
	Pubkey       string       `json:"pubkey"`
	DisplayName  string       `json:"displayName"`
	Role         string       `json:"role"` // owner, admin or member
	RoleTag      *string      `json:"roleTag"`
	Groups       []mesh.Group `json:"groups"`
	MessageMode  string       `json:"messageMode"`
	IsHuman      bool         `json:"isHuman"`
	IsSelf       bool         `json:"isSelf"`
	JoinedAt     string       `json:"joinedAt"`
	LastSeenAt   *string      `json:"lastSeenAt"`
	Online       bool         `json:"online"`
	SessionCount int          `json:"sessionCount"`
	Status       string       `json:"status"` // idle, working, dnd or offline
	Summary      *string      `json:"summary"`
}

func rowOf(m wire.Member, peers []bus.Peer, self string) memberRow {
	r := memberRow{
		MemberID: m.ID, Pubkey: m.Pubkey, DisplayName: m.DisplayName, Role: m.Permission, RoleTag: m.RoleTag, Groups: append([]mesh.Group{}, m.Groups...),
		MessageMode: m.MessageMode, IsSelf: m.Pubkey == self, JoinedAt: m.JoinedAt, LastSeenAt: m.LastSeenAt, Online: m.Online, SessionCount: m.SessionCount,
		Status: "offline",
	}
	if m.IsOwner {
		r.Role = "owner"
	}
	if m.Online {
		r.Status = wire.StatusIdle // of one that hides
	}
	// A session says more about its member than the daemon's own connection.
	for _, session := range []bool{false, true} {
		for _, p := range peers {
			if p.MemberPubkey == m.Pubkey && (p.PeerRole != rolePlane) == session {
				r.Status, r.Summary, r.IsHuman = p.Status, p.Summary, p.PeerType == "human"
			}
		}
	}
	return r
}

// memberRows lists the members of a mesh.
func (n *conn) memberRows(ctx context.Context, slug string) ([]memberRow, error) {
	self, err := n.self(ctx, slug)
	if err != nil {
		return nil, err
	}
	var all wire.MemberListResult
	if err := n.broker(ctx, slug, wire.TypeMemberList, nil, &all); err != nil {
		return nil, err
	}
	var there bus.PeersReply
	if err := n.broker(ctx, slug, bus.CallListPeers, nil, &there); err != nil {
		return nil, err
	}
	rows := []memberRow{}
	for _, m := range all.Members {
		rows = append(rows, rowOf(m, there.Peers, self))
	}
	return rows, nil
}

func memberListVerb() verb {
	return verb{
		name: "list", aliases: []string{"ls"}, args: "", short: "list the members, online or not",
		long:     `Lists everybody who was let in and is not banned. Who is connected now, session by session, is what peer list shows.`,
		examples: []string{"claudemesh member list", "claudemesh member list --online --json"},
		fails:    []string{"4  the broker cannot be reached", "5  no such mesh"},
		flags:    []urfave.Flag{&urfave.BoolFlag{Name: "online", Usage: "only those who are connected"}},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh member list"); err != nil {
				return err
			}
			return c.onMesh(ctx, func(ctx context.Context, n *conn, slug string) error {
				all, err := n.memberRows(ctx, slug)
				if err != nil {
					return err
				}
				rows := []memberRow{}
				for _, r := range all {
					if r.Online || !c.cmd.Bool("online") {
						rows = append(rows, r)
					}
				}
				return c.ui.result(map[string]any{"mesh": slug, "members": rows}, func() error {
					if err := c.ui.print("%s of %s", plural(len(rows), "member"), slug); err != nil {
						return err
					}
					for _, r := range rows {
						if err := c.ui.print("%s", c.memberLine(r)); err != nil {
							return err
						}
					}
					return nil
				})
			})
		},
	}
}

func (c *call) memberLine(r memberRow) string {
	glyph := "○"
	switch {
	case r.Status == wire.StatusDND:
		glyph = c.ui.paint(red, "●")
	case r.Status == wire.StatusWorking:
		glyph = c.ui.paint(yellow, "●")
	case r.Online:
		glyph = c.ui.paint(green, "●")
	}
	line := "  " + glyph + " " + c.ui.paint(bold, cleanLine(r.DisplayName)) + "  " + cleanLine(r.Role) + "  " + cleanLine(r.Status)
	if r.IsSelf {
		line += "  (you)"
	}
	if r.RoleTag != nil {
		line += "  " + cleanLine(*r.RoleTag)
	}
	line += "  " + c.ui.paint(dim, cleanLine(short(r.Pubkey))+"…")
	if r.Summary != nil && *r.Summary != "" {
		line += "  — " + cleanLine(*r.Summary)
	}
	return line
}

func memberShowVerb() verb {
	return verb{
		name: "show", args: "[MEMBER]", short: "show one member, by default yourself",
		examples: []string{"claudemesh member show", "claudemesh member show bob --json"},
		fails:    []string{"3  the name is ambiguous", "4  the broker cannot be reached", "5  no such member or mesh"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 1, "claudemesh member show [MEMBER]"); err != nil {
				return err
			}
			return c.onMesh(ctx, func(ctx context.Context, n *conn, slug string) error {
				r, err := c.memberMeant(ctx, n, slug)
				if err != nil {
					return err
				}
				return c.ui.result(r, func() error { return c.printMember(r, slug) })
			})
		},
	}
}

// memberMeant is the member of the first argument, by default this daemon's own.
func (c *call) memberMeant(ctx context.Context, n *conn, slug string) (memberRow, error) {
	rows, err := n.memberRows(ctx, slug)
	if err != nil {
		return memberRow{}, err
	}
	var key string
	if c.cmd.Args().Present() {
		// A member's id, or whatever names a peer.
		for _, r := range rows {
			if r.MemberID == c.args()[0] {
				return r, nil
			}
		}
		who, err := n.member(ctx, slug, c.args()[0])
		if err != nil {
			return memberRow{}, err
		}
		key = who.Pubkey
	}
	for _, r := range rows {
		if r.Pubkey == key || key == "" && r.IsSelf {
			return r, nil
		}
	}
	return memberRow{}, &failure{Code: "member_not_found", Message: "nobody like that is a member of " + slug, Hint: "see who is with: claudemesh member list", Exit: exitNotFound}
}

func (c *call) printMember(r memberRow, slug string) error {
	tag := "none"
	if r.RoleTag != nil {
		tag = cleanLine(*r.RoleTag)
	}
	var groups []string
	for _, g := range r.Groups {
		name := "@" + cleanLine(g.Name)
		if g.Role != "" {
			name += ":" + cleanLine(g.Role)
		}
		groups = append(groups, name)
	}
	seen := "now"
	if !r.Online {
		if seen = "never"; r.LastSeenAt != nil {
			seen = cleanLine(*r.LastSeenAt)
		}
	}
	return c.ui.print("%s on %s\n  access    %s\n  role tag  %s\n  groups    %s\n  messages  %s\n  joined    %s\n  seen      %s\n  key       %s\n  id        %s",
		c.ui.paint(bold, cleanLine(r.DisplayName)), slug, cleanLine(r.Role), tag, orNone(strings.Join(groups, ", ")), cleanLine(r.MessageMode),
		cleanLine(r.JoinedAt), seen, cleanLine(r.Pubkey), cleanLine(r.MemberID))
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func memberEditVerb() verb {
	return verb{
		name: "edit", args: "[MEMBER]", short: "change a member, by default yourself",
		long: `What you may change of yourself is for the mesh to say (its administrators set it); administrators may change others. --groups are those that new
connections start with: the open ones keep theirs. The message mode is shown to others and changes no delivery.`,
		examples: []string{"claudemesh member edit --role-tag backend", "claudemesh member edit bob --role admin", "claudemesh member edit --groups dev:lead,qa"},
		fails:    []string{"3  nothing to change, or a value that cannot be", "4  the broker cannot be reached", "5  no such member or mesh", "7  you may not change that"},
		flags: []urfave.Flag{
			&urfave.StringFlag{Name: "role", Usage: "`ROLE`: admin or member"},
			&urfave.StringFlag{Name: "role-tag", Usage: "what the member does here: `TEXT`, empty to remove it"},
			&urfave.StringFlag{Name: "groups", Usage: "default groups: `NAME[:ROLE],…`, empty for none"},
			&urfave.StringFlag{Name: "message-mode", Usage: "`MODE`: push, inbox or off"},
			&urfave.StringFlag{Name: "name", Usage: "display `NAME`"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 1, "claudemesh member edit [MEMBER] --FIELD VALUE"); err != nil {
				return err
			}
			p, err := c.profileFlags()
			if err != nil {
				return err
			}
			return c.onMesh(ctx, func(ctx context.Context, n *conn, slug string) error {
				who, err := c.memberMeant(ctx, n, slug)
				if err != nil {
					return err
				}
				var out wire.MemberEdited
				if err := n.broker(ctx, slug, wire.TypeMemberEdit, wire.MemberEdit{MemberID: who.MemberID, Profile: p}, &out); err != nil {
					return err
				}
				changed := out.Changes.Fields()
				return c.ui.result(map[string]any{"ok": true, "mesh": slug, "member": out.Member, "changed": list(changed)}, func() error {
					if len(changed) == 0 {
						return c.ui.print("%s is like that already", cleanLine(out.Member.DisplayName))
					}
					return c.ui.print("changed %s of %s", cleanLine(strings.Join(changed, ", ")), cleanLine(out.Member.DisplayName))
				})
			})
		},
	}
}

// profileFlags reads the flags of member edit.
func (c *call) profileFlags() (p wire.Profile, err error) {
	text := func(flag string) *string {
		if !c.cmd.IsSet(flag) {
			return nil
		}
		s := c.cmd.String(flag)
		return &s
	}
	p.DisplayName, p.MessageMode, p.Permission = text("name"), text("message-mode"), text("role")
	if tag := text("role-tag"); tag != nil {
		if p.RoleTag, err = json.Marshal(*tag); err != nil {
			return p, err
		}
	}
	if spec := text("groups"); spec != nil {
		groups := []mesh.Group{}
		for _, word := range strings.Split(*spec, ",") {
			name, role, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(word), "@"), ":")
			if name != "" {
				groups = append(groups, mesh.Group{Name: name, Role: role})
			}
		}
		p.Groups = &groups
	}
	if len(p.Fields()) == 0 {
		return p, &usageError{message: "nothing to change", hint: "say what, with --role, --role-tag, --groups, --message-mode or --name"}
	}
	if err := p.Validate(); err != nil {
		return p, usagef("%v", err)
	}
	return p, nil
}
