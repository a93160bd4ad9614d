package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/mcp/feed"
)

func inboxVerb() verb {
	return verb{
		name: "inbox", args: "", short: "read received messages",
		long: `Lists received messages, oldest first, and marks them as seen once they are printed. A session sees its own messages, its member's
and those for its groups and everybody; the user sees all. --json prints an array; with --follow one object a line.

A message that could not be opened has the state undecryptable and no text.`,
		examples: []string{"claudemesh inbox --unread --json", "claudemesh inbox --follow"},
		fails:    []string{"3  a bad --limit", "5  no such mesh"},
		flags: []urfave.Flag{
			&urfave.BoolFlag{Name: "unread", Usage: "only messages not seen yet"},
			&urfave.BoolFlag{Name: "follow", Usage: "stay and print new messages as they arrive; ends with an interrupt"},
			&urfave.IntFlag{Name: "limit", Value: 100, Usage: "at most `N` messages, the newest (default 100, at most 1000)"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh inbox [--unread] [--follow]"); err != nil {
				return err
			}
			limit := c.cmd.Int("limit")
			if limit < 1 || limit > 1000 {
				return usagef("--limit is a number from 1 to 1000")
			}
			q := bus.InboxQuery{Unread: c.cmd.Bool("unread"), Limit: limit}
			// Without a name it is about all meshes, or all that the session may see: that is for the daemon to know.
			if c.cmd.String("mesh") != "" {
				slug, err := c.mesh(ctx, false)
				if err != nil {
					return err
				}
				q.Mesh = slug
			} else if _, err := c.meshes(ctx); err != nil {
				return err
			}
			if c.cmd.Bool("follow") {
				return c.follow(ctx, q)
			}
			return c.readInbox(ctx, q)
		},
	}
}

func (c *call) readInbox(ctx context.Context, q bus.InboxQuery) error {
	n, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer n.Close()
	items, err := n.inbox(ctx, q)
	if err != nil {
		return err
	}
	err = c.ui.result(items, func() error {
		if len(items) == 0 {
			what := "no messages"
			if q.Unread {
				what = "no unread messages"
			}
			return c.ui.print("%s", what)
		}
		for _, it := range items {
			if err := c.printItem(it); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	// Only now: what could not be printed was not seen.
	return n.seen(ctx, unseen(items), bus.ViaInbox)
}

// inbox lists messages, never nil.
func (n *conn) inbox(ctx context.Context, q bus.InboxQuery) ([]bus.InboxItem, error) {
	list := bus.InboxList{}
	if err := n.daemon(ctx, bus.OpInboxList, q, &list); err != nil {
		return nil, err
	}
	if list.Items == nil {
		list.Items = []bus.InboxItem{}
	}
	return list.Items, nil
}

func unseen(items []bus.InboxItem) []string {
	var ids []string
	for _, it := range items {
		if !it.Seen {
			ids = append(ids, it.ID)
		}
	}
	return ids
}

// seen marks messages. For a session it is one way of being handed over, of which the sender hears.
func (n *conn) seen(ctx context.Context, ids []string, via string) error {
	if len(ids) == 0 {
		return nil
	}
	req := bus.MessageIDs{IDs: ids}
	if n.session {
		req.Via = via
	}
	if err := n.daemon(ctx, bus.OpInboxSeen, req, nil); err != nil {
		return fmt.Errorf("mark messages as seen: %w", err)
	}
	return nil
}

// printItem prints one message for people.
func (c *call) printItem(it bus.InboxItem) error {
	head := c.ui.paint(bold, cleanLine(it.FromName))
	if it.To != "" {
		head += " → " + cleanLine(it.To)
	}
	if it.Topic != "" && it.To != "#"+it.Topic {
		head += " #" + cleanLine(it.Topic)
	}
	head += "  " + c.ui.paint(dim, cleanLine(it.Mesh)+"  "+it.ReceivedAt+"  "+it.ID)
	switch it.Priority {
	case "now":
		head = c.ui.paint(red, "[urgent]") + " " + head
	case "low":
		head = "[low] " + head
	}
	if !it.Seen {
		head = c.ui.paint(yellow, "new") + " " + head
	}
	switch it.Trust {
	case bus.TrustChanged:
		head += "  " + c.ui.paint(red, "this name was another member's key: claudemesh verify "+short(it.FromMemberKey))
	case bus.TrustNew:
		head += "  " + c.ui.paint(dim, "(first contact)")
	}
	body := clean(it.Body)
	if it.State == bus.StateUndecryptable {
		body = "(this message could not be opened; it has no readable text)"
	}
	if it.ReplyTo != "" {
		head += c.ui.paint(dim, "  re "+cleanLine(it.ReplyTo))
	}
	return c.ui.print("%s\n    %s", head, indent(body, "    "))
}

// follow prints what is there, then what comes, over restarts of the daemon, until it is interrupted.
func (c *call) follow(ctx context.Context, q bus.InboxQuery) error {
	n, err := c.connectDaemon(ctx)
	if err != nil {
		return err
	}
	defer n.Close()
	show := c.printItem
	if c.ui.json {
		show = func(it bus.InboxItem) error { return c.ui.printJSON(it, true) }
	}
	first, err := n.inbox(ctx, q)
	if err != nil {
		return err
	}
	// What was seen before belongs to the listing only; the rest comes by the feed, once.
	for _, it := range first {
		if it.Seen {
			if err := show(it); err != nil {
				return err
			}
		}
	}
	dir, err := c.daemonDir()
	if err != nil {
		return err
	}
	f := follower{call: c, query: q, dir: dir, first: n}
	err = feed.Run(ctx, feed.Config{
		Connect: f.connect, Subjects: f.subjects, Missed: f.missed, Report: f.report, Clock: c.clock,
		Deliver: func(_ context.Context, it bus.InboxItem) error { return show(it) },
		Log:     slog.New(slog.NewTextHandler(c.stderr, nil)),
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// follower feeds inbox --follow.
type follower struct {
	*call
	query bus.InboxQuery
	dir   string
	first *conn // the connection that is open already
	n     *conn // the current one
}

func (f *follower) connect(ctx context.Context) (*bus.Client, error) {
	if f.first != nil {
		f.n, f.first = f.first, nil
		return f.n.live, nil
	}
	if !bus.Held(f.dir) {
		return nil, bus.ErrNoDaemon
	}
	n, err := f.reach(ctx, f.dir, startLimit)
	if err != nil {
		return nil, err
	}
	f.n = n
	return n.live, nil
}

func (f *follower) subjects(ctx context.Context, _ *bus.Client) ([]string, error) {
	if f.n.session {
		var me bus.SessionInfo
		if err := f.n.daemon(ctx, bus.OpSessionMe, nil, &me); err != nil {
			return nil, fmt.Errorf("ask who this session is: %w", err)
		}
		return feed.SessionSubjects(me), nil
	}
	slug := f.query.Mesh
	if slug == "" {
		slug = "*"
	}
	return []string{bus.AnyMsgSubject(slug)}, nil
}

func (f *follower) missed(ctx context.Context, _ *bus.Client) ([]bus.InboxItem, error) {
	// All of them: a limit is for what was seen before.
	q := bus.InboxQuery{Mesh: f.query.Mesh, Unread: true, Limit: 1000}
	return f.n.inbox(ctx, q)
}

func (f *follower) report(ctx context.Context, _ *bus.Client, ids []string) error {
	return f.n.seen(ctx, ids, bus.ViaFollow)
}
