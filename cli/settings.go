package cli

import (
	"context"
	"fmt"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/wire"
)

func settingsVerb() verb {
	return verb{
		name: "settings", args: "", short: "show or change what a mesh has decided for everybody",
		long: `Without flags: shows the settings. The rate limit counts per member, over all its sessions; a message that was accepted before is never refused
for it, and this machine's daemon waits and sends again by itself. --json prints {"mesh", "sendRate", "sendBurst", "default", "selfEditable"}.`,
		examples: []string{"claudemesh settings", "claudemesh settings --send-rate 600 --send-burst 100"},
		fails:    []string{"3  a number out of range", "4  the broker cannot be reached", "7  only the owner and admins may change them"},
		flags: []urfave.Flag{
			&urfave.IntFlag{Name: "send-rate", Usage: "`N` messages per minute and member; 0 for the broker's default"},
			&urfave.IntFlag{Name: "send-burst", Usage: "`N` messages at once; 0 for the broker's default"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh settings [--send-rate N] [--send-burst N]"); err != nil {
				return err
			}
			var f wire.MeshSettings
			for name, to := range map[string]**int{"send-rate": &f.SendRate, "send-burst": &f.SendBurst} {
				if c.cmd.IsSet(name) {
					n := c.cmd.Int(name)
					*to = &n
				}
			}
			if err := f.Validate(); err != nil {
				return usagef("%v", err)
			}
			var got wire.MeshSettingsResult
			slug, err := c.askBroker(ctx, bus.CallMeshSettings, f, &got)
			if err != nil {
				return err
			}
			out := struct {
				Mesh         string          `json:"mesh"`
				SendRate     int             `json:"sendRate"`
				SendBurst    int             `json:"sendBurst"`
				Default      bool            `json:"default"`
				SelfEditable map[string]bool `json:"selfEditable"`
			}{slug, got.SendRate, got.SendBurst, got.Default, got.SelfEditable}
			return c.ui.result(out, func() error {
				limit := "none"
				if got.SendRate > 0 {
					limit = fmt.Sprintf("%d messages a minute per member, %d at once", got.SendRate, max(got.SendBurst, 1))
				}
				whose := "set by the team"
				if got.Default {
					whose = "the broker's default"
				}
				return c.ui.print("mesh %s\n  rate limit  %s (%s)", slug, limit, whose)
			})
		},
	}
}
