// Package mcp is the shim between the bus and an MCP client such as Claude Code: a stdio server without tools, whose job is to show a session the messages that
// arrive for it, and the skills of its mesh as prompts and resources. With a service's name it offers that service's tools instead.
//
// The invariants it keeps: a message is reported as pushed only after its line was written to the client, and never as surfaced, because writing proves nothing;
// the same message is written once in the life of the process, and once more where the daemon asks for a marked repeat; what peers wrote stays in its frame
// (see frame); the process outlives the daemon, because the client would not start it again.
//
// Only package cli calls it.
package mcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/jonboulle/clockwork"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"claudemesh/mcp/feed"
)

// settle is how long after "initialized" the first message is held back: the client drops, without a word, what arrives before it has registered the channel.
const settle = time.Second

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
	// Start starts a daemon, if none runs. It is asked at most once, and only for a client that nobody launched. Nil: none is started.
	Start func(context.Context) error
	// Mesh is the mesh that a client which nobody launched takes part in; empty: what the environment says, or the only one.
	Mesh string
	// Service makes it a proxy of that service's tools.
	Service string
	PID     int             // of the client; 0: this process's parent
	Clock   clockwork.Clock // nil: the real one
	Settle  time.Duration   // see settle; 0 means settle, negative none
}

func (cfg Config) withDefaults() Config {
	if cfg.Clock == nil {
		cfg.Clock = clockwork.NewRealClock()
	}
	if cfg.PID == 0 {
		cfg.PID = os.Getppid()
	}
	switch {
	case cfg.Settle == 0:
		cfg.Settle = settle
	case cfg.Settle < 0:
		cfg.Settle = 0
	}
	return cfg
}

// Serve speaks MCP until the client closes In or ctx ends; both are a normal end and return nil. It never returns because of the daemon: while none
// answers, or the session's token is not accepted, it keeps trying. An error means that the client can no longer be written to.
func Serve(ctx context.Context, cfg Config) error {
	cfg = cfg.withDefaults()
	log := slog.New(slog.NewTextHandler(cfg.Err, nil))
	conn := newStdio(cfg.In, cfg.Out, log)
	if cfg.Service != "" {
		return serveTools(ctx, cfg, conn, log)
	}
	_, launched, err := feed.SessionCredential(cfg.Getenv)
	if err != nil {
		log.Warn("no messages can be received yet", "reason", err)
	} else if !launched {
		log.Info("no claudemesh session is named: this client becomes one by itself")
	}

	s := newShim(cfg, conn, log)
	server := sdk.NewServer(&sdk.Implementation{Name: "claudemesh", Version: cfg.Version}, &sdk.ServerOptions{
		Instructions: instructions(cfg.Getenv, launched && err == nil),
		Capabilities: &sdk.ServerCapabilities{
			Experimental: map[string]any{"claude/channel": map[string]any{}},
			Tools:        &sdk.ToolCapabilities{},
			Prompts:      &sdk.PromptCapabilities{ListChanged: true},
			Resources:    &sdk.ResourceCapabilities{ListChanged: true},
		},
		InitializedHandler:        func(_ context.Context, req *sdk.InitializedRequest) { s.initialized(req.Session.InitializeParams()) },
		SupportedProtocolVersions: protocols,
	})
	server.AddReceivingMiddleware(s.skills.answer)
	return runServer(ctx, server, conn, s.feed, s.tell, s.skills.run, s.nudger.run)
}

// runServer runs a server with its tasks until one of them fails or the client leaves.
func runServer(ctx context.Context, server *sdk.Server, conn *stdio, tasks ...func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	for _, task := range tasks {
		running.Go(func() {
			if err := task(ctx); err != nil {
				// When the client cannot be written to there is nothing left to do.
				cancel(&taskError{err})
			}
		})
	}
	runErr := server.Run(ctx, conn)
	var failed *taskError
	errors.As(context.Cause(ctx), &failed)
	cancel(nil)
	running.Wait()
	switch {
	case failed != nil:
		return failed.error
	case runErr == nil, errors.Is(runErr, context.Canceled), errors.Is(runErr, io.EOF):
		return nil
	}
	return fmt.Errorf("serve MCP: %w", runErr)
}

// taskError tells a task's failure from the client's leaving.
type taskError struct{ error }
