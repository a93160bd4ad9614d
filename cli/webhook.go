package cli

import (
	"context"

	"claudemesh/bus"
	"claudemesh/wire"
)

func webhookVerb() verb {
	return verb{name: "webhook", short: "addresses that turn a POST into a message", subs: []verb{webhookCreateVerb(), webhookListVerb(), webhookDeleteVerb()}}
}

func webhookCreateVerb() verb {
	return verb{
		name: "create", args: "NAME", short: "make a webhook",
		long: `Prints an address. Whoever POSTs a JSON object or array to it (at most 64 KiB) sends a message to every member of the mesh, online or not. The
address is a secret: it is shown once, and the broker keeps only a hash of it. A request that may be repeated can carry the header Idempotency-Key.

For instance: curl -d '{"build":7}' ADDRESS`,
		examples: []string{"claudemesh webhook create ci"},
		fails:    []string{"3  a name that cannot be one", "4  the broker cannot be reached", "6  there is one of that name, or too many"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh webhook create NAME"); err != nil {
				return err
			}
			var out wire.WebhookAck
			if _, err := c.askBroker(ctx, wire.TypeCreateWebhook, map[string]any{"name": c.args()[0]}, &out); err != nil {
				return err
			}
			return c.ui.result(struct {
				OK     bool   `json:"ok"`
				Name   string `json:"name"`
				URL    string `json:"url"`
				Secret string `json:"secret"`
			}{true, out.Name, out.URL, out.Secret}, func() error {
				c.ui.note("webhook %s; its address is shown this once, keep it like a password", cleanLine(out.Name))
				return c.ui.print("%s", cleanLine(out.URL))
			})
		},
	}
}

func webhookListVerb() verb {
	return verb{
		name: "list", aliases: []string{"ls"}, args: "", short: "list your webhooks; all of the mesh for its admins", examples: []string{"claudemesh webhook list --json"},
		fails: []string{"4  the broker cannot be reached"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh webhook list"); err != nil {
				return err
			}
			var out wire.WebhookList
			if _, err := c.askBroker(ctx, wire.TypeListWebhooks, nil, &out); err != nil {
				return err
			}
			if out.Webhooks == nil {
				out.Webhooks = []wire.WebhookInfo{}
			}
			return c.ui.result(out.Webhooks, func() error {
				if len(out.Webhooks) == 0 {
					return c.ui.print("no webhooks")
				}
				for _, w := range out.Webhooks {
					if err := c.ui.print("%s  since %s", cleanLine(w.Name), cleanLine(w.CreatedAt)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func webhookDeleteVerb() verb {
	return verb{
		name: "delete", aliases: []string{"rm"}, args: "NAME", short: "close a webhook; its name can be used again", examples: []string{"claudemesh webhook delete ci"},
		fails: []string{"4  the broker cannot be reached", "5  no such webhook", "7  it is another member's"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh webhook delete NAME"); err != nil {
				return err
			}
			name := c.args()[0]
			var out wire.WebhookAck
			if _, err := c.askBroker(ctx, wire.TypeDeleteWebhook, map[string]any{"name": name}, &out); err != nil {
				return err
			}
			if out.Deleted != nil && !*out.Deleted { // a reference broker does not say
				return &bus.APIError{Code: 404, Reason: "webhook_not_found", Detail: "no webhook " + quoted(name) + " is here"}
			}
			return c.ui.result(map[string]any{"name": name, "deleted": true}, func() error { return c.ui.print("closed webhook %s", cleanLine(name)) })
		},
	}
}
