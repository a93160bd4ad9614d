package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/daemon"
	"claudemesh/wire"
)

func brokerStatusVerb() verb {
	return verb{
		name: "status", args: "[URL]", short: "ask a running broker how it does",
		long: `Asks the broker at URL (wss://, ws://, https:// or http://), or the one that runs on this machine with --data DIR. Health, version and
uptime are told to everybody; connections, meshes and what is stored only with the admin token, which --data finds by itself. A broker that listens on loopback only
tells its machine everything.`,
		examples: []string{"claudemesh broker status --data /var/lib/claudemesh", "claudemesh broker status wss://mesh.example.org/ws --admin-token-file admin-token --json"},
		fails:    []string{"3  neither URL nor --data", "4  it cannot be reached, is not trusted, or none runs in DIR", "7  the admin token is wrong"},
		flags: []urfave.Flag{
			&dataFlag, &urfave.StringFlag{Name: "admin-token-file", Usage: "`FILE` that holds the broker's admin token"}, &caFlag,
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 1, "claudemesh broker status [URL] [--data DIR]"); err != nil {
				return err
			}
			ask, info, err := c.brokerAsk()
			if err != nil {
				return err
			}
			var r daemon.BrokerReport
			if err := c.meter("asking").during(ctx, nil, func(ctx context.Context) (err error) { r, err = daemon.AskBroker(ctx, ask); return err }); err != nil {
				return err
			}
			if ask.Token != "" && r.Denied == "invalid_or_revoked_token" {
				return &bus.APIError{Code: 401, Reason: "unauthorized", Detail: "the broker does not know this admin token"}
			}
			return c.ui.result(brokerStatusJSON{OK: r.Health.DB != "down", BrokerReport: r, PID: info.PID, Store: info.StoreURL}, func() error { return c.printBroker(r, info) })
		},
	}
}

type brokerStatusJSON struct {
	OK bool `json:"ok"`
	daemon.BrokerReport
	PID   int    `json:"pid,omitempty"`
	Store string `json:"store_url,omitempty"`
}

// brokerAsk decides whom to ask, and with which token.
func (c *call) brokerAsk() (ask daemon.BrokerAsk, info daemon.BrokerInfo, err error) {
	if ask.CAFile, err = c.caFile(); err != nil {
		return ask, info, err
	}
	tokenFile := c.cmd.String("admin-token-file")
	switch {
	case len(c.args()) == 1 && c.cmd.String("data") != "":
		return ask, info, usagef("URL and --data exclude each other")
	case len(c.args()) == 1:
		ask.URL = c.args()[0]
	default:
		if c.cmd.String("data") == "" {
			return ask, info, &usageError{message: "which broker?", hint: "name its URL, or its store with --data DIR\nfor the broker inside your daemon: claudemesh daemon status"}
		}
		data, err := c.dataDir()
		if err != nil {
			return ask, info, err
		}
		if info, err = c.runningBroker(data); err != nil {
			return ask, info, err
		}
		ask.URL, ask.TLSCert = info.LocalURL, info.TLSCert
		if tokenFile == "" {
			tokenFile = filepath.Join(data, daemon.AdminTokenFile)
		}
	}
	if tokenFile != "" {
		b, err := os.ReadFile(tokenFile)
		if err != nil {
			return ask, info, fmt.Errorf("read admin token file: %w", err)
		}
		ask.Token = strings.TrimSpace(string(b))
	}
	return ask, info, nil
}

// runningBroker reads what the broker of a data directory says; its lock says whether it runs.
func (c *call) runningBroker(data string) (daemon.BrokerInfo, error) {
	if !bus.Held(data) {
		return daemon.BrokerInfo{}, &bus.APIError{Code: 503, Reason: "broker_not_running", Detail: "no broker runs in " + data}
	}
	info, err := daemon.ReadBrokerInfo(data)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.LocalURL == "" && info.StoreURL == "" {
		return info, &bus.APIError{Code: 503, Reason: "broker_not_running", Detail: "the broker in " + data + " has not started yet"}
	}
	if err == nil && info.LocalURL == "" && c.cmd.Name == "status" {
		return info, &bus.APIError{Code: 503, Reason: "broker_not_running", Detail: "only the store in " + data + " is open; no broker runs on it"}
	}
	return info, err
}

func (c *call) printBroker(r daemon.BrokerReport, info daemon.BrokerInfo) error {
	up := (time.Duration(r.Health.Uptime) * time.Second).String()
	state := "takes mail"
	if r.Health.DB == "down" {
		state = "its store takes no mail"
	}
	lines := []string{fmt.Sprintf("%s  %s\n  version      %s, up %s", r.URL, state, cleanLine(r.Health.Version), up)}
	if info.PID != 0 {
		lines = append(lines, fmt.Sprintf("  process      %d", info.PID))
	}
	if d := r.Details; d != nil {
		lines = append(lines, brokerLines(d)...)
	} else {
		lines = append(lines, "  the rest is for holders of the admin token: --admin-token-file FILE")
	}
	return c.ui.print("%s", strings.Join(lines, "\n"))
}

func brokerLines(d *wire.BrokerStatus) []string {
	lines := []string{
		fmt.Sprintf("  meshes       %d, with %s and %s", d.Meshes, plural(d.Members, "member"), plural(d.Invites, "invite")),
		fmt.Sprintf("  connections  %d, on %s", d.Connections, plural(d.Sockets, "socket")),
		fmt.Sprintf("  messages     %d kept, %d waiting in %d mailboxes (the fullest holds %d)", d.Messages, d.QueueDepth, d.Mailboxes, d.DeepestMailbox),
		fmt.Sprintf("  stored       %s", bytesText(d.Bytes)),
	}
	for _, s := range d.Streams {
		lines = append(lines, fmt.Sprintf("    %-12s %d messages, %s", cleanLine(s.Name), s.Messages, bytesText(s.Bytes)))
	}
	return lines
}

// bytesText is a size for people.
func bytesText(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/unit, 0
	for ; f >= unit && i < 3; i++ {
		f /= unit
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGT"[i])
}

func brokerContextVerb() verb {
	return verb{
		name: "context", args: "", short: "let the stock nats CLI into a broker's store",
		long: `Writes a context for the nats CLI with a credential that may do everything in the store of the broker in DIR: for looking, backup and
restore (docs/broker-storage.md). The broker must have been started with --nats-port, or be opened with claudemesh broker store. Your selected context stays as it is.`,
		examples: []string{"claudemesh broker context --data /var/lib/claudemesh", "nats --context claudemesh-broker stream ls --all"},
		fails:    []string{"4  no broker runs in DIR", "6  it runs without --nats-port", "10  the file cannot be written"},
		flags:    []urfave.Flag{&dataFlag, &urfave.StringFlag{Name: "name", Value: "claudemesh-broker", Usage: "the context's `NAME`"}},
		run: func(_ context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh broker context --data DIR"); err != nil {
				return err
			}
			name := c.cmd.String("name")
			if !contextName.MatchString(name) {
				return usagef("--name is made of letters, digits, - and _, at most 64")
			}
			data, err := c.dataDir()
			if err != nil {
				return err
			}
			path, err := c.contextPath(name)
			if err != nil {
				return err
			}
			info, err := c.runningBroker(data)
			if err != nil {
				return err
			}
			if info.StoreURL == "" {
				return &bus.APIError{Code: 409, Reason: "no_door", Detail: "this broker runs without a door to its store: start it with --nats-port PORT"}
			}
			token, err := os.ReadFile(filepath.Join(data, daemon.StoreTokenFile))
			if err != nil {
				return fmt.Errorf("read store token: %w", err)
			}
			err = saveContext(path, natsContext{Description: "claudemesh broker store in " + data, URL: info.StoreURL, Token: strings.TrimSpace(string(token))})
			if err != nil {
				return err
			}
			return c.ui.result(map[string]any{"ok": true, "context": name, "file": path, "url": info.StoreURL}, func() error {
				return c.ui.print("wrote context %s (%s)\n  streams  nats --context %[1]s stream ls --all\n  backup   see docs/broker-storage.md", name, path)
			})
		},
	}
}
