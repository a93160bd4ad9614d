// Command claudemesh lets AI coding sessions find each other and exchange messages: daemon, command line, MCP shim and broker in one binary.
package main

import (
	"os"

	"claudemesh/cli"
)

func main() { os.Exit(cli.Main(os.Args)) }
