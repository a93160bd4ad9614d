package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/daemon"
	"claudemesh/wire"
)

func brokerVerb() verb {
	return verb{name: "broker", short: "a broker of your own", subs: []verb{brokerServeVerb(), brokerCheckVerb()}}
}

func brokerServeVerb() verb {
	return verb{
		name: "serve", args: "", short: "run a broker that several machines share",
		long: `Stays and logs to stderr; ends with an interrupt. The admin token for claudemesh create --broker is in DIR. It speaks plain ws://: put a
proxy that adds TLS in front of it before others reach it over a network you do not trust.`,
		examples: []string{"claudemesh broker serve --listen 127.0.0.1:7900 --data /var/lib/claudemesh"},
		fails:    []string{"8  the address is taken, or the store cannot be opened"},
		flags: []urfave.Flag{
			&urfave.StringFlag{Name: "listen", Value: "127.0.0.1:7900", Usage: "the `ADDRESS` to listen on (default 127.0.0.1:7900)"},
			&urfave.StringFlag{Name: "data", Usage: "the `DIR` of its store"},
			&urfave.IntFlag{Name: "send-rate", Value: 3000, Usage: "at most `N` messages per minute from one member (default 3000); 0 for no limit"},
			&urfave.IntFlag{Name: "send-burst", Value: 1000, Usage: "at most `N` of them at once (default 1000)"},
			&urfave.BoolFlag{Name: "allow-hook", Usage: "take POST /hook/set-status from any program on this machine, without a signature"},
			&urfave.StringFlag{Name: "public-url", Usage: "the `URL` that invites name, when it is not the listening address"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh broker serve --data DIR"); err != nil {
				return err
			}
			if c.cmd.String("data") == "" {
				return usagef("a broker needs a place for its store: --data DIR")
			}
			if rate, burst := c.cmd.Int("send-rate"), c.cmd.Int("send-burst"); rate < 0 || rate > wire.MaxSendRate || burst < 1 || burst > wire.MaxSendBurst {
				return usagef("--send-rate is a number up to %d, --send-burst one from 1 to %d", wire.MaxSendRate, wire.MaxSendBurst)
			}
			return c.serveBroker(ctx)
		},
	}
}

func (c *call) serveBroker(ctx context.Context) error {
	data, err := filepath.Abs(c.cmd.String("data"))
	if err != nil {
		return fmt.Errorf("find data directory: %w", err)
	}
	var printErr error
	err = c.rooms.broker(ctx, daemon.BrokerOptions{
		Options: daemon.Options{Version: Version, Log: slog.New(slog.NewJSONHandler(c.stderr, nil))},
		Listen:  c.cmd.String("listen"), DataDir: data, PublicURL: c.cmd.String("public-url"),
		SendRate: c.cmd.Int("send-rate"), SendBurst: c.cmd.Int("send-burst"), AllowHook: c.cmd.Bool("allow-hook"),
		Ready: func(addr string) {
			token := filepath.Join(data, daemon.AdminTokenFile)
			printErr = c.ui.result(map[string]any{"ok": true, "listen": addr, "data": data, "admin_token_file": token}, func() error {
				return c.ui.print("the broker listens on %s\n  admin token  %s", addr, token)
			})
		},
	})
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil // interrupted while it started
	}
	return errors.Join(err, printErr)
}
