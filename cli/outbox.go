package cli

import (
	"context"
	"fmt"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
)

// outboxStates are the flags of outbox list and the daemon's words for them.
var outboxStates = [][2]string{{"pending", "pending"}, {"inflight", "inflight"}, {"done", "done"}, {"failed", "dead"}, {"aborted", "aborted"}}

func outboxVerb() verb {
	list := outboxListVerb()
	return list.alsoAlone(verb{name: "outbox", short: "messages accepted here, and how far they have come", subs: []verb{list, outboxRequeueVerb()}})
}

func outboxListVerb() verb {
	flags := []urfave.Flag{&urfave.IntFlag{Name: "limit", Value: 50, Usage: "at most `N` messages, the newest (default 50, at most 500)"}}
	for _, s := range outboxStates {
		flags = append(flags, &urfave.BoolFlag{Name: s[0], Usage: "only those that are " + s[0]})
	}
	return verb{
		name: "list", aliases: []string{"ls"}, args: "", short: "list accepted messages, newest first",
		long: `pending waits for an attempt, inflight was handed to the broker without an answer yet, done was taken by the broker, failed was
refused for good (last_error says why), aborted was replaced by a requeue. --json prints {"items":[…]}.`,
		examples: []string{"claudemesh daemon outbox list --pending --json"},
		fails:    []string{"3  a bad --limit, or two states at once", "7  a session may not read the user's outbox"},
		flags:    flags,
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh daemon outbox list [--pending]"); err != nil {
				return err
			}
			q := bus.OutboxQuery{Limit: c.cmd.Int("limit"), Mesh: c.cmd.String("mesh")}
			if q.Limit < 1 || q.Limit > 500 {
				return usagef("--limit is a number from 1 to 500")
			}
			for _, s := range outboxStates {
				if !c.cmd.Bool(s[0]) {
					continue
				}
				if q.Status != "" {
					return usagef("--pending, --inflight, --done, --failed and --aborted exclude each other")
				}
				q.Status = s[1]
			}
			n, err := c.connect(ctx)
			if err != nil {
				return err
			}
			defer n.Close()
			list := bus.OutboxList{}
			if err := n.daemon(ctx, bus.OpOutboxList, q, &list); err != nil {
				return err
			}
			if list.Items == nil {
				list.Items = []bus.OutboxItem{}
			}
			return c.ui.result(list, func() error {
				if len(list.Items) == 0 {
					return c.ui.print("(empty)")
				}
				for _, it := range list.Items {
					if err := c.ui.print("%s", outboxLine(it)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func outboxLine(it bus.OutboxItem) string {
	parts := []string{it.ID, it.Mesh, "to " + cleanLine(it.Target), it.Status, it.State, it.EnqueuedAt, plural(it.Attempts, "attempt"), fmt.Sprintf("%d bytes", it.PayloadBytes)}
	if it.LastError != "" {
		parts = append(parts, "last error: "+cleanLine(it.LastError))
	}
	if it.SupersededBy != "" {
		parts = append(parts, "replaced by "+it.SupersededBy)
	}
	return strings.Join(parts, "  ")
}

func outboxRequeueVerb() verb {
	return verb{
		name: "requeue", args: "ID", short: "try an accepted message again under a new id",
		long: `ID is a row id, a client message id or a broker message id. The old row is closed, a new one for the same recipient takes its place. A
message that was sent already cannot be requeued: the peer would get it twice.`,
		examples: []string{"claudemesh daemon outbox requeue 5d0c1f1e-… --json"},
		fails:    []string{"3  the id is used on several meshes", "5  no such message", "6  it was sent already, or requeued before"},
		flags:    []urfave.Flag{&urfave.StringFlag{Name: "new-client-id", Usage: "the new client message `ID` (default: a new one)"}},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh daemon outbox requeue ID"); err != nil {
				return err
			}
			n, err := c.connect(ctx)
			if err != nil {
				return err
			}
			defer n.Close()
			var out bus.Requeued
			if err := n.daemon(ctx, bus.OpOutboxRequeue, bus.Requeue{ID: c.args()[0], NewClientMessageID: c.cmd.String("new-client-id")}, &out); err != nil {
				return err
			}
			return c.ui.result(out, func() error {
				return c.ui.print("requeued as %s (the old row %s is closed)", out.NewClientMessageID, out.AbortedRowID)
			})
		},
	}
}
