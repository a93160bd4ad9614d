package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/mcp/feed"
	"claudemesh/mesh"
)

// Exit codes of session run that a shell would give, too.
const (
	exitCannotRun = 126
	exitNoCommand = 127
	exitSignal    = 128 // plus the signal's number
)

// endLimit bounds the goodbye of a session: its program has ended, and nobody should wait for the daemon.
const endLimit = 2 * time.Second

func sessionVerb() verb {
	return verb{name: "session", short: "programs that are on the mesh under a name of their own", subs: []verb{sessionRunVerb(), sessionListVerb(), sessionRevokeVerb()}}
}

func sessionRunVerb() verb {
	return verb{
		name: "run", args: "--name NAME -- COMMAND…", short: "run a command as a session",
		long: `Registers a session, runs COMMAND with the session's identity in its environment, and ends the session with it. claudemesh send, inbox
and mcp inside of it act as this session. With --caps it may do only what is named; inside a session, a new one gets at most what that
one has, and ends with it. Signals are passed on; the exit code is the command's (128 + n when signal n ended it).

The command gets CLAUDEMESH_SESSION_ID, CLAUDEMESH_MESH, CLAUDEMESH_DISPLAY_NAME and CLAUDEMESH_IPC_TOKEN_FILE.`,
		examples: []string{
			"claudemesh session run --name alice -- sh",
			"claudemesh session run --name bob --groups reviewers,backend:lead --mesh team -- claude",
			"claudemesh session run --name reader --caps dm,state-read -- sh",
		},
		fails: []string{"3  no name or no command; the name reads as another kind of target; an unknown capability", "5  no such mesh", "7  inside a session: more than this session may do itself", "126, 127  the command cannot be run, or is not there"},
		flags: []urfave.Flag{
			&urfave.StringFlag{Name: "name", Usage: "how peers see it: `NAME`"},
			&urfave.StringFlag{Name: "role", Usage: "its `ROLE`, told to peers"},
			&urfave.StringFlag{Name: "groups", Usage: "groups it is in: `G1,G2:ROLE`"},
			&urfave.BoolFlag{Name: "only-mesh", Usage: "it may use no other mesh than its own"},
			capsFlag(),
		},
		run: func(ctx context.Context, c *call) error {
			caps, shown, err := c.caps()
			if err != nil || shown {
				return err
			}
			if err := c.want(1, -1, "claudemesh session run --name NAME -- COMMAND…"); err != nil {
				return err
			}
			req := bus.SessionStart{Name: strings.TrimSpace(c.cmd.String("name")), PID: os.Getpid(), Role: c.cmd.String("role"), Caps: caps, OnlyMesh: c.cmd.Bool("only-mesh")}
			if req.Name == "" {
				return usagef("a session needs a name: --name NAME")
			}
			if t, err := mesh.ParseTarget(req.Name); err != nil || t.Kind != mesh.TargetName {
				return usagef("%q cannot be a session's name: it reads as another kind of target", req.Name)
			}
			if req.Groups, err = parseGroups(c.cmd.String("groups")); err != nil {
				return err
			}
			// Before anything is registered: a typing error should leave no trace.
			path, err := exec.LookPath(c.args()[0])
			if err != nil {
				return c.cannotRun(c.args()[0], err)
			}
			if req.Cwd, err = os.Getwd(); err != nil {
				return fmt.Errorf("find working directory: %w", err)
			}
			if req.Mesh, err = c.mesh(ctx, true); err != nil {
				return err
			}
			return c.runSession(ctx, req, path)
		},
	}
}

// cannotRun says why a command does not start, with the code a shell would give.
func (c *call) cannotRun(name string, err error) error {
	f := &failure{Code: "command_not_run", Message: fmt.Sprintf("cannot run %s: %v", quoted(name), err), Exit: exitCannotRun}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		f.Code, f.Exit = "command_not_found", exitNoCommand
	}
	c.ui.fail(f)
	return &exitError{f.Exit}
}

// parseGroups reads "g1,g2:role".
func parseGroups(s string) ([]mesh.Group, error) {
	if s == "" {
		return nil, nil
	}
	var groups []mesh.Group
	for _, part := range strings.Split(s, ",") {
		name, role, _ := strings.Cut(strings.TrimSpace(part), ":")
		name = strings.TrimPrefix(name, "@")
		if t, err := mesh.ParseTarget("@" + name); err != nil || t.Kind != mesh.TargetGroup {
			return nil, usagef("%q cannot be a group's name", part)
		}
		groups = append(groups, mesh.Group{Name: name, Role: role})
	}
	return groups, nil
}

// runSession registers this very process: when it is gone, however it ended, the daemon ends the session.
func (c *call) runSession(ctx context.Context, req bus.SessionStart, path string) error {
	n, err := c.mustConnect(ctx)
	if err != nil {
		return err
	}
	var me bus.SessionInfo
	err = n.daemon(ctx, bus.OpSessionStart, req, &me)
	n.Close()
	if err != nil {
		return err
	}
	defer c.endSession(me.ID)
	cmd := exec.Command(path, c.args()[1:]...)
	cmd.Args[0] = c.args()[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.stdin, c.stdout, c.stderr
	cmd.Env = sessionEnviron(c.environ(), me)
	return c.runChild(cmd)
}

// sessionEnviron is the environment of a session's program. The token itself is not in it: process listings show environments.
func sessionEnviron(environ []string, me bus.SessionInfo) []string {
	var out []string
	for _, kv := range environ {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case feed.EnvSession, feed.EnvTokenFile, feed.EnvToken, feed.EnvMesh, feed.EnvName, feed.EnvRole:
		default:
			out = append(out, kv)
		}
	}
	out = append(out, feed.EnvSession+"="+me.ID, feed.EnvMesh+"="+me.Mesh, feed.EnvName+"="+me.Name, feed.EnvTokenFile+"="+me.TokenFile)
	if me.Role != "" {
		out = append(out, feed.EnvRole+"="+me.Role)
	}
	return out
}

// runChild runs cmd to its end and passes on every signal that it would not get by itself.
func (c *call) runChild(cmd *exec.Cmd) error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return c.cannotRun(cmd.Args[0], err)
	}
	// Ctrl-C on a terminal reaches the whole foreground group: passed on as well, it would come twice.
	onTerminal := terminal(c.stdin) || terminal(c.stdout) || terminal(c.stderr)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			if !onTerminal || !fromTerminal(s) {
				_ = cmd.Process.Signal(s) // it may have ended just now
			}
		case err := <-ended:
			var exit *exec.ExitError
			switch {
			case err == nil:
				return nil
			case errors.As(err, &exit):
				return &exitError{childCode(exit.ProcessState)}
			}
			return fmt.Errorf("run command: %w", err)
		}
	}
}

// endSession tells the daemon, if one runs, that the session is over. It is not worth an error: the daemon sees that the process is gone.
func (c *call) endSession(id string) {
	// Not the caller's context: it ends with the interrupt that may have ended the command.
	ctx, cancel := context.WithTimeout(context.Background(), endLimit)
	defer cancel()
	n, err := c.running(ctx)
	if err != nil {
		return
	}
	defer n.Close()
	_ = n.daemon(ctx, bus.OpSessionEnd, bus.SessionID{ID: id}, nil)
}
