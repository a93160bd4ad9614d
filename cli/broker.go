package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"time"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/broker"
	"claudemesh/daemon"
	"claudemesh/wire"
)

func brokerVerb() verb {
	return verb{name: "broker", short: "a broker of your own", subs: []verb{brokerServeVerb(), brokerStatusVerb(), brokerCheckVerb(), brokerStoreVerb(), brokerContextVerb()}}
}

func brokerServeVerb() verb {
	return verb{
		name: "serve", args: "", short: "run a broker that several machines share",
		long: `Stays and logs to stderr; ends with an interrupt. The admin token for claudemesh create --broker, for /metrics and for broker status is
in DIR. On an address that other machines reach it needs a certificate (--tls-cert and --tls-key, read again when they change) or a proxy in front of it that adds
TLS (--behind-proxy; --trusted-proxy to believe its X-Forwarded-For in rate limits); --insecure is for networks where everybody may listen.
--nats-port opens the store to the stock nats CLI, on loopback and with a token: see claudemesh broker context.`,
		examples: []string{
			"claudemesh broker serve --listen 127.0.0.1:7900 --data /var/lib/claudemesh",
			"claudemesh broker serve --listen :7900 --data /var/lib/claudemesh --tls-cert cert.pem --tls-key key.pem --public-url wss://mesh.example.org:7900/ws",
		},
		fails: []string{"3  it would listen in clear beyond this machine; a certificate without its key", "8  the address is taken, or the store cannot be opened", "10  a file cannot be read"},
		flags: []urfave.Flag{
			&urfave.StringFlag{Name: "listen", Value: "127.0.0.1:7900", Usage: "the `ADDRESS` to listen on (default 127.0.0.1:7900)"},
			&dataFlag,
			&urfave.IntFlag{Name: "send-rate", Value: 3000, Usage: "at most `N` messages per minute from one member (default 3000); 0 for no limit"},
			&urfave.IntFlag{Name: "send-burst", Value: 1000, Usage: "at most `N` of them at once (default 1000)"},
			&urfave.BoolFlag{Name: "allow-hook", Usage: "take POST /hook/set-status from any program on this machine, without a signature"},
			&urfave.StringFlag{Name: "sync", Value: "always", Usage: "when a message is safe from a power cut: `always` before it is acknowledged (default), or at an interval of a second"},
			&urfave.IntFlag{Name: "max-connections", Usage: "how many `CONNECTIONS` to serve, in all and of one mesh (default 4096 and 1000)"},
			&urfave.IntFlag{Name: "max-store", Value: 1, Usage: "how many `GIB` of disk the messages may take (default 1)"},
			&urfave.BoolFlag{Name: "allow-private-watches", Usage: "let members watch addresses that are not on the public internet, this machine's own included"},
			&urfave.StringFlag{Name: "public-url", Usage: "the `URL` that invites name, when it is not the listening address"},
			&urfave.StringFlag{Name: "tls-cert", Usage: "PEM `FILE` of the certificate and those between it and its authority"},
			&urfave.StringFlag{Name: "tls-key", Usage: "PEM `FILE` of its key"},
			&urfave.BoolFlag{Name: "behind-proxy", Usage: "a proxy that adds TLS is the only way to this port"},
			&urfave.StringSliceFlag{Name: "trusted-proxy", Usage: "believe X-Forwarded-For of this address or network: `CIDR`; implies --behind-proxy; may be repeated"},
			&urfave.BoolFlag{Name: "insecure", Usage: "plain ws:// beyond this machine, on purpose"},
			&urfave.IntFlag{Name: "nats-port", Value: noPort, HideDefault: true, Usage: "open the store to the nats CLI at this loopback `PORT` (0: any free one)"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh broker serve --data DIR"); err != nil {
				return err
			}
			o, err := c.brokerOptions()
			if err != nil {
				return err
			}
			var proxies []netip.Prefix
			for _, s := range c.cmd.StringSlice("trusted-proxy") {
				p, err := parseNetwork(s)
				if err != nil {
					return usagef("--trusted-proxy takes an address or a network such as 10.0.0.0/8, not %s", quoted(s))
				}
				proxies = append(proxies, p)
			}
			o.Listen, o.PublicURL, o.Insecure, o.BehindProxy, o.TrustedProxies = c.cmd.String("listen"), c.cmd.String("public-url"), c.cmd.Bool("insecure"), c.cmd.Bool("behind-proxy"), proxies
			for name, to := range map[string]*string{"tls-cert": &o.TLSCert, "tls-key": &o.TLSKey} {
				if file := c.cmd.String(name); file != "" {
					if *to, err = filepath.Abs(file); err != nil {
						return fmt.Errorf("find --%s: %w", name, err)
					}
				}
			}
			if o.SyncEvery, o.Limits, err = c.brokerLimits(); err != nil {
				return err
			}
			o.AllowHook, o.AllowPrivateWatches = c.cmd.Bool("allow-hook"), c.cmd.Bool("allow-private-watches")
			return c.runBroker(ctx, c.rooms.broker, o, func(i daemon.BrokerInfo) string {
				return fmt.Sprintf("the broker listens on %s\n  clients      %s\n  admin token  %s", i.Listen, i.URL, filepath.Join(o.DataDir, daemon.AdminTokenFile))
			})
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

var dataFlag = urfave.StringFlag{Name: "data", Usage: "the `DIR` of its store"}

// noPort is the value of --nats-port that was not given.
const noPort = -1

// parseNetwork reads a network, or one address.
func parseNetwork(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Prefix(a.BitLen())
	}
	return netip.ParsePrefix(s)
}

// dataDir is --data, which must be there.
func (c *call) dataDir() (string, error) {
	if c.cmd.String("data") == "" {
		return "", usagef("a broker needs a place for its store: --data DIR")
	}
	data, err := filepath.Abs(c.cmd.String("data"))
	if err != nil {
		return "", fmt.Errorf("find data directory: %w", err)
	}
	return data, nil
}

func (c *call) brokerOptions() (daemon.BrokerOptions, error) {
	data, err := c.dataDir()
	if err != nil {
		return daemon.BrokerOptions{}, err
	}
	o := daemon.BrokerOptions{Options: daemon.Options{Version: c.release, Log: slog.New(slog.NewJSONHandler(c.stderr, nil))}, DataDir: data}
	switch port := c.cmd.Int("nats-port"); {
	case port == noPort:
	case port < 0 || port > 65535:
		return o, usagef("--nats-port is a port, or 0 for any free one")
	default:
		o.StorePort = &port
	}
	return o, nil
}

// runBroker runs a broker, or its store alone, until it is interrupted.
func (c *call) runBroker(ctx context.Context, run func(context.Context, daemon.BrokerOptions) error, o daemon.BrokerOptions, text func(daemon.BrokerInfo) string) error {
	var printErr error
	o.Ready = func(i daemon.BrokerInfo) {
		out := map[string]any{"ok": true, "data": o.DataDir}
		if i.Listen != "" {
			out["listen"], out["url"], out["admin_token_file"] = i.Listen, i.URL, filepath.Join(o.DataDir, daemon.AdminTokenFile)
		}
		if i.StoreURL != "" {
			out["store_url"], out["store_token_file"] = i.StoreURL, filepath.Join(o.DataDir, daemon.StoreTokenFile)
		}
		printErr = c.ui.result(out, func() error {
			s := text(i)
			if i.StoreURL != "" {
				s += "\n  store        " + i.StoreURL + ", for the nats CLI: claudemesh broker context --data " + o.DataDir
			}
			return c.ui.print("%s", s)
		})
	}
	err := run(ctx, o)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil // interrupted while it started
	}
	return errors.Join(err, printErr)
}

func brokerStoreVerb() verb {
	return verb{
		name: "store", args: "", short: "open the store of a stopped broker to the nats CLI",
		long: `Opens only the store in DIR, on loopback and with a token, until it is interrupted: no broker runs on it. For restoring a backup into
an empty DIR with the stock nats CLI (docs/broker-storage.md).`,
		examples: []string{"claudemesh broker store --data ./restored &", "claudemesh broker context --data ./restored"},
		fails:    []string{"1  a broker runs on DIR", "8  the port is taken, or the store cannot be opened"},
		flags: []urfave.Flag{
			&dataFlag, &urfave.IntFlag{Name: "nats-port", Value: noPort, HideDefault: true, Usage: "the loopback `PORT` (default any free one)"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh broker store --data DIR"); err != nil {
				return err
			}
			o, err := c.brokerOptions()
			if err != nil {
				return err
			}
			return c.runBroker(ctx, c.rooms.store, o, func(daemon.BrokerInfo) string { return "the store is open; no broker runs on it" })
		},
	}
}
