package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/wire"
)

func watchVerb() verb {
	return verb{name: "watch", short: "be told when a web page changes", subs: []verb{watchAddVerb(), watchListVerb(), watchRemoveVerb()}}
}

func watchAddVerb() verb {
	return verb{
		name: "add", args: "URL", short: "watch a web page",
		long: `The broker fetches URL every --interval seconds and sends you a message when what it finds changes; it goes on when this session and this
machine are gone. What is looked at: hash (default), the body; status, the HTTP status code; json, the value at --extract.

A broker fetches addresses of the public internet only, unless whoever runs it allows others. Headers come from a file, because a command line is
no place for a token: one "Name: value" a line.`,
		examples: []string{
			"claudemesh watch add https://example.com/status --mode status --label site",
			"claudemesh watch add https://api.example.com/build --mode json --extract $.state --notify-on match:done --headers-file token.txt",
		},
		fails: []string{"3  not an address that can be watched, or one that the broker does not fetch", "4  the broker cannot be reached", "6  too many watches"},
		flags: []urfave.Flag{
			&urfave.StringFlag{Name: "label", Usage: "a `NAME` for it"},
			&urfave.StringFlag{Name: "mode", Usage: "what to look at: `hash|json|status` (default hash)"},
			&urfave.StringFlag{Name: "extract", Usage: "the `PATH` of a value in JSON, such as $.build.state"},
			&urfave.IntFlag{Name: "interval", Value: wire.DefaultWatchEvery, Usage: "`SECONDS` between checks, from 5 (default 30)"},
			&urfave.StringFlag{Name: "notify-on", Usage: "`WHEN` to tell: change (default), always, match:VALUE, not_match:VALUE"},
			&urfave.StringFlag{Name: "headers-file", Usage: "`FILE` with headers to send; - is stdin"},
		},
		run: func(ctx context.Context, c *call) error { return c.addWatch(ctx) },
	}
}

func (c *call) addWatch(ctx context.Context) error {
	if err := c.want(1, 1, "claudemesh watch add URL"); err != nil {
		return err
	}
	req := wire.Watch{
		URL: c.args()[0], Mode: c.cmd.String("mode"), Extract: c.cmd.String("extract"), Interval: float64(c.cmd.Int("interval")),
		NotifyOn: c.cmd.String("notify-on"), Label: c.cmd.String("label"),
	}
	switch {
	case req.Interval < wire.MinWatchInterval || req.Interval > wire.MaxWatchInterval:
		return usagef("--interval is a number of seconds from %d to %d", wire.MinWatchInterval, wire.MaxWatchInterval)
	case req.Extract != "" && req.Mode == "":
		req.Mode = wire.WatchJSON
	case req.Extract != "" && req.Mode != wire.WatchJSON:
		return usagef("--extract belongs to --mode json")
	}
	var err error
	if file := c.cmd.String("headers-file"); file != "" {
		if req.Headers, err = c.headers(file); err != nil {
			return err
		}
	}
	if err := req.Validate(); err != nil {
		return usagef("%v", err)
	}
	var out wire.WatchAck
	if _, err := c.askBroker(ctx, wire.TypeWatch, req, &out); err != nil {
		return err
	}
	return c.ui.result(struct {
		OK       bool   `json:"ok"`
		ID       string `json:"id"`
		URL      string `json:"url"`
		Label    string `json:"label,omitempty"`
		Mode     string `json:"mode"`
		Interval int    `json:"interval"`
	}{true, out.WatchID, out.URL, req.Label, out.Mode, out.Interval}, func() error {
		return c.ui.print("watching %s, its %s every %d seconds  [%s]", cleanLine(out.URL), cleanLine(out.Mode), out.Interval, cleanLine(out.WatchID))
	})
}

// headers reads "Name: value" lines; empty ones and those that begin with # are passed over. No error shows a value.
func (c *call) headers(file string) (map[string]string, error) {
	in := c.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("read headers: %w", err)
		}
		defer f.Close()
		in = f
	}
	all := map[string]string{}
	lines := bufio.NewScanner(io.LimitReader(in, 4*wire.MaxWatchHeader))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, usagef("line %d of the headers is not of the form Name: value", n)
		}
		all[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read headers: %w", err)
	}
	return all, nil
}

func watchListVerb() verb {
	return verb{
		name: "list", aliases: []string{"ls"}, args: "", short: "list your watches", examples: []string{"claudemesh watch list --json"},
		fails: []string{"4  the broker cannot be reached"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh watch list"); err != nil {
				return err
			}
			var out wire.WatchListResult
			if _, err := c.askBroker(ctx, wire.TypeWatchList, nil, &out); err != nil {
				return err
			}
			if out.Watches == nil {
				out.Watches = []wire.WatchInfo{}
			}
			return c.ui.result(out.Watches, func() error {
				if len(out.Watches) == 0 {
					return c.ui.print("no watches")
				}
				for _, w := range out.Watches {
					if err := c.printWatch(w); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func (c *call) printWatch(w wire.WatchInfo) error {
	name := cleanLine(w.URL)
	if w.Label != "" {
		name = c.ui.paint(bold, cleanLine(w.Label)) + "  " + name
	}
	found := "not checked yet"
	switch {
	case w.Error != "":
		found = c.ui.paint(red, cleanLine(w.Error))
	case w.LastCheck != "":
		found = cleanLine(w.LastValue) + " at " + cleanLine(w.LastCheck)
	}
	return c.ui.print("%s  %s\n    %s every %d s: %s", name, c.ui.paint(dim, cleanLine(w.ID)), cleanLine(w.Mode), w.Interval, found)
}

func watchRemoveVerb() verb {
	return verb{
		name: "remove", aliases: []string{"rm"}, args: "ID", short: "end a watch", examples: []string{"claudemesh watch remove w_dbcc7d1d"},
		fails: []string{"4  the broker cannot be reached", "5  no such watch", "7  it is another member's"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh watch remove ID"); err != nil {
				return err
			}
			id := c.args()[0]
			var out wire.WatchAck
			if _, err := c.askBroker(ctx, wire.TypeUnwatch, map[string]any{"watchId": id}, &out); err != nil {
				return err
			}
			if out.URL == "" {
				return &bus.APIError{Code: 404, Reason: "watch_not_found", Detail: "no watch " + quoted(id) + " is here"}
			}
			return c.ui.result(map[string]any{"id": id, "removed": true}, func() error { return c.ui.print("ended watch %s of %s", cleanLine(id), cleanLine(out.URL)) })
		},
	}
}
