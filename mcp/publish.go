package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"sync"
	"time"

	"github.com/jonboulle/clockwork"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/nats-io/nats.go"

	"claudemesh/bus"
)

// Bounds of a published service.
const (
	renewEvery   = bus.ServiceLease / 3
	callsAtOnce  = 16               // further calls wait for one of these
	callsQueued  = 64               // further ones are answered with an error by the broker's time limit
	childTimeout = 25 * time.Second // for one call, under the 30 s that the caller waits
	startTimeout = 30 * time.Second // for the server's initialize and tools/list
)

// Publication is an MCP server of this machine whose tools a mesh may call. All fields but Clock are required.
type Publication struct {
	Mesh, Name, Description string
	// Persistent: the mesh lists the service as offline when this process has ended, instead of forgetting it.
	Persistent bool
	// Command is the server: it speaks MCP on its stdin and stdout. Publish starts and ends it.
	Command *exec.Cmd
	Version string
	// Client is a connection that reconnects by itself; Actor is whose. Reconnected is told after each reconnect.
	Client      *bus.Client
	Actor       string
	Reconnected <-chan struct{}
	Log         *slog.Logger
	Clock       clockwork.Clock
	Ready       func(tools int) // called once, when the mesh has the service
}

// ErrServerEnded means that the published server ended by itself.
var ErrServerEnded = errors.New("the MCP server ended")

// Publish offers the service until ctx ends (nil) or the server does (ErrServerEnded). Errors also are those of starting the server, and the refusals of
// the offer (*bus.APIError). While the daemon is away the offer waits.
func Publish(ctx context.Context, p Publication) error {
	if p.Clock == nil {
		p.Clock = clockwork.NewRealClock()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start, started := context.WithTimeout(ctx, startTimeout)
	defer started()
	client := sdk.NewClient(&sdk.Implementation{Name: "claudemesh", Version: p.Version}, nil)
	server, err := client.Connect(start, &sdk.CommandTransport{Command: p.Command, TerminateDuration: time.Second}, nil)
	if err != nil {
		return fmt.Errorf("start MCP server: %w", err)
	}
	ended := make(chan struct{})
	go func() { // ends with the session, which is closed below
		defer close(ended)
		_ = server.Wait()
	}()
	defer func() { _ = server.Close(); <-ended }()

	tools, count, err := listTools(start, server)
	if err != nil {
		return err
	}
	calls := make(chan bus.ServiceCall, callsQueued)
	deliver := bus.InboxPrefix(p.Actor) + ".service." + p.Name
	sub, err := p.Client.Subscribe(deliver, func(m *nats.Msg) {
		var call bus.ServiceCall
		if json.Unmarshal(m.Data, &call) != nil {
			return
		}
		select {
		case calls <- call:
		default:
			p.Log.Warn("call not taken: too many wait", "service", p.Name, "tool", call.ToolName)
		}
	})
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }()

	offer := bus.ServiceOffer{ServerName: p.Name, Description: p.Description, Tools: tools, Persistent: p.Persistent, Deliver: deliver}
	if err := p.call(ctx, "mcp_register", offer); err != nil {
		return err
	}
	p.Ready(count)
	var workers sync.WaitGroup
	defer workers.Wait()
	defer cancel()
	for range callsAtOnce {
		workers.Go(func() { p.serve(ctx, server, calls) })
	}
	renew := p.Clock.NewTicker(renewEvery)
	defer renew.Stop()
	for {
		select {
		case <-ctx.Done():
			bye, done := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer done()
			if !p.Persistent {
				if err := p.call(bye, "mcp_unregister", offer); err != nil {
					p.Log.Debug("service not withdrawn", "error", err)
				}
			}
			return nil
		case <-ended:
			return ErrServerEnded
		case <-renew.Chan():
		case <-p.Reconnected:
		}
		if err := p.call(ctx, "mcp_register", offer); err != nil && ctx.Err() == nil {
			p.Log.Warn("offer not repeated, trying again", "service", p.Name, "error", err)
		}
	}
}

func (p *Publication) call(ctx context.Context, op string, in any) error {
	return p.Client.Do(ctx, bus.CallSubject(p.Mesh, p.Actor, op), in, nil)
}

// listTools reads all tools of the server as the protocol lists them.
func listTools(ctx context.Context, server *sdk.ClientSession) (json.RawMessage, int, error) {
	type tool struct {
		Name        string `json:"name"`
		Description string `json:"description"`
		InputSchema any    `json:"inputSchema,omitempty"`
	}
	all := []tool{}
	for t, err := range server.Tools(ctx, nil) {
		if err != nil {
			return nil, 0, fmt.Errorf("list tools: %w", err)
		}
		all = append(all, tool{t.Name, t.Description, t.InputSchema})
	}
	data, err := json.Marshal(all)
	if err != nil {
		return nil, 0, fmt.Errorf("list tools: %w", err)
	}
	return data, len(all), nil
}

// serve answers calls, one after the other.
func (p *Publication) serve(ctx context.Context, server *sdk.ClientSession, calls <-chan bus.ServiceCall) {
	for {
		select {
		case <-ctx.Done():
			return
		case call := <-calls:
			answer := run(ctx, server, call)
			if err := p.call(ctx, "mcp_call_response", answer); err != nil && ctx.Err() == nil {
				p.Log.Warn("call not answered", "service", p.Name, "tool", call.ToolName, "error", err)
			}
		}
	}
}

// run carries out one call. What the tool itself reports as an error is a result like any other.
func run(ctx context.Context, server *sdk.ClientSession, call bus.ServiceCall) bus.ServiceAnswer {
	ctx, cancel := context.WithTimeout(ctx, childTimeout)
	defer cancel()
	answer := bus.ServiceAnswer{CallID: call.CallID}
	result, err := server.CallTool(ctx, &sdk.CallToolParams{Name: call.ToolName, Arguments: call.Args})
	if err == nil {
		answer.Result, err = json.Marshal(result)
	}
	if err != nil {
		answer.Result, answer.Error = nil, err.Error()
		answer.Error = answer.Error[:min(len(answer.Error), 1024)]
	}
	return answer
}
