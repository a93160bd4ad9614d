package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/google/renameio/v2/maybe"
	"github.com/nats-io/nats.go"
	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
)

func busVerb() verb {
	return verb{name: "bus", short: "look at the local bus", subs: []verb{busTapVerb(), busContextVerb()}}
}

// everything is what a tap hears unless told otherwise.
const everything = "mesh.>"

// tapQueue is how many messages wait to be printed. A tap that is not read loses more than that, and says so.
const tapQueue = 4096

func busTapVerb() verb {
	return verb{
		name: "tap", args: "", short: "print what travels on the bus",
		long: `Prints requests, messages, events and receipts as they pass, until it is interrupted: the subject, then the text. Bodies are shown in
clear: this is your own machine's bus. --json prints one object a line, {subject, reply, data}.`,
		examples: []string{"claudemesh bus tap --subject 'mesh.team.msg.>'"},
		fails:    []string{"7  a session may hear its own messages only"},
		flags:    []urfave.Flag{&urfave.StringFlag{Name: "subject", Value: everything, Usage: "the `SUBJECT` to listen to, wildcards * and > allowed (default mesh.>)"}},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh bus tap [--subject 'mesh.>']"); err != nil {
				return err
			}
			n, err := c.connectDaemon(ctx)
			if err != nil {
				return err
			}
			defer n.Close()
			return c.tap(ctx, n, c.cmd.String("subject"))
		},
	}
}

func (c *call) tap(ctx context.Context, n *conn, subject string) error {
	queue := make(chan *nats.Msg, tapQueue)
	dropped := make(chan struct{}, 1)
	lost := n.Conn().StatusChanged(nats.CLOSED, nats.DISCONNECTED)
	_, err := n.Subscribe(subject, func(m *nats.Msg) {
		select {
		case queue <- m:
		default:
			select {
			case dropped <- struct{}{}:
			default:
			}
		}
	})
	if err != nil {
		return err
	}
	c.ui.note("listening to %s, end with an interrupt", subject)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-lost:
			return fmt.Errorf("%w: the tap ends", bus.ErrInterrupted)
		case <-dropped:
			c.ui.warn("messages came faster than they were read; some are missing here")
		case m := <-queue:
			if err := c.printTapped(m); err != nil {
				return err
			}
		}
	}
}

// tapped is one message on the bus. Data is the payload as it is when that is JSON, else a string.
type tapped struct {
	Subject string          `json:"subject"`
	Reply   string          `json:"reply,omitempty"`
	Data    json.RawMessage `json:"data"`
}

func (c *call) printTapped(m *nats.Msg) error {
	if !c.ui.json {
		return c.ui.print("%s\n    %s", c.ui.paint(bold, cleanLine(m.Subject)), indent(clean(strings.ToValidUTF8(string(m.Data), "?")), "    "))
	}
	t := tapped{Subject: m.Subject, Reply: m.Reply, Data: m.Data}
	if !json.Valid(m.Data) || !utf8.Valid(m.Data) {
		b, err := json.Marshal(string(m.Data))
		if err != nil {
			return fmt.Errorf("encode tapped message: %w", err)
		}
		t.Data = b
	}
	return c.ui.printJSON(t, true)
}

// contextName is what may name a context: it becomes a file's name.
var contextName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

func busContextVerb() verb {
	return verb{
		name: "context", args: "", short: "let the stock nats CLI read the bus",
		long: `Writes a context for the nats CLI with a credential that reads everything and writes nothing. Your selected context stays as it is.
--revoke takes the credential back: programs that use it are cut at once.`,
		examples: []string{"claudemesh bus context", "nats --context claudemesh sub 'mesh.>'"},
		fails:    []string{"6  the daemon runs with --no-tcp", "7  sessions may not do this", "10  the file cannot be written"},
		flags: []urfave.Flag{
			&urfave.StringFlag{Name: "name", Value: "claudemesh", Usage: "the context's `NAME`"},
			&urfave.BoolFlag{Name: "revoke", Usage: "take the credential back and remove the context"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh bus context [--name NAME]"); err != nil {
				return err
			}
			name := c.cmd.String("name")
			if !contextName.MatchString(name) {
				return usagef("--name is made of letters, digits, - and _, at most 64")
			}
			path, err := c.contextPath(name)
			if err != nil {
				return err
			}
			n, err := c.connectDaemon(ctx)
			if err != nil {
				return err
			}
			defer n.Close()
			var tap bus.Tap
			revoke := c.cmd.Bool("revoke")
			if err := n.daemon(ctx, bus.OpTap, bus.TapRequest{Revoke: revoke}, &tap); err != nil {
				return err
			}
			if revoke {
				return c.dropContext(path)
			}
			return c.writeContext(path, name, tap)
		},
	}
}

func (c *call) contextPath(name string) (string, error) {
	base := c.getenv("XDG_CONFIG_HOME")
	if base == "" {
		home := c.getenv("HOME")
		if home == "" {
			return "", usagef("HOME is not set: it is not known where the nats CLI keeps its contexts")
		}
		base = filepath.Join(home, ".config")
	}
	return filepath.Join(base, "nats", "context", name+".json"), nil
}

// natsContext is the part of the nats CLI's context file that we need.
type natsContext struct {
	Description string `json:"description"`
	URL         string `json:"url"`
	Token       string `json:"token"`
	InboxPrefix string `json:"inbox_prefix,omitempty"`
}

func (c *call) writeContext(path, name string, tap bus.Tap) error {
	token, err := os.ReadFile(tap.TokenFile)
	if err != nil {
		return fmt.Errorf("read tap token: %w", err)
	}
	if err := saveContext(path, natsContext{Description: "claudemesh bus, read only", URL: tap.URL, Token: strings.TrimSpace(string(token)), InboxPrefix: tap.InboxPrefix}); err != nil {
		return err
	}
	return c.ui.result(map[string]any{"ok": true, "context": name, "file": path, "url": tap.URL, "inbox_prefix": tap.InboxPrefix}, func() error {
		return c.ui.print("wrote context %s (%s)\n  watch     nats --context %[1]s sub 'mesh.>'\n  streams   nats --context %[1]s stream ls\n  services  nats --context %[1]s micro info claudemesh\n  end it    claudemesh bus context --revoke", name, path)
	})
}

// saveContext writes a context file, which holds a credential.
func saveContext(path string, nc natsContext) error {
	b, err := json.MarshalIndent(nc, "", "  ")
	if err != nil {
		return fmt.Errorf("encode context: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make context directory: %w", err)
	}
	if err := maybe.WriteFile(path, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write context: %w", err)
	}
	return nil
}

func (c *call) dropContext(path string) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("remove context: %w", err)
	}
	return c.ui.result(map[string]any{"ok": true, "revoked": true, "file": path}, func() error { return c.ui.print("the credential is revoked and the context removed") })
}
