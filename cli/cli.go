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
	"strings"
	"syscall"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
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
	root := app.tree()
	app.root = root
	w, err := canonical(root, app.bare(root, args))
	app.ui, app.fields, app.help, app.behind = newUI(e, w.json || w.filters), w.fields, w.help, w.behind
	if w.filters && err == nil {
		app.ui.filter, err = newFilter(ctx, w.jq)
		app.ui.json = err == nil
	}
	defer app.tellRelease()
	if err == nil {
		// A script that is traced hands its span on, as other programs do.
		err = root.Run(bus.WithTrace(ctx, e.getenv("TRACEPARENT")), append([]string{root.Name}, w.args...))
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
	root   *urfave.Command // the command tree
	fields string          // of --json=FIELDS
	help   bool            // --help
	behind int             // positional arguments that stood behind "--"
	told   bool            // the user was told about the daemon
	mended bool            // the daemon's version was looked at
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

// tree makes the command tree. The order is that of the help.
func (a *app) tree() *urfave.Command {
	root := a.command(verb{
		name: "claudemesh", short: "messages between AI coding sessions: durable, encrypted, truthfully reported",
		subs: []verb{
			createVerb(), joinVerb(), shareVerb(), listVerb(), infoVerb(), meVerb(), renameVerb(), leaveVerb(), deleteVerb(), workspaceVerb(),
			sendVerb(), inboxVerb(), traceVerb(), messageVerb(), msgStatusVerb(), peerVerb(), peersVerb(), sessionVerb(), launchVerb(),
			memberVerb(), grantVerb(), revokeVerb(), blockVerb(), unblockVerb(), grantsVerb(), verifyVerb(),
			kickVerb(), disconnectVerb(), banVerb(), unbanVerb(), bansVerb(), apiKeyVerb(),
			statusVerb(), topVerb(), summaryVerb(), visibleVerb(), profileVerb(), groupVerb(), settingsVerb(),
			topicVerb(),
			remindVerb(), scheduleVerb(), watchVerb(), webhookVerb(),
			stateVerb(), rememberVerb(), recallVerb(), forgetVerb(), memoryVerb(), skillVerb(), fileVerb(), vaultVerb(), serviceVerb(),
			registerVerb(), loginVerb(), logoutVerb(), whoamiVerb(), syncVerb(), backupVerb(), restoreVerb(), policyVerb(), urlHandlerVerb(),
			installVerb(), uninstallVerb(), doctorVerb(), testVerb(), upgradeVerb(), statusLineVerb(),
			daemonVerb(), busVerb(), brokerVerb(), mcpVerb(), hookVerb(), completionVerb(), completeVerb(), versionVerb(), helpVerb(),
		},
		flags: append([]urfave.Flag{
			&urfave.BoolFlag{Name: "json", Usage: "print one JSON value on stdout; failures too. --json=a,b keeps these fields"},
			&urfave.StringFlag{Name: "jq", Usage: "print what this `EXPR` of the jq language makes of the JSON; strings as text"},
			&urfave.StringFlag{Name: "mesh", Usage: "the mesh meant, by its `SLUG`"},
			&urfave.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do it without asking, where the command asks"},
			&urfave.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "no notes on stderr; warnings and errors stay"},
			strictFlag(), noDaemonFlag(),
			&urfave.BoolFlag{Name: "help", Aliases: []string{"h"}, Usage: "explain the command"},
			&urfave.BoolFlag{Name: "version", Aliases: []string{"V"}, Usage: "print the version", Local: true},
		}, approvalFlags()...),
	}, "")
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
	fields   []string // all that --json=FIELDS may name; nil where it depends on the result
	run      func(context.Context, *call) error
}

// alsoAlone makes a group that does what v does when no command of it is named, as the reference has it.
func (v verb) alsoAlone(group verb) verb {
	group.flags, group.examples, group.fails, group.fields = v.flags, v.examples, v.fails, v.fields
	group.run = func(ctx context.Context, c *call) error {
		if c.cmd.Args().Present() {
			return c.unknownCommand(c.args()[0])
		}
		return v.run(ctx, c)
	}
	return group
}

// Keys of a command's metadata: the verb it was made of, and its name with those of the groups above it. The library knows the latter of the commands on the
// way to the one that runs, and of no other.
const (
	verbKey = "verb"
	pathKey = "path"
)

func verbOf(cmd *urfave.Command) verb { return cmd.Metadata[verbKey].(verb) }

func fullName(cmd *urfave.Command) string { return cmd.Metadata[pathKey].(string) }

func (a *app) command(v verb, above string) *urfave.Command {
	path := strings.TrimPrefix(above+" "+v.name, " ")
	cmd := &urfave.Command{
		Name: v.name, Aliases: v.aliases, Usage: v.short, Flags: v.flags, Hidden: v.hidden, Metadata: map[string]any{verbKey: v, pathKey: path},
	}
	for _, s := range v.subs {
		cmd.Commands = append(cmd.Commands, a.command(s, path))
	}
	cmd.OnUsageError = func(_ context.Context, _ *urfave.Command, err error, _ bool) error {
		return &usageError{message: err.Error(), hint: "see: " + path + " --help"}
	}
	cmd.Action = func(ctx context.Context, cmd *urfave.Command) error {
		c := &call{app: a, cmd: cmd}
		switch {
		case a.help:
			return c.explain(v)
		case v.run != nil:
			a.ui.quiet = cmd.Bool("quiet")
			if done, err := c.permitted(); done || err != nil {
				return err
			}
			var err error
			if a.ui.fields, err = fieldList(a.fields, v.fields); err != nil {
				return err
			}
			return v.run(ctx, c)
		case cmd.Bool("version"):
			return c.version()
		case cmd.Args().First() == "help":
			return c.explain(v)
		case cmd.Args().Present():
			return c.unknownCommand(cmd.Args().First())
		default:
			return c.explain(v)
		}
	}
	return cmd
}

func (c *call) unknownCommand(word string) error {
	e := &usageError{message: "unknown command " + quoted(word), hint: "see: " + fullName(c.cmd) + " --help"}
	if s := suggestCommand(c.cmd, word); s != "" {
		e.hint = "did you mean " + s + "?\n" + e.hint
	}
	return e
}

// suggestCommand is what a word that is no command of cmd most likely meant: a command of cmd, or one of another group by the very word.
func suggestCommand(cmd *urfave.Command, word string) string {
	var names []string
	for _, sub := range cmd.Commands {
		if !sub.Hidden {
			names = append(names, sub.Names()...)
		}
	}
	if s := nearest(word, names); s != "" {
		return s
	}
	for _, group := range cmd.Root().Commands {
		if sub := group.Command(word); sub != nil && !group.Hidden && !sub.Hidden {
			return group.Name + " " + word
		}
	}
	return ""
}
