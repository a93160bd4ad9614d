package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"
	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/mcp/feed"
)

// The self-test: one real message from here to here, over the broker, stage by stage.

func testVerb() verb {
	return verb{
		name: "test", args: "", short: "send a message to yourself over each mesh, and see how far it comes",
		long: `Makes a session named claudemesh-test for the moment, sends it a message through the broker as any peer would, reads it, and waits for
the receipts. It tests every joined mesh, or the one named. What it sent is marked as read.

  broker     the broker answers (list of peers)
  session    a session is registered, and the broker has let it in
  sent       the broker has the message
  delivered  it came back to this machine, was opened and stored
  read       the session read it, and it is the same text
  surfaced   the sender has the recipient's signed word for it

--json prints {"ok", "meshes": [{"mesh", "ok", "stages": [{"stage", "status", "ms", "detail"}]}]}; a status is ok, fail or skip.`,
		examples: []string{"claudemesh test", "claudemesh test --mesh team --json"},
		fails:    []string{"1  a stage fails", "5  no mesh is joined, or no such mesh", "6  the daemon is not to be used"},
		flags:    []urfave.Flag{&urfave.StringFlag{Name: "timeout", Value: "10s", Usage: "how long one stage may take: `DURATION` (default 10s)"}},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh test"); err != nil {
				return err
			}
			limit, err := parseDuration(c.cmd.String("timeout"))
			if err != nil || limit <= 0 {
				return usagef("--timeout is a duration such as 10s or 2m")
			}
			slugs, err := c.meshes(ctx)
			if err != nil {
				return err
			}
			return c.testMeshes(ctx, slugs, limit)
		},
	}
}

// How a stage of the self-test went.
const (
	stageOK   = "ok"
	stageFail = "fail"
	stageSkip = "skip" // an earlier one failed
)

type stageJSON struct {
	Stage  string `json:"stage"`
	Status string `json:"status"`
	MS     int64  `json:"ms"`
	Detail string `json:"detail,omitempty"`
}

type meshTest struct {
	Mesh   string      `json:"mesh"`
	OK     bool        `json:"ok"`
	Stages []stageJSON `json:"stages"`
}

func (c *call) testMeshes(ctx context.Context, slugs []string, limit time.Duration) error {
	n, err := c.connectDaemon(ctx)
	if err != nil {
		return err
	}
	defer n.Close()
	out := struct {
		OK     bool       `json:"ok"`
		Meshes []meshTest `json:"meshes"`
	}{OK: true, Meshes: []meshTest{}}
	for _, slug := range slugs {
		t := &selfTest{call: c, n: n, limit: limit, result: meshTest{Mesh: slug, OK: true}}
		t.run(ctx)
		if ctx.Err() != nil {
			return errCancelled
		}
		out.OK = out.OK && t.result.OK
		out.Meshes = append(out.Meshes, t.result)
		if !c.ui.json {
			if err := c.printTest(t.result); err != nil {
				return err
			}
		}
	}
	if c.ui.json {
		if err := c.ui.printJSON(out, false); err != nil {
			return err
		}
	}
	if !out.OK {
		return &exitError{exitFailed}
	}
	return nil
}

func (c *call) printTest(t meshTest) error {
	if err := c.ui.print("%s", c.ui.paint(bold, t.Mesh)); err != nil {
		return err
	}
	marks := map[string]string{stageOK: c.ui.paint(green, "✓"), stageFail: c.ui.paint(red, "✗"), stageSkip: c.ui.paint(dim, "-")}
	for _, s := range t.Stages {
		line := fmt.Sprintf("  %s %-9s", marks[s.Status], s.Stage)
		if s.Status != stageSkip {
			line += fmt.Sprintf("  %d ms", s.MS)
		}
		if s.Detail != "" {
			line += "  " + cleanLine(s.Detail)
		}
		if err := c.ui.print("%s", line); err != nil {
			return err
		}
	}
	return nil
}

// selfTest is the test of one mesh.
type selfTest struct {
	*call
	n      *conn
	limit  time.Duration
	result meshTest

	me    bus.SessionInfo // the session that gets the message
	id    string          // of the message
	text  string
	known progress
	watch *waiter
}

func (t *selfTest) run(ctx context.Context) {
	defer func() {
		if t.me.ID != "" {
			t.endSession(t.me.ID)
		}
	}()
	t.stage(ctx, "broker", t.broker)
	t.stage(ctx, "session", t.session)
	t.stage(ctx, bus.StateSent, t.send)
	t.stage(ctx, bus.StateDelivered, func(ctx context.Context) (string, error) { return "", t.await(ctx, bus.StateDelivered) })
	t.stage(ctx, "read", t.read)
	t.stage(ctx, bus.StateSurfaced, func(ctx context.Context) (string, error) { return "", t.await(ctx, bus.StateSurfaced) })
}

// stage runs one stage, unless one before it failed.
func (t *selfTest) stage(ctx context.Context, name string, run func(context.Context) (detail string, err error)) {
	s := stageJSON{Stage: name, Status: stageSkip}
	if t.result.OK {
		ctx, cancel := context.WithTimeout(ctx, t.limit)
		defer cancel()
		begin := t.clock.Now()
		detail, err := run(ctx)
		s.Status, s.Detail, s.MS = stageOK, detail, t.clock.Since(begin).Milliseconds()
		switch {
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, errWaitOver):
			s.Status, s.Detail = stageFail, fmt.Sprintf("not within %s", t.limit)
		case err != nil:
			s.Status, s.Detail = stageFail, explain(err).Message
		}
		t.result.OK = s.Status == stageOK
	}
	t.result.Stages = append(t.result.Stages, s)
}

func (t *selfTest) broker(ctx context.Context) (string, error) {
	rows, err := t.n.peers(ctx, t.clock, t.result.Mesh, false)
	return plural(len(rows), "peer"), err
}

func (t *selfTest) session(ctx context.Context) (string, error) {
	err := t.n.daemon(ctx, bus.OpSessionStart, bus.SessionStart{Mesh: t.result.Mesh, Name: "claudemesh-test", PID: os.Getpid(), MessageMode: "inbox"}, &t.me)
	for err == nil {
		var list bus.SessionList
		if err = t.n.daemon(ctx, bus.OpSessionList, nil, &list); err != nil {
			break
		}
		for _, s := range list.Sessions {
			if s.ID == t.me.ID && s.Link == "open" {
				return short(s.Pubkey), nil
			}
		}
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-t.clock.After(pollEvery):
		}
	}
	return "", err
}

func (t *selfTest) send(ctx context.Context) (string, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return "", fmt.Errorf("make message id: %w", err)
	}
	t.id, t.text = id.String(), "this is claudemesh test "+id.String()
	if t.watch, err = newWaiter(t.n, t.result.Mesh, t.id); err != nil {
		return "", err
	}
	req := bus.SendRequest{To: t.me.Pubkey, Body: t.text, Priority: "now", ClientMessageID: t.id}
	if err := t.n.Do(ctx, bus.SendSubject(t.result.Mesh, t.n.actor, bus.SendDM), req, nil); err != nil {
		return "", err
	}
	err = t.await(ctx, bus.StateSent)
	return t.known.BrokerMessageID, err
}

func (t *selfTest) await(ctx context.Context, state string) error {
	err := t.watch.wait(ctx, t.clock, state, t.clock.Now().Add(t.limit), &t.known)
	if err == nil && t.known.State == bus.StateFailed {
		return &sendFailedError{sendJSON{Reason: t.known.Reason}}
	}
	if errors.Is(err, errCancelled) && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// read reads as the session: with its token, and its rights alone.
func (t *selfTest) read(ctx context.Context) (string, error) {
	token, err := feed.ReadToken(t.me.TokenFile)
	if err != nil {
		return "", err
	}
	client, err := bus.Connect(ctx, bus.ClientConfig{Dir: t.n.dir, Token: token, Actor: t.me.ID, Name: "claudemesh test"})
	if err != nil {
		return "", err
	}
	n := &conn{caller: client, live: client, dir: t.n.dir, actor: t.me.ID, session: true}
	defer n.Close()
	items, err := n.inbox(ctx, bus.InboxQuery{Unread: true})
	if err != nil {
		return "", err
	}
	for _, it := range items {
		switch {
		case it.ClientMessageID != t.id:
		case it.State == bus.StateUndecryptable:
			return "", fmt.Errorf("it cannot be opened: %s", it.Reason)
		case it.Body != t.text:
			return "", errors.New("it is not the text that was sent")
		default:
			return "", errors.Join(n.seen(ctx, []string{it.ID}, bus.ViaInbox), t.n.seen(ctx, []string{it.ID}, ""))
		}
	}
	return "", errors.New("it is not in the session's inbox")
}
