package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"claudemesh/bus"
)

func daemonStatusVerb() verb {
	return verb{
		name: "status", args: "", short: "tell whether the daemon runs, and how its meshes are",
		long:     `Starts nothing. The exit code is 0 when the daemon answers, else 1; --json has running, pid and the state of each mesh.`,
		examples: []string{"claudemesh daemon status --json"},
		fails:    []string{"1  it does not run, or runs and does not answer"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh daemon status"); err != nil {
				return err
			}
			dir, err := c.daemonDir()
			if err != nil {
				return err
			}
			var s bus.Status
			n, err := c.running(ctx)
			if err == nil {
				defer n.Close()
				err = n.daemon(ctx, bus.OpStatus, nil, &s)
			}
			if refusal(err) || errors.Is(err, context.Canceled) {
				return err
			}
			if err != nil {
				return c.statusWithout(dir, err)
			}
			return c.ui.result(s, func() error { return c.printStatus(s) })
		},
	}
}

// statusWithout is the status when no daemon answers.
func (c *call) statusWithout(dir string, cause error) error {
	out := map[string]any{"running": false}
	text := "the daemon is not running"
	if bus.Held(dir) {
		f := explain(cause)
		out = map[string]any{"running": true, "ipc_error": f.Message, "error": f.Code}
		if info, err := bus.ReadInfo(dir); err == nil {
			out["pid"] = info.PID
		}
		text = f.Message
		if f.Hint != "" {
			text += "\n" + f.Hint
		}
	}
	if err := c.ui.result(out, func() error { return c.ui.print("%s", text) }); err != nil {
		return err
	}
	return &exitError{exitFailed}
}

func (c *call) printStatus(s bus.Status) error {
	if err := c.ui.print("the daemon is running (pid %d, version %s, since %s)", s.PID, s.Version, time.UnixMilli(s.StartedAt).Format(time.RFC3339)); err != nil {
		return err
	}
	rows := [][2]string{{"socket", s.Socket}, {"tcp", s.TCPURL}, {"http", strings.TrimSpace(s.HTTPURL + "  " + s.HTTPSocket)}, {"log", s.Log}, {"sessions", fmt.Sprint(s.Sessions)}}
	if s.Broker != nil {
		rows = append(rows, [2]string{"broker", s.Broker.URL + " " + s.Broker.Error})
	}
	for _, m := range s.Meshes {
		line := fmt.Sprintf("%s  link %s  %s  %d unread", m.Mesh, m.Link, plural(m.Sessions, "session"), m.Unread)
		if waiting := m.Outbox["pending"] + m.Outbox["inflight"]; waiting > 0 {
			line += fmt.Sprintf("  %d waiting to be sent", waiting)
		}
		if dead := m.Outbox["dead"]; dead > 0 {
			line += fmt.Sprintf("  %d refused", dead)
		}
		if m.Error != "" {
			line += "  (" + cleanLine(m.Error) + ")"
		}
		rows = append(rows, [2]string{"mesh", line})
	}
	for _, n := range s.Notices {
		rows = append(rows, [2]string{"notice", cleanLine(n)})
	}
	for _, r := range rows {
		if r[1] == "" {
			continue
		}
		if err := c.ui.print("  %-8s  %s", r[0], r[1]); err != nil {
			return err
		}
	}
	return nil
}

func daemonVersionVerb() verb {
	return verb{
		name: "version", args: "", short: "print the version of the running daemon", hidden: true,
		examples: []string{"claudemesh daemon version --json"},
		fails:    []string{"8  no daemon runs, or it does not answer"},
		run: func(ctx context.Context, c *call) error {
			n, err := c.running(ctx)
			if err != nil {
				return err
			}
			defer n.Close()
			var v bus.Version
			if err := n.daemon(ctx, bus.OpVersion, nil, &v); err != nil {
				return err
			}
			// A number: the reference counts the daemon's schema, not the program's.
			return c.ui.result(map[string]any{"schema_version": 1, "daemon_version": v.Version, "ipc_api": fmt.Sprintf("v%d", v.API), "pid": v.PID}, func() error {
				return c.ui.print("daemon %s (api v%d, pid %d)", v.Version, v.API, v.PID)
			})
		},
	}
}
