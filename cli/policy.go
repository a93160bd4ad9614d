package cli

import (
	urfave "github.com/urfave/cli/v3"
)

// policy is how a command reaches its mesh: through the daemon, without one, or either.
type policy int

const (
	policyAuto   policy = iota // the daemon, started if need be; if none can be had, what can be done without
	policyStrict               // the daemon or nothing
	policyCold                 // never the daemon
)

// The environment twins of the flags; the value is 1.
const (
	noDaemonEnv = "CLAUDEMESH_NO_DAEMON"
	strictEnv   = "CLAUDEMESH_STRICT_DAEMON"
)

// strictFlag and noDaemonFlag belong to every command.
func strictFlag() urfave.Flag {
	return &urfave.BoolFlag{Name: "strict", Usage: "through the daemon or not at all (or " + strictEnv + "=1)"}
}

func noDaemonFlag() urfave.Flag {
	return &urfave.BoolFlag{Name: "no-daemon", Usage: "by a connection of this command's own, without the daemon (or " + noDaemonEnv + "=1)"}
}

// policy decides: a flag beats the environment, and in each of the two no-daemon beats strict. A flag that is given as false hides the environment as well.
func (c *call) policy() policy {
	switch {
	case c.cmd.Bool("no-daemon"):
		return policyCold
	case c.cmd.Bool("strict"):
		return policyStrict
	case c.cmd.IsSet("no-daemon"), c.cmd.IsSet("strict"):
		return policyAuto
	case c.getenv(noDaemonEnv) == "1":
		return policyCold
	case c.getenv(strictEnv) == "1":
		return policyStrict
	}
	return policyAuto
}
