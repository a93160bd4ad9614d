package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/broker"
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
			&urfave.StringFlag{Name: "sync", Value: "always", Usage: "when a message is safe from a power cut: `always` before it is acknowledged (default), or at an interval of a second"},
			&urfave.IntFlag{Name: "max-connections", Usage: "how many `CONNECTIONS` to serve, in all and of one mesh (default 4096 and 1000)"},
			&urfave.IntFlag{Name: "max-store", Value: 1, Usage: "how many `GIB` of disk the messages may take (default 1)"},
			&urfave.BoolFlag{Name: "allow-private-watches", Usage: "let members watch addresses that are not on the public internet, this machine's own included"},
			&urfave.StringFlag{Name: "public-url", Usage: "the `URL` that invites name, when it is not the listening address"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh broker serve --data DIR"); err != nil {
				return err
			}
			if c.cmd.String("data") == "" {
				return usagef("a broker needs a place for its store: --data DIR")
			}
			every, limits, err := c.brokerLimits()
			if err != nil {
				return err
			}
			return c.serveBroker(ctx, every, limits)
		},
	}
}

// syncInterval is what --sync interval means.
const syncInterval = time.Second

// Bounds of what can be asked of one broker process.
const (
	maxConnections = 1 << 20
	maxStoreGiB    = 1 << 14
)

func (c *call) brokerLimits() (every time.Duration, l broker.Limits, err error) {
	switch s := c.cmd.String("sync"); s {
	case "always":
	case "interval":
		every = syncInterval
	default:
		return 0, l, usagef("--sync is always or interval, not %q", s)
	}
	n, gib := c.cmd.Int("max-connections"), c.cmd.Int("max-store")
	switch {
	case c.cmd.IsSet("max-connections") && (n < 1 || n > maxConnections):
		return 0, l, usagef("--max-connections is 1 to %d", maxConnections)
	case gib < 1 || gib > maxStoreGiB:
		return 0, l, usagef("--max-store is 1 to %d GiB", maxStoreGiB)
	}
	rate, burst := c.cmd.Int("send-rate"), c.cmd.Int("send-burst")
	if rate < 0 || rate > wire.MaxSendRate || burst < 1 || burst > wire.MaxSendBurst {
		return 0, l, usagef("--send-rate is a number up to %d, --send-burst one from 1 to %d", wire.MaxSendRate, wire.MaxSendBurst)
	}
	return every, broker.Limits{Conns: n, ConnsPerMesh: n, MaxStore: int64(gib) << 30, SendRate: rate, SendBurst: burst}, nil
}

func (c *call) serveBroker(ctx context.Context, every time.Duration, limits broker.Limits) error {
	data, err := filepath.Abs(c.cmd.String("data"))
	if err != nil {
		return fmt.Errorf("find data directory: %w", err)
	}
	var printErr error
	err = c.rooms.broker(ctx, daemon.BrokerOptions{
		Options: daemon.Options{Version: Version, Log: slog.New(slog.NewJSONHandler(c.stderr, nil))},
		Listen:  c.cmd.String("listen"), DataDir: data, PublicURL: c.cmd.String("public-url"), SyncEvery: every, Limits: limits,
		AllowHook:           c.cmd.Bool("allow-hook"),
		AllowPrivateWatches: c.cmd.Bool("allow-private-watches"),
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
