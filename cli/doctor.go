package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"claudemesh/bus"
	"claudemesh/cli/claudeconf"
)

// How a check went.
const (
	checkOK   = "ok"
	checkWarn = "warn" // something does less than it could
	checkFail = "fail" // something does not work
)

// check is one thing that was looked at.
type check struct {
	Check  string `json:"check"`
	Status string `json:"status"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"` // a command or a sentence
}

type doctorJSON struct {
	OK       bool              `json:"ok"` // nothing fails
	Checks   []check           `json:"checks"`
	Sessions []bus.SessionInfo `json:"sessions"`
}

func doctorVerb() verb {
	return verb{
		name: "doctor", short: "what works, what does not, and what to do about it",
		long: `Looks at the daemon, the links to brokers, Claude Code and its files, and at every session: by which way the next message gets before its model, and since when
nothing has reached it. Nothing is started and nothing is changed.

  channel   the MCP server notifies the client (proven once the client's record of the conversation held a message; silent when it drops them)
  wake      a hook waits, and wakes the client when it is idle
  hook      messages come with the next prompt, the next tool that ends, or the end of the turn
  nudge     a line without content in the client's own inbox
  inbox     nothing wakes it: it finds messages by claudemesh inbox`,
		examples: []string{"claudemesh doctor", "claudemesh doctor --json"},
		fails:    []string{"1  something does not work"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh doctor"); err != nil {
				return err
			}
			out := doctorJSON{OK: true, Sessions: []bus.SessionInfo{}}
			out.Checks = append(out.Checks, c.checkDaemon(ctx, &out.Sessions)...)
			out.Checks = append(out.Checks, c.checkClaude()...)
			for _, s := range out.Sessions {
				out.Checks = append(out.Checks, checkSession(s))
			}
			for _, k := range out.Checks {
				out.OK = out.OK && k.Status != checkFail
			}
			if err := c.ui.result(out, func() error { return c.printChecks(out.Checks) }); err != nil || out.OK {
				return err
			}
			return &exitError{exitFailed}
		},
	}
}

func (c *call) printChecks(checks []check) error {
	marks := map[string]string{checkOK: c.ui.paint(green, "✓"), checkWarn: c.ui.paint(yellow, "!"), checkFail: c.ui.paint(red, "✗")}
	for _, k := range checks {
		if err := c.ui.print("%s %-8s %s", marks[k.Status], k.Check, cleanLine(k.Detail)); err != nil {
			return err
		}
		if k.Fix != "" {
			if err := c.ui.print("           %s", c.ui.paint(dim, cleanLine(k.Fix))); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkDaemon looks at the daemon, its meshes and sessions.
func (c *call) checkDaemon(ctx context.Context, sessions *[]bus.SessionInfo) []check {
	n, err := c.running(ctx)
	if errors.Is(err, bus.ErrNoDaemon) {
		return []check{{"daemon", checkOK, "not running; the first command that needs it starts it", ""}}
	}
	if err != nil {
		f := explain(err)
		return []check{{"daemon", checkFail, f.Message, f.Hint}}
	}
	defer n.Close()
	var s bus.Status
	var list bus.SessionList
	if err := errors.Join(n.daemon(ctx, bus.OpStatus, nil, &s), n.daemon(ctx, bus.OpSessionList, nil, &list)); err != nil {
		f := explain(err)
		return []check{{"daemon", checkFail, f.Message, f.Hint}}
	}
	*sessions = append(*sessions, list.Sessions...)
	checks := []check{{"daemon", checkOK, fmt.Sprintf("runs (pid %d, version %s)", s.PID, s.Version), ""}}
	if s.Version != c.release {
		checks[0] = check{"daemon", checkWarn, fmt.Sprintf("runs version %s, this program is %s", s.Version, c.release), "claudemesh daemon down; the next command starts this version"}
	}
	for _, notice := range s.Notices {
		checks = append(checks, check{"daemon", checkWarn, notice, ""})
	}
	if len(s.Meshes) == 0 {
		checks = append(checks, check{"mesh", checkWarn, "no mesh is joined", "claudemesh create NAME, or claudemesh join INVITE"})
	}
	for _, m := range s.Meshes {
		k := check{"mesh", checkOK, fmt.Sprintf("%s: link %s, %d unread", m.Mesh, m.Link, m.Unread), ""}
		if m.Link != "open" {
			k.Status, k.Fix = checkFail, "what is sent meanwhile is kept; see claudemesh status"
			if m.Error != "" {
				k.Detail += ": " + m.Error
			}
		}
		if dead := m.Outbox["dead"]; dead > 0 && k.Status == checkOK {
			k.Status, k.Detail, k.Fix = checkWarn, k.Detail+fmt.Sprintf(", %d not sent for good", dead), "claudemesh daemon outbox list --failed"
		}
		checks = append(checks, k)
	}
	return checks
}

// checkClaude looks for the client and for what install puts into its files.
func (c *call) checkClaude() []check {
	path, err := c.claude()
	if err != nil {
		f := explain(err)
		return []check{{"claude", checkWarn, f.Message, strings.ReplaceAll(f.Hint, "\n", "; ")}}
	}
	checks := []check{{"claude", checkOK, path, ""}}
	setup, err := c.claudeSetup()
	if err != nil {
		return append(checks, check{"install", checkFail, explain(err).Message, ""})
	}
	return append(checks, installed(setup.Claude))
}

// installed tells how plain claude takes part.
func installed(f claudeconf.Files) check {
	switch server, hooks := f.HasServer(""), f.HasHooks(); {
	case server && hooks:
		return check{"install", checkOK, "plain claude is on the mesh: MCP server and hooks are in " + f.Config + " and " + f.Settings, ""}
	case server:
		return check{"install", checkWarn, "plain claude is on the mesh, without hooks: nothing wakes it when its channel is silent", "claudemesh install"}
	case hooks:
		return check{"install", checkWarn, "hooks are installed, the MCP server is not", "claudemesh install"}
	}
	return check{"install", checkOK, "not installed: claudemesh launch takes part all the same, plain claude does not", ""}
}

// checkSession tells how a session is woken.
func checkSession(s bus.SessionInfo) check {
	k := check{Check: "session", Status: checkOK, Detail: fmt.Sprintf("%s on %s", s.Name, s.Mesh)}
	if s.Link != "open" {
		k.Status, k.Detail = checkWarn, k.Detail+", link "+s.Link
		if s.LinkError != "" {
			k.Detail += " (" + s.LinkError + ")"
		}
	}
	w := s.Wake
	if w == nil {
		return k
	}
	k.Detail += ", " + wakeText(*w)
	switch {
	case w.DeafSince != 0:
		k.Status = checkWarn
		k.Fix = "type something in it, or let it run: claudemesh inbox --unread"
		if !w.Hooks {
			k.Fix += "; its client runs none of our hooks: claudemesh install"
		}
	case w.Channel == bus.ChannelSilent && !w.Hooks:
		k.Status, k.Fix = checkWarn, "its client drops channel messages and runs none of our hooks: claudemesh install"
	}
	return k
}

// wakeText says in a few words how a session is woken, and since when it is deaf.
func wakeText(w bus.WakeInfo) string {
	text := "woken by " + w.Rung
	if w.Channel != "" {
		text += " (channel " + w.Channel + ")"
	}
	if w.DeafSince != 0 {
		text += fmt.Sprintf(", deaf since %s with %s", time.UnixMilli(w.DeafSince).Format(time.DateTime), plural(w.Unshown, "message"))
	}
	return text
}
