package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/mcp"
	"claudemesh/wire"
)

func serviceVerb() verb {
	return verb{
		name: "service", aliases: []string{"mesh-mcp"}, short: "tools that members of the mesh offer to one another",
		subs: []verb{servicePublishVerb(), serviceListVerb(), serviceToolsVerb(), serviceCallVerb()},
	}
}

func servicePublishVerb() verb {
	return verb{
		name: "publish", args: "NAME -- COMMAND…", short: "offer the tools of an MCP server to the mesh",
		long: `Runs COMMAND, an MCP server that speaks on stdin and stdout, and lets every member of the mesh call its tools while this command
runs. The tools act on this machine with your rights: publish only what every member may do. Arguments and results pass through the broker in clear.`,
		examples: []string{"claudemesh service publish weather --description 'forecasts' -- weather-mcp --stdio"},
		fails:    []string{"3  the name cannot be one", "6  a service of that name is offered already", "8  COMMAND is no MCP server, or it ended", "127  COMMAND is not there"},
		flags: []urfave.Flag{
			&urfave.StringFlag{Name: "description", Usage: "one line for the others: `TEXT`"},
			&urfave.BoolFlag{Name: "persistent", Usage: "stay listed, as offline, after the end"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(2, -1, "claudemesh service publish NAME -- COMMAND…"); err != nil {
				return err
			}
			name, command := c.args()[0], c.args()[1:]
			if !wire.ValidServiceName(name) {
				return usagef("%q cannot name a service: 1 to 64 letters, digits, _ or -, the first a letter or digit", name)
			}
			path, err := exec.LookPath(command[0])
			if err != nil {
				return c.cannotRun(command[0], err)
			}
			return c.publishService(ctx, name, exec.Command(path, command[1:]...))
		},
	}
}

func (c *call) publishService(ctx context.Context, name string, cmd *exec.Cmd) error {
	slug, err := c.mesh(ctx, false)
	if err != nil {
		return err
	}
	n, err := c.connectDaemon(ctx) // starts the daemon if none runs
	if err != nil {
		return err
	}
	actor := n.actor
	err = n.whenOpen(ctx, c.clock, slug, func() error { return n.broker(ctx, slug, wire.TypeMCPCatalog, nil, nil) })
	n.Close()
	if err != nil {
		return err
	}
	dir, err := c.daemonDir()
	if err != nil {
		return err
	}
	cred, _, err := c.who(dir)
	if err != nil {
		return err
	}
	again := make(chan struct{}, 1)
	client, err := bus.Connect(ctx, bus.ClientConfig{
		Dir: dir, Token: cred.Token, Actor: actor, Name: "claudemesh service", Reconnect: true,
		OnReconnect: func() {
			select {
			case again <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		return err
	}
	defer client.Close()
	cmd.Stderr = c.stderr
	var printErr error
	err = mcp.Publish(ctx, mcp.Publication{
		Mesh: slug, Name: name, Description: c.cmd.String("description"), Persistent: c.cmd.Bool("persistent"), Command: cmd, Version: c.release,
		Client: client, Actor: actor, Reconnected: again, Log: slog.New(slog.NewTextHandler(c.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), Clock: c.clock,
		Ready: func(tools int) {
			printErr = c.ui.result(map[string]any{"ok": true, "mesh": slug, "name": name, "tools": tools}, func() error {
				return c.ui.print("%s is offered to %s with %s; it ends with this command", name, slug, plural(tools, "tool"))
			})
		},
	})
	return errors.Join(err, printErr)
}

func serviceListVerb() verb {
	return verb{
		name: "list", aliases: []string{"ls", "catalog"}, args: "", short: "list the services of the mesh",
		examples: []string{"claudemesh service list"},
		fails:    []string{"4  the broker cannot be reached", "5  no such mesh"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh service list"); err != nil {
				return err
			}
			var out wire.MCPListResult
			slug, err := c.askBroker(ctx, wire.TypeMCPList, nil, &out)
			if err != nil {
				return err
			}
			return c.ui.result(out.Servers, func() error {
				if len(out.Servers) == 0 {
					return c.ui.print("no services on %s", slug)
				}
				for _, s := range out.Servers {
					state := ""
					if !s.Online {
						state = "  (offline)"
					}
					var tools []string
					for _, t := range s.Tools {
						tools = append(tools, cleanLine(t.Name))
					}
					if err := c.ui.print("%s  by %s%s\n    %s\n    tools: %s", c.ui.paint(bold, cleanLine(s.Name)), cleanLine(s.HostedBy), state,
						cleanLine(s.Description), strings.Join(tools, ", ")); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func serviceToolsVerb() verb {
	return verb{
		name: "tools", args: "NAME [TOOL]", short: "show the tools of a service, and what they take",
		examples: []string{"claudemesh service tools weather"},
		fails:    []string{"4  the broker cannot be reached", "5  no such service or tool"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 2, "claudemesh service tools NAME [TOOL]"); err != nil {
				return err
			}
			req := wire.MCPSchema{ServerName: c.args()[0], ToolName: c.cmd.Args().Get(1)}
			var out wire.MCPSchemaResult
			if _, err := c.askBroker(ctx, wire.TypeMCPSchema, req, &out); err != nil {
				return err
			}
			if len(out.Tools) == 0 {
				return &failure{Code: "service_not_found", Message: "no such service or tool: " + strings.Join(c.args(), " "), Hint: "see: claudemesh service list", Exit: exitNotFound}
			}
			return c.ui.result(out.Tools, func() error {
				for _, t := range out.Tools {
					if err := c.ui.print("%s  %s\n    %s", c.ui.paint(bold, cleanLine(t.Name)), cleanLine(t.Description), cleanLine(string(t.InputSchema))); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

// serviceCallLimit is longer than the broker waits for the host.
const serviceCallLimit = 40 * time.Second

func serviceCallVerb() verb {
	return verb{
		name: "call", args: "NAME TOOL [JSON|-]", short: "call a tool of a service",
		long: `JSON is the object of the tool's arguments, {} when left out; - reads it from stdin. Prints the text of the result, with --json the
whole result.`,
		examples: []string{`claudemesh service call weather forecast '{"city":"Lisbon"}'`},
		fails:    []string{"3  the arguments are no JSON object", "4  the broker cannot be reached", "8  the service is not there, or the tool failed"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(2, 3, "claudemesh service call NAME TOOL [JSON]"); err != nil {
				return err
			}
			args, err := c.toolArguments(c.cmd.Args().Get(2))
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, serviceCallLimit)
			defer cancel()
			var out wire.MCPCallResult
			req := wire.MCPCall{ServerName: c.args()[0], ToolName: c.args()[1], Args: args}
			if _, err := c.askBroker(ctx, wire.TypeMCPCall, req, &out); err != nil {
				return err
			}
			if out.Error != "" {
				return &failure{Code: "service_failed", Message: cleanLine(out.Error), Hint: "see: claudemesh service list", Exit: exitInternal}
			}
			return c.printToolResult(out.Result)
		},
	}
}

func (c *call) toolArguments(text string) (json.RawMessage, error) {
	if text == "-" {
		data, err := io.ReadAll(io.LimitReader(c.stdin, wire.MaxFrameBytes))
		if err != nil {
			return nil, fmt.Errorf("read arguments: %w", err)
		}
		text = string(data)
	}
	if strings.TrimSpace(text) == "" {
		text = "{}"
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &object); err != nil || object == nil {
		return nil, usagef("the arguments must be one JSON object")
	}
	return json.RawMessage(text), nil
}

// printToolResult prints the texts of an MCP result. A result that says it is an error is a failure.
func (c *call) printToolResult(result json.RawMessage) error {
	var r struct {
		Content []struct {
			Type string `json:"type"`
			Text string `json:"text"`
		} `json:"content"`
		IsError bool `json:"isError"`
	}
	_ = json.Unmarshal(result, &r) // a host of another kind may return anything
	var texts []string
	for _, part := range r.Content {
		if part.Type == "text" {
			texts = append(texts, clean(part.Text))
		} else {
			texts = append(texts, "["+cleanLine(part.Type)+"]")
		}
	}
	if r.IsError {
		return &failure{Code: "tool_failed", Message: strings.Join(texts, "\n"), Data: map[string]any{"result": result}, Exit: exitInternal}
	}
	return c.ui.result(map[string]any{"ok": true, "result": result}, func() error {
		if len(texts) == 0 {
			return c.ui.print("%s", clean(string(result)))
		}
		return c.ui.print("%s", strings.Join(texts, "\n"))
	})
}
