package cli

import (
	"context"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/mcp"
	"claudemesh/wire"
)

func mcpVerb() verb {
	return verb{
		name: "mcp", args: "", short: "the MCP server that shows messages to Claude Code",
		long: `Speaks the Model Context Protocol on stdin and stdout: hands the session's messages to the client as channel notifications, and offers the
skills of its mesh as prompts and resources. It is started by the MCP client and stays until the client ends it, whatever the daemon does. A client that was not
launched as a session becomes one; for that the daemon is started if none runs. It has no tools: answers go out by claudemesh send.

With --service it offers the tools of a service of the mesh instead, and nothing else.`,
		examples: []string{"claude mcp add --scope user claudemesh -- claudemesh mcp", "claude mcp add weather -- claudemesh mcp --service weather"},
		fails:    []string{"3  --service names no service"},
		flags:    []urfave.Flag{&urfave.StringFlag{Name: "service", Usage: "offer the tools of the service `NAME`"}},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh mcp [--service NAME]"); err != nil {
				return err
			}
			service := c.cmd.String("service")
			if c.cmd.IsSet("service") && !wire.ValidServiceName(service) {
				return usagef("%q cannot name a service: 1 to 64 letters, digits, _ or -, the first a letter or digit", service)
			}
			dir, err := c.daemonDir()
			if err != nil {
				return err
			}
			return mcp.Serve(ctx, mcp.Config{
				In: c.stdin, Out: c.stdout, Err: c.stderr, Getenv: c.getenv, Dir: dir, Version: c.release, Clock: c.clock,
				Mesh: c.cmd.String("mesh"), Service: service,
				Start: func(ctx context.Context) error {
					_, err := c.spawn(ctx, dir, spawnOptions{limit: startLimit})
					return err
				},
			})
		},
	}
}
