package cli

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/cli/account"
	"claudemesh/mesh"
	"claudemesh/wire"
)

func registerVerb() verb {
	return verb{
		name: "register", args: "", short: "make an account on a broker",
		long: `An account lets your machines find each other: one that is signed in seals its memberships for the next (claudemesh login, sync). It gives
no right in a mesh, and the broker gets no key of yours. Nothing but that needs one.

It is made with the key of a mesh that is joined here on that broker, or with the broker's admin token. A key that belongs to an account signs in to it:
that is the way back in for a machine that has lost its token. --json prints {"ok", "created", "user", "broker_url", "expires_at", "linked"}.`,
		examples: []string{"claudemesh register --name ada", "claudemesh register --broker wss://mesh.example.org/ws --admin-token-file admin-token --name ada"},
		fails: []string{
			"2  neither a member's key nor the admin token is accepted", "3  which broker is not clear; no name", "4  the broker cannot be reached",
			"5  no mesh of that broker is joined here, and no admin token named", "6  signed in already; another account has the name",
		},
		flags: []urfave.Flag{
			accountBrokerFlag(),
			&urfave.StringFlag{Name: "name", Usage: "the account's `NAME` (default: your display name)"},
			&urfave.StringFlag{Name: "admin-token-file", Usage: "`FILE` that holds the broker's admin token"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh register [--broker URL] [--name NAME]"); err != nil {
				return err
			}
			return c.register(ctx)
		},
	}
}

func (c *call) register(ctx context.Context) error {
	n, err := c.newcomer()
	if err != nil {
		return err
	}
	req := wire.RegisterRequest{Name: cmp.Or(strings.TrimSpace(c.cmd.String("name")), n.config.DisplayName, c.getenv("USER"), c.getenv("USERNAME")), Device: thisDevice(n.key)}
	if req.Name == "" {
		return usagef("an account needs a name: --name NAME")
	}
	got, err := c.registerAs(ctx, n.client, n.config, n.at, req)
	if err != nil {
		return err
	}
	a, err := c.keepAuth(n.dir, n.at, account.SourceRegister, got.SessionToken, got.ExpiresAt, *got.User, n.key)
	if err != nil {
		return err
	}
	n.client.Token = a.SessionToken
	linked, err := n.client.Link(ctx, a.User.ID, here(n.config, n.at))
	if err != nil {
		c.ui.warn("your memberships are not linked to the account yet: %v; claudemesh sync does it later", cleanLine(err.Error()))
	}
	return c.ui.result(map[string]any{
		"ok": true, "created": got.Created, "user": got.User, "broker_url": n.at, "expires_at": got.ExpiresAt, "linked": linked.Linked,
	}, func() error {
		verb := "made account"
		if !got.Created {
			verb = "signed in to account"
		}
		return c.ui.print("%s %s at %s\n  linked  %s of this machine\n  next    claudemesh login on another machine", verb, cleanLine(got.User.DisplayName), n.at, plural(linked.Linked, "membership"))
	})
}

// registerAs proves who asks: by the admin token if one is named, else by the first membership on that broker that it takes.
func (c *call) registerAs(ctx context.Context, client *account.Client, config *mesh.Config, at string, req wire.RegisterRequest) (got wire.SignedIn, err error) {
	if file := c.cmd.String("admin-token-file"); file != "" {
		token, err := os.ReadFile(file)
		if err != nil {
			return got, fmt.Errorf("read admin token file: %w", err)
		}
		return client.RegisterByAdmin(ctx, strings.TrimSpace(string(token)), req)
	}
	members := here(config, at)
	if len(members) == 0 {
		return got, &failure{
			Code: "no_membership", Message: "no mesh of the broker " + at + " is joined here, so there is no key to prove anything with",
			Hint: "join one first, or name the broker's admin token: --admin-token-file FILE\non a machine that is to share another's account: claudemesh login", Exit: exitNotFound,
		}
	}
	return client.Register(ctx, members[0], req)
}
