// Package mcp is the shim between the bus and an MCP client such as Claude Code: a stdio server without tools, whose one job is to show a session the
// messages that arrive for it.
//
// The invariants it keeps: a message is reported as surfaced only after its line was written to the client; the same message is written once in the life
// of the process; and the process outlives the daemon, because the client would not start it again.
//
// Only package cli calls it.
package mcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/jonboulle/clockwork"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"claudemesh/bus"
	"claudemesh/mcp/feed"
)

// settle is how long after "initialized" the first message is held back: the client drops, without a word, what arrives before it has registered the channel.
const settle = time.Second

// pendingLimit is how many missed messages are asked for at once.
const pendingLimit = 100

// protocols are the revisions agreed to. Not 2026-07-28: Claude Code shows no channel messages of a server that speaks it.
var protocols = []string{"2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"}

// Config is what Serve needs. In, Out, Err, Getenv and Dir are required.
type Config struct {
	In      io.Reader // JSON-RPC from the client, one message a line
	Out     io.Writer // JSON-RPC to the client
	Err     io.Writer // log lines for people
	Getenv  func(string) string
	Dir     string // the daemon directory
	Version string
	Clock   clockwork.Clock // nil: the real one
	Settle  time.Duration   // see settle; 0 means settle, negative none
}

// Serve speaks MCP until the client closes In or ctx ends; both are a normal end and return nil. It never returns because of the daemon: while none
// answers, or the session's token is not accepted, it keeps trying. An error means that the client can no longer be written to.
func Serve(ctx context.Context, cfg Config) error {
	if cfg.Clock == nil {
		cfg.Clock = clockwork.NewRealClock()
	}
	switch {
	case cfg.Settle == 0:
		cfg.Settle = settle
	case cfg.Settle < 0:
		cfg.Settle = 0
	}
	log := slog.New(slog.NewTextHandler(cfg.Err, nil))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	_, isSession, err := feed.SessionCredential(cfg.Getenv)
	if err != nil {
		log.Warn("no messages can be received yet", "reason", err)
	} else if !isSession {
		log.Warn("this is not a claudemesh session: no messages will arrive; start one with: claudemesh session run --name NAME -- COMMAND")
	}

	conn := newStdio(cfg.In, cfg.Out, log)
	initialized := make(chan struct{})
	var once sync.Once
	server := sdk.NewServer(&sdk.Implementation{Name: "claudemesh", Version: cfg.Version}, &sdk.ServerOptions{
		Instructions: instructions(cfg.Getenv, isSession && err == nil),
		Capabilities: &sdk.ServerCapabilities{
			Experimental: map[string]any{"claude/channel": map[string]any{}},
			Tools:        &sdk.ToolCapabilities{},
		},
		InitializedHandler:        func(context.Context, *sdk.InitializedRequest) { once.Do(func() { close(initialized) }) },
		SupportedProtocolVersions: protocols,
	})

	var tasks sync.WaitGroup
	var feedErr error
	tasks.Go(func() {
		// When the client cannot be written to there is nothing left to do.
		defer cancel()
		feedErr = (&shim{Config: cfg, conn: conn, log: log}).feed(ctx, initialized)
	})
	runErr := server.Run(ctx, conn)
	cancel()
	tasks.Wait()
	switch {
	case feedErr != nil:
		return feedErr
	case runErr == nil, errors.Is(runErr, context.Canceled), errors.Is(runErr, io.EOF):
		return nil
	}
	return fmt.Errorf("serve MCP: %w", runErr)
}

// shim carries messages from the bus to the client.
type shim struct {
	Config
	conn *stdio
	log  *slog.Logger
	hush bool // of the feed: the member wants to be shown nothing unasked
}

func (s *shim) feed(ctx context.Context, initialized <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return nil
	case <-initialized:
	}
	select {
	case <-ctx.Done():
		return nil
	case <-s.Clock.After(s.Settle):
	}
	return feed.Run(ctx, feed.Config{
		Connect: s.connect, Subjects: s.subjects, Missed: s.missed, Deliver: s.deliver, Report: s.report,
		Connected: func() { s.log.Info("connected to the daemon") },
		Clock:     s.Clock, Log: s.log,
	})
}

// errNotSession keeps the shim looking: the environment of a process does not change, but a token file may come.
var errNotSession = errors.New("this process belongs to no claudemesh session")

func (s *shim) credential() (feed.Credential, error) {
	c, ok, err := feed.SessionCredential(s.Getenv)
	if err != nil {
		return c, err
	}
	if !ok {
		return c, errNotSession
	}
	return c, nil
}

func (s *shim) connect(ctx context.Context) (*bus.Client, error) {
	c, err := s.credential()
	if err != nil {
		return nil, err
	}
	return bus.Connect(ctx, bus.ClientConfig{Dir: s.Dir, Token: c.Token, Actor: c.Actor, Name: "claudemesh mcp"})
}

// me asks the daemon who this session is, and whether its member wants messages to be shown at all (message mode inbox or off: only who asks is told).
func (s *shim) me(ctx context.Context, client *bus.Client) (me bus.SessionInfo, hush bool, err error) {
	if err := client.Do(ctx, bus.DaemonSubject(s.Getenv(feed.EnvSession), bus.OpSessionMe), struct{}{}, &me); err != nil {
		return me, false, fmt.Errorf("ask who this session is: %w", err)
	}
	return me, me.MessageMode != "" && me.MessageMode != "push", nil
}

// subjects are what this session hears; its mesh and groups decide.
func (s *shim) subjects(ctx context.Context, client *bus.Client) ([]string, error) {
	me, hush, err := s.me(ctx, client)
	if s.hush = hush; err != nil || hush {
		return nil, err
	}
	return feed.SessionSubjects(me), nil
}

// errMode ends a connection, so that the next one listens as the member wants it now.
var errMode = errors.New("the message mode has changed")

func (s *shim) missed(ctx context.Context, client *bus.Client) ([]bus.InboxItem, error) {
	switch _, hush, err := s.me(ctx, client); {
	case err != nil:
		return nil, err
	case hush != s.hush:
		return nil, errMode
	case hush:
		return nil, nil
	}
	var list bus.InboxList
	subject := bus.DaemonSubject(s.Getenv(feed.EnvSession), bus.OpInboxPending)
	if err := client.Do(ctx, subject, bus.InboxQuery{Limit: pendingLimit}, &list); err != nil {
		return nil, fmt.Errorf("ask for missed messages: %w", err)
	}
	return list.Items, nil
}

// deliver writes one message to the client.
func (s *shim) deliver(ctx context.Context, item bus.InboxItem) error {
	params, err := channelMessage(item)
	if err != nil {
		return err
	}
	return s.conn.Notify(ctx, methodChannel, params)
}

func (s *shim) report(ctx context.Context, client *bus.Client, ids []string) error {
	subject := bus.DaemonSubject(s.Getenv(feed.EnvSession), bus.OpInboxSurfaced)
	return client.Do(ctx, subject, bus.MessageIDs{IDs: ids, Via: bus.ViaChannel}, nil)
}
