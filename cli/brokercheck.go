package cli

import (
	"context"
	"fmt"
	"os"
	"time"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/testenv/conformance"
)

func brokerCheckVerb() verb {
	return verb{
		name: "check", args: "URL", short: "ask a broker whether it speaks the protocol",
		long: `Drives any broker with raw frames, every core message type, and prints for each: same (as the reference broker was measured), corrected
(better, with the number of the reference's defect), defect (as bad), unsupported, or differs. It needs a mesh of its own: an invite with three uses left, or the
admin token of a claudemesh broker, with which it makes one. What it creates has names that begin with "check-".`,
		examples: []string{"claudemesh broker check ws://127.0.0.1:7900/ws --admin-token-file ./broker/admin-token", "claudemesh broker check wss://other.example/ws --invite ic://join/…"},
		fails:    []string{"1  something differs from the protocol", "3  neither an invite nor a token", "4  the broker cannot be reached"},
		flags: []urfave.Flag{
			&urfave.StringFlag{Name: "invite", Usage: "an `INVITE` of a mesh made for this"},
			&urfave.StringFlag{Name: "admin-token-file", Usage: "`FILE` that holds the broker's admin token"},
			&urfave.StringFlag{Name: "only", Usage: "only this message `TYPE`"},
			&urfave.DurationFlag{Name: "quiet", Value: time.Second, Usage: "how long a silence must last to be believed: `TIME` (default 1s)"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh broker check URL"); err != nil {
				return err
			}
			cfg := conformance.Config{URL: c.args()[0], Invite: c.cmd.String("invite"), Only: c.cmd.String("only"), Quiet: c.cmd.Duration("quiet")}
			if file := c.cmd.String("admin-token-file"); file != "" {
				token, err := os.ReadFile(file)
				if err != nil {
					return fmt.Errorf("read admin token file: %w", err)
				}
				cfg.AdminToken = string(token)
			}
			if cfg.Invite == "" && cfg.AdminToken == "" {
				return usagef("a mesh is needed to check in: --admin-token-file FILE, or --invite INVITE with three uses left")
			}
			return c.checkBroker(ctx, cfg)
		},
	}
}

func (c *call) checkBroker(ctx context.Context, cfg conformance.Config) error {
	results := []conformance.Result{}
	var printErr error
	sum, err := conformance.Run(ctx, cfg, func(r conformance.Result) {
		results = append(results, r)
		if !c.ui.json && printErr == nil {
			printErr = c.printCheck(r)
		}
	})
	switch {
	case ctx.Err() != nil:
		return errCancelled
	case err != nil:
		return &failure{Code: "broker_unreachable", Message: err.Error(), Hint: "nothing was checked", Exit: exitNetwork}
	case printErr != nil:
		return printErr
	}
	err = c.ui.result(map[string]any{"ok": sum.Differs == 0, "url": cfg.URL, "results": results}, func() error {
		return c.ui.print("%d same, %d corrected, %d defects, %d unsupported, %d differ", sum.Same, sum.Corrected, sum.Defects, sum.Unsupported, sum.Differs)
	})
	if err == nil && sum.Differs > 0 {
		return &exitError{exitFailed}
	}
	return err
}

func (c *call) printCheck(r conformance.Result) error {
	colour := map[conformance.Verdict]string{conformance.Same: green, conformance.Corrected: green, conformance.Defect: yellow, conformance.Unsupported: yellow, conformance.Differs: red}[r.Verdict]
	what := string(r.Verdict)
	if r.Defect != 0 {
		what = fmt.Sprintf("%s (%d)", what, r.Defect)
	}
	line := fmt.Sprintf("%s  %s: %s", c.ui.paint(colour, fmt.Sprintf("%-15s", what)), r.Type, r.Check)
	if r.Detail != "" {
		line += "\n                 " + cleanLine(r.Detail)
	}
	return c.ui.print("%s", line)
}
