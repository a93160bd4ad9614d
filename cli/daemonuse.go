package cli

import (
	urfave "github.com/urfave/cli/v3"
)

// daemonUse is how a command reaches its mesh: through the daemon, without one, or either.
type daemonUse int

const (
	useAny    daemonUse = iota // the daemon, started if need be; if none can be had, what can be done without
	useDaemon                  // the daemon or nothing
	useNone                    // never the daemon
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

// daemonUse decides: a flag beats the environment, and in each of the two no-daemon beats strict. A flag that is given as false hides the environment as well.
func (c *call) daemonUse() daemonUse {
	switch {
	case c.cmd.Bool("no-daemon"):
		return useNone
	case c.cmd.Bool("strict"):
		return useDaemon
	case c.cmd.IsSet("no-daemon"), c.cmd.IsSet("strict"):
		return useAny
	case c.getenv(noDaemonEnv) == "1":
		return useNone
	case c.getenv(strictEnv) == "1":
		return useDaemon
	}
	return useAny
}
