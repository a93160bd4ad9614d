package cli

import (
	"context"

	"claudemesh/mcp"
)

func mcpVerb() verb {
	return verb{
		name: "mcp", args: "", short: "the MCP server that shows messages to Claude Code",
		long: `Speaks the Model Context Protocol on stdin and stdout and hands the session's messages to the client as channel notifications. It is
started by the MCP client, inside of a session, and stays until the client ends it, whatever the daemon does. It has no tools: answers go out by claudemesh send.`,
		examples: []string{"claude mcp add --scope user claudemesh -- claudemesh mcp"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh mcp"); err != nil {
				return err
			}
			dir, err := c.daemonDir()
			if err != nil {
				return err
			}
			return mcp.Serve(ctx, mcp.Config{In: c.stdin, Out: c.stdout, Err: c.stderr, Getenv: c.getenv, Dir: dir, Version: Version, Clock: c.clock})
		},
	}
}
