package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/nats-io/nats.go"
	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/mcp/feed"
)

func topicTailVerb() verb {
	return verb{
		name: "tail", args: "TOPIC", short: "follow a topic",
		long: `Prints the newest posts, then every new one as it comes, until it is interrupted; over restarts of the daemon and the broker. --json prints
one object a line: the broker's fields and the text as message.`,
		examples: []string{"claudemesh topic tail deploys --limit 5", "claudemesh topic tail deploys --forward-only --json"},
		fails:    []string{"5  no such topic", "7  you do not belong to it"},
		flags: []urfave.Flag{
			&urfave.IntFlag{Name: "limit", Value: 20, Usage: "begin with the newest `N` posts (default 20)"},
			&urfave.BoolFlag{Name: "forward-only", Usage: "begin with what comes now"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh topic tail TOPIC"); err != nil {
				return err
			}
			name, err := c.topicArg()
			if err != nil {
				return err
			}
			limit := c.cmd.Int("limit")
			if limit < 0 || limit > maxHistory {
				return usagef("--limit is a number from 0 to %d", maxHistory)
			}
			slug, err := c.mesh(ctx, true)
			if err != nil {
				return err
			}
			t := &tailing{call: c, slug: slug, topic: name, limit: limit, quiet: c.cmd.Bool("forward-only") || limit == 0, printer: postPrinter{call: c, texts: map[string]string{}}}
			if t.shown, err = simplelru.NewLRU[string, struct{}](rememberedTail, nil); err != nil {
				return fmt.Errorf("make memory of printed posts: %w", err)
			}
			return t.run(ctx)
		},
	}
}

const (
	rememberedTail = 16_384 // ids of posts that were printed
	tailSweep      = 30 * time.Second
	tailRetry      = 500 * time.Millisecond
)

// tailing is one tail. The bus says when to look, the topic's history what there is: a post is printed once, in the history's order, whoever made it, and
// none is missed that came while nobody listened.
type tailing struct {
	*call
	slug, topic string
	limit       int
	quiet       bool // print nothing of what is there already
	begun       bool
	shown       *simplelru.LRU[string, struct{}]
	printer     postPrinter
}

func (t *tailing) run(ctx context.Context) error {
	connect := t.connectDaemon
	for {
		n, err := connect(ctx)
		if err == nil {
			err = t.follow(ctx, n)
			n.Close()
		}
		gone := errors.Is(err, bus.ErrInterrupted) || errors.Is(err, bus.ErrNoDaemon)
		switch {
		case ctx.Err() != nil:
			return nil
		case !gone || !t.begun:
			return err
		}
		connect = t.running // one that was stopped on purpose is not started again
		select {
		case <-ctx.Done():
		case <-t.clock.After(tailRetry):
		}
	}
}

// follow prints over one connection until it is lost.
func (t *tailing) follow(ctx context.Context, n *conn) error {
	lost := n.Conn().StatusChanged(nats.CLOSED, nats.DISCONNECTED, nats.RECONNECTING)
	poke := make(chan struct{}, 1)
	var id string
	err := n.whenOpen(ctx, t.clock, t.slug, func() (err error) {
		id, err = t.print(ctx, n)
		return err
	})
	if err != nil && !t.later(err) {
		return err
	}
	subjects := []string{bus.AnyMsgSubject(t.slug)}
	if id != "" {
		subjects = []string{bus.TopicMsgSubject(t.slug, id)}
	}
	if n.session {
		var me bus.SessionInfo
		if err := n.daemon(ctx, bus.OpSessionMe, nil, &me); err != nil {
			return fmt.Errorf("ask who this session is: %w", err)
		}
		subjects = feed.SessionSubjects(me)
	}
	for _, s := range subjects {
		_, err := n.Subscribe(s, func(*nats.Msg) {
			select {
			case poke <- struct{}{}:
			default:
			}
		})
		if err != nil {
			return err
		}
	}
	poke <- struct{}{} // for what came before the subscription stood
	sweep := t.clock.NewTicker(tailSweep)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-lost:
			return fmt.Errorf("follow topic: %w", bus.ErrInterrupted)
		case <-poke:
		case <-sweep.Chan():
		}
		if _, err := t.print(ctx, n); err != nil && !t.later(err) {
			return err
		}
	}
}

// later reports whether an error will pass: the broker is away, and the tail has begun.
func (t *tailing) later(err error) bool {
	return t.begun && (errors.Is(err, &bus.APIError{Reason: "mesh_down"}) || errors.Is(err, &bus.APIError{Reason: "broker_timeout"}))
}

// print prints what is new, and returns the topic's id.
func (t *tailing) print(ctx context.Context, n *conn) (string, error) {
	limit := maxHistory
	if !t.begun {
		limit = max(t.limit, 1)
	}
	posts, id, err := n.posts(ctx, t.slug, t.topic, "", limit, t.shown.Contains)
	if err != nil {
		return "", err
	}
	quiet := t.quiet && !t.begun
	t.begun = true
	for _, p := range slices.Backward(posts) {
		t.shown.Add(p.ID, struct{}{})
		switch {
		case quiet:
		case t.ui.json:
			err = t.ui.printJSON(p, true)
		default:
			err = t.printer.print(p)
		}
		if err != nil {
			return "", err
		}
	}
	return id, nil
}
