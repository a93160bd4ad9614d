package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/wire"
)

func apiKeyVerb() verb {
	return verb{
		name: "apikey", aliases: []string{"api-key"}, short: "keys for programs that speak HTTP with the broker",
		subs: []verb{apiKeyCreateVerb(), apiKeyListVerb(), apiKeyRevokeVerb()},
	}
}

func apiKeyCreateVerb() verb {
	return verb{
		name: "create", args: "LABEL", short: "make a key",
		long: `Prints the secret, this once: the broker keeps only its hash. Whoever has it acts for you on this mesh, as far as the capabilities go and as long as
you are a member: send (post to topics), read (members, peers, topics and their messages), state_write, admin (all of it; only administrators can make one).
It goes into the header "Authorization: Bearer cm_…" of requests to the broker's /api/v1.`,
		examples: []string{"claudemesh apikey create ci --cap send --topic deploys --expires 30d", "claudemesh apikey create dashboard --cap read --json"},
		fails:    []string{"3  an unknown capability, a bad time", "4  the broker cannot be reached", "6  you have as many keys as you may", "7  only an administrator may make that key"},
		flags: []urfave.Flag{
			&urfave.StringFlag{Name: "cap", Value: "send,read", Usage: "`CAPABILITY,…` (default send,read)"},
			&urfave.StringFlag{Name: "topic", Usage: "only these topics: `NAME,…`"},
			&urfave.StringFlag{Name: "expires", Usage: "when it ends: `TIME`, a duration such as 12h or 30d, or ISO-8601 (default: never)"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh apikey create LABEL"); err != nil {
				return err
			}
			req := wire.APIKeyCreate{Label: c.args()[0], Capabilities: commaList(c.cmd.String("cap")), TopicScopes: commaList(strings.ReplaceAll(c.cmd.String("topic"), "#", ""))}
			if expires := c.cmd.String("expires"); expires != "" {
				req.ExpiresAt = expires
				if d, err := parseDuration(expires); err == nil {
					req.ExpiresAt = wire.Timestamp(c.clock.Now().Add(d))
				}
			}
			if err := req.Check(); err != nil {
				return usagef("%s", strings.TrimPrefix(err.Error(), wire.ErrInvalid.Error()+": "))
			}
			var out wire.APIKeyCreated
			slug, err := c.askBroker(ctx, wire.TypeAPIKeyCreate, req, &out)
			if err != nil {
				return err
			}
			return c.ui.result(apiKeyJSON{
				ID: out.ID, Secret: out.Secret, Label: out.Label, Prefix: out.Prefix, Capabilities: out.Capabilities, TopicScopes: out.TopicScopes, CreatedAt: out.CreatedAt,
			}, func() error {
				c.ui.note("key %s of mesh %s; this is the only time its secret is shown", cleanLine(out.Label), slug)
				return c.ui.print("%s", cleanLine(out.Secret))
			})
		},
	}
}

// apiKeyJSON is the answer of apikey create, as the reference has it.
type apiKeyJSON struct {
	ID           string   `json:"id"`
	Secret       string   `json:"secret"`
	Label        string   `json:"label"`
	Prefix       string   `json:"prefix"`
	Capabilities []string `json:"capabilities"`
	TopicScopes  []string `json:"topicScopes"`
	CreatedAt    string   `json:"createdAt"`
}

// commaList splits a comma-separated list, dropping what is empty.
func commaList(s string) []string {
	var out []string
	for _, w := range strings.Split(s, ",") {
		if w = strings.TrimSpace(w); w != "" {
			out = append(out, w)
		}
	}
	return out
}

func apiKeyListVerb() verb {
	return verb{
		name: "list", aliases: []string{"ls"}, args: "", short: "list keys, without their secrets",
		long:     `Lists your keys, newest first, those that do not work any more included. Administrators see everybody's.`,
		examples: []string{"claudemesh apikey list --json"},
		fails:    []string{"4  the broker cannot be reached"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh apikey list"); err != nil {
				return err
			}
			var out wire.APIKeyListed
			slug, err := c.askBroker(ctx, wire.TypeAPIKeyList, nil, &out)
			if err != nil {
				return err
			}
			return c.ui.result(append([]wire.APIKey{}, out.Keys...), func() error {
				if len(out.Keys) == 0 {
					return c.ui.print("no API keys on %s", slug)
				}
				for _, k := range out.Keys {
					if err := c.ui.print("%s", c.apiKeyLine(k)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func (c *call) apiKeyLine(k wire.APIKey) string {
	state := "never used"
	switch {
	case k.RevokedAt != nil:
		state = "revoked " + *k.RevokedAt
	case k.ExpiresAt != nil && *k.ExpiresAt <= wire.Timestamp(c.clock.Now()):
		state = "expired " + *k.ExpiresAt
	case k.LastUsedAt != nil:
		state = "used " + *k.LastUsedAt
	}
	line := fmt.Sprintf("  %s  %s  %s…  %s  %s", cleanLine(k.ID[:min(8, len(k.ID))]), c.ui.paint(bold, cleanLine(k.Label)), cleanLine(k.Prefix), cleanLine(strings.Join(k.Capabilities, ",")), cleanLine(state))
	if len(k.TopicScopes) > 0 {
		line += "  only #" + cleanLine(strings.Join(slices.Sorted(slices.Values(k.TopicScopes)), " #"))
	}
	return line
}

func apiKeyRevokeVerb() verb {
	return verb{
		name: "revoke", args: "ID", short: "end a key",
		long:     `ID is what apikey list shows, or enough of its beginning. The key stops to work at once. Administrators may end everybody's.`,
		examples: []string{"claudemesh apikey revoke m5MtbF1m"},
		fails:    []string{"3  several keys begin like that", "4  the broker cannot be reached", "5  no such key"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh apikey revoke ID"); err != nil {
				return err
			}
			var out wire.APIKeyRevoked
			if _, err := c.askBroker(ctx, wire.TypeAPIKeyRevoke, wire.APIKeyRevoke{ID: c.args()[0]}, &out); err != nil {
				return err
			}
			switch out.Status {
			case wire.RevokeNotFound:
				return &failure{Code: out.Status, Message: "no API key begins with " + quoted(c.args()[0]), Hint: "see them with: claudemesh apikey list", Exit: exitNotFound}
			case wire.RevokeNotUnique:
				return &failure{Code: out.Status, Message: "several API keys begin with " + quoted(c.args()[0]), Hint: "give more of the id", Exit: exitUsage}
			}
			return c.ui.result(map[string]any{"revoked": out.ID}, func() error { return c.ui.print("revoked %s", cleanLine(out.ID)) })
		},
	}
}
