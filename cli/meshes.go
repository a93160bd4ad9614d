package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/mesh"
)

// Becoming a member: create and join.

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
				return c.ui.print("  broker  %s\n  you     %s (%s…)\n  next    claudemesh launch, or claudemesh share",
					cleanLine(out.BrokerURL), cleanLine(out.DisplayName), short(out.Pubkey))
			})
		},
	}
}

// membershipJSON is the answer of create and join; the short keys are those of the reference.
type membershipJSON struct {
	OK   bool   `json:"ok"`
	Slug string `json:"slug"`
	ID   string `json:"id"`
	bus.MeshJoined
}

func membership(m bus.MeshJoined) membershipJSON {
	return membershipJSON{OK: true, Slug: m.Mesh, ID: m.MeshID, MeshJoined: m}
}

func joinVerb() verb {
	return verb{
		name: "join", aliases: []string{"add"}, args: "INVITE", short: "join a mesh by an invite",
		long: `INVITE is what claudemesh share printed: the link https://…/i/CODE, ic://join/…, a link that holds the token, the token itself, or the
bare CODE together with --broker. "-" reads it from stdin, which keeps it out of the list of processes.`,
		examples: []string{"claudemesh join https://mesh.example.org/i/ABCD2345", "claudemesh join ABCD2345 --broker wss://mesh.example.org/ws", "claudemesh join - < invite.txt"},
		fails: []string{
			"3  the invite is malformed, its signature is wrong, or a bare code names no broker", "4  the broker cannot be reached, or is not trusted",
			"5  the invite is not known, has expired, was revoked or used up", "6  the mesh is joined already",
		},
		flags: []urfave.Flag{
			&urfave.StringFlag{Name: "broker", Usage: "the broker of a bare code, at this `URL` (ws:// or wss://)"},
			&urfave.StringFlag{Name: "display-name", Usage: "how others see you: `NAME`"},
		},
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
			invite = mesh.NormalInvite(invite)
			req := bus.MeshJoin{Invite: invite, BrokerURL: c.cmd.String("broker"), DisplayName: c.cmd.String("display-name")}
			if err := c.checkInvite(req); err != nil {
				return err
			}
			n, err := c.connect(ctx)
			if err != nil {
				return err
			}
			defer n.Close()
			out, err := c.join(ctx, n, req)
			if err != nil {
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

// checkInvite checks what can be checked here, so that a typing error starts no daemon.
func (c *call) checkInvite(req bus.MeshJoin) error {
	if base, _, code := mesh.InviteCode(req.Invite); code {
		if base == "" && req.BrokerURL == "" {
			return &usageError{message: "a code alone does not say which broker it is of", hint: "name it: claudemesh join CODE --broker wss://HOST/ws\nor use the whole link that claudemesh share printed"}
		}
		return nil
	}
	parsed, _, err := mesh.ParseInvite(req.Invite)
	if err != nil {
		return &usageError{message: err.Error(), hint: "paste the whole line that claudemesh share printed"}
	}
	if parsed.Expired(c.clock.Now()) {
		return &bus.APIError{Code: 410, Reason: "invite_expired", Detail: "the invite has expired; ask for a new one"}
	}
	return nil
}

// join asks the daemon to join, and shows that it takes time.
func (c *call) join(ctx context.Context, n *conn, req bus.MeshJoin) (out bus.MeshJoined, err error) {
	err = c.meter("joining").during(ctx, nil, func(ctx context.Context) error { return n.daemon(ctx, bus.OpMeshJoin, req, &out) })
	return out, err
}
