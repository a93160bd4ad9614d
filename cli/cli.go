// Package cli is the command line of claudemesh: it parses, makes one call, prints.
//
// The invariants it keeps: what is printed never claims more than is known; every failure is one message, one hint and one exit code, whatever the format;
// and a credential that is refused is an error, never replaced by a wider one.
//
// main calls Main; nothing else does.
package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	urfave "github.com/urfave/cli/v3"
)

// Main runs the program with the arguments of the process and returns its exit code.
func Main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, hostEnv(args))
}

// run is Main in a given world. ctx ends when the user interrupts.
func run(ctx context.Context, e *env) int {
	args := e.args
	if len(args) > 0 {
		args = args[1:]
	}
	app := &app{env: e}
	root := app.root()
	w, err := canonical(root, app.bare(root, args))
	app.ui, app.fields, app.help, app.behind = newUI(e, w.json), w.fields, w.help, w.behind
	if err == nil {
		err = root.Run(ctx, append([]string{root.Name}, w.args...))
	}
	if err == nil {
		return exitOK
	}
	var done *exitError
	if errors.As(err, &done) {
		return done.code
	}
	f := explain(err)
	app.ui.fail(f)
	return f.Exit
}

// app is one run of the program.
type app struct {
	*env
	ui     *ui
	fields string // of --json=FIELDS, for verbs that select
	help   bool   // --help
	behind int    // positional arguments that stood behind "--"
}

// call is one run of one verb.
type call struct {
	*app
	cmd *urfave.Command
}

// args are the positional arguments.
func (c *call) args() []string { return c.cmd.Args().Slice() }

// want checks the number of positional arguments; most < 0 means any number.
func (c *call) want(least, most int, form string) error {
	n := c.cmd.Args().Len()
	switch {
	case n < least:
		return &usageError{message: "missing argument", hint: "usage: " + form}
	case most >= 0 && n > most:
		return &usageError{message: "unexpected argument " + quoted(c.cmd.Args().Get(most)), hint: "usage: " + form}
	}
	return nil
}

// root is the command tree. The order is that of the help.
func (a *app) root() *urfave.Command {
	root := a.command(verb{
		name: "claudemesh", short: "messages between AI coding sessions: durable, encrypted, truthfully reported",
		subs: []verb{
			createVerb(), joinVerb(), shareVerb(), listVerb(), infoVerb(), renameVerb(), leaveVerb(), deleteVerb(),
			sendVerb(), inboxVerb(), traceVerb(), messageVerb(), peerVerb(), peersVerb(), sessionVerb(), launchVerb(),
			memberVerb(), grantVerb(), revokeVerb(), blockVerb(), unblockVerb(), grantsVerb(), verifyVerb(),
			kickVerb(), disconnectVerb(), banVerb(), unbanVerb(), bansVerb(), apiKeyVerb(),
			statusVerb(), summaryVerb(), visibleVerb(), profileVerb(), groupVerb(), settingsVerb(),
			topicVerb(),
			remindVerb(), scheduleVerb(), watchVerb(), webhookVerb(),
			stateVerb(), rememberVerb(), recallVerb(), forgetVerb(), memoryVerb(), skillVerb(), fileVerb(), vaultVerb(), serviceVerb(),
			registerVerb(), loginVerb(), logoutVerb(), whoamiVerb(), syncVerb(), backupVerb(), restoreVerb(), policyVerb(), urlHandlerVerb(),
			installVerb(), uninstallVerb(), doctorVerb(), statusLineVerb(),
			daemonVerb(), busVerb(), brokerVerb(), mcpVerb(), hookVerb(), versionVerb(), helpVerb(),
		},
		flags: append([]urfave.Flag{
			&urfave.BoolFlag{Name: "json", Usage: "print one JSON value on stdout; failures too"},
			&urfave.StringFlag{Name: "mesh", Usage: "the mesh meant, by its `SLUG`"},
			&urfave.BoolFlag{Name: "help", Aliases: []string{"h"}, Usage: "explain the command"},
			&urfave.BoolFlag{Name: "version", Aliases: []string{"V"}, Usage: "print the version", Local: true},
		}, approvalFlags()...),
	})
	root.HideHelp, root.HideVersion, root.HideHelpCommand = true, true, true
	// Errors come back to run; the library must not print or exit.
	root.ExitErrHandler = func(context.Context, *urfave.Command, error) {}
	root.Writer, root.ErrWriter = a.stdout, a.stderr
	return root
}

// verb describes a command, or a group of them when it has subs.
type verb struct {
	name     string
	aliases  []string
	args     string // positional arguments in the usage line
	short    string // one line
	long     string // paragraphs
	examples []string
	fails    []string // "CODE  when", beyond the general ones
	flags    []urfave.Flag
	subs     []verb
	hidden   bool
	selects  bool // takes --json=FIELDS
	run      func(context.Context, *call) error
}

func (a *app) command(v verb) *urfave.Command {
	cmd := &urfave.Command{Name: v.name, Aliases: v.aliases, Usage: v.short, Flags: v.flags, Hidden: v.hidden, Metadata: map[string]any{verbKey: v}}
	for _, s := range v.subs {
		cmd.Commands = append(cmd.Commands, a.command(s))
	}
	cmd.OnUsageError = func(_ context.Context, _ *urfave.Command, err error, _ bool) error {
		return &usageError{message: err.Error(), hint: "see: " + cmd.FullName() + " --help"}
	}
	cmd.Action = func(ctx context.Context, cmd *urfave.Command) error {
		c := &call{app: a, cmd: cmd}
		switch {
		case a.help:
			return c.explain(v)
		case a.fields != "" && !v.selects:
			return usagef("this command prints whole objects: --json takes no fields here")
		case v.run != nil:
			if done, err := c.permitted(); done || err != nil {
				return err
			}
			return v.run(ctx, c)
		case cmd.Bool("version"):
			return c.version()
		case cmd.Args().Present():
			return c.unknownCommand(cmd.Args().First())
		default:
			return c.explain(v)
		}
	}
	return cmd
}

func (c *call) unknownCommand(word string) error {
	e := &usageError{message: "unknown command " + quoted(word), hint: "see: " + c.cmd.FullName() + " --help"}
	if s := urfave.SuggestCommand(c.cmd.Commands, word); s != "" && s != "help" && s != "h" {
		e.hint = "did you mean " + s + "?\n" + e.hint
	}
	return e
}
