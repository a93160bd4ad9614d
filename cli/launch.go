package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/google/uuid"
	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/cli/claudeconf"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// Launch: Claude Code as a session. What is done before it starts waits for no broker: one request to the daemon, which commits the registration and writes
// the token's file.

const launchForm = "claudemesh launch [MESH] [-- CLAUDE ARGUMENTS…]"

func launchVerb() verb {
	return verb{
		name: "launch", aliases: []string{"connect"}, args: "[MESH] [-- CLAUDE ARGUMENTS…]", short: "start Claude Code as a session on a mesh",
		long: `Registers a session, starts Claude Code with the session's identity in its environment, and ends the session with it. Signals are
passed on; the exit code is Claude Code's (128 + n when signal n ended it). What stands behind -- goes to Claude Code as it is.

The conversation keeps its key on the mesh: --resume and --continue, whatever the name is now, are the same peer as before, and take name, role
and groups of that time where none are given. A conversation that is open in another session is refused.

Claude Code is what CLAUDE_BIN names, else claude on PATH. Nothing has to be installed: what claudemesh install would set up is given on the
command line where it is missing. In a terminal, claudemesh alone is claudemesh launch, and claudemesh INVITE joins and launches on that mesh.`,
		examples: []string{
			"claudemesh launch", "claudemesh launch team --name alice --role lead --groups frontend:lead,reviewers",
			"claudemesh launch --continue", "claudemesh launch team --caps dm,state-read --message-mode inbox -- --model opus", "claudemesh https://mesh.example.org/i/ABCD2345",
		},
		fails: []string{
			"3  several meshes are joined and none is named; a flag's value is not possible", "5  no such mesh, or none is joined", "6  the conversation is open in another session",
			"126, 127  Claude Code cannot be run, or is not there",
		},
		flags: []urfave.Flag{
			&urfave.StringFlag{Name: "name", Usage: "how peers see it: `NAME` (default: your user name)"},
			&urfave.StringFlag{Name: "role", Usage: "its `ROLE`, told to peers"},
			&urfave.StringFlag{Name: "groups", Usage: "groups it is in: `G1,G2:ROLE`"},
			&urfave.StringFlag{Name: "message-mode", Usage: "`push|inbox|off`: push shows messages as they come (default), inbox and off only when it looks"},
			capsFlag(),
			&urfave.BoolFlag{Name: "only-mesh", Usage: "it may use no other mesh than its own"},
			&urfave.BoolFlag{Name: "nudge", Usage: "where nothing else wakes it, write a line without content to Claude Code's own inbox"},
			&urfave.StringFlag{Name: "system-prompt", Usage: "Claude Code's system prompt: `TEXT`"},
			&urfave.StringFlag{Name: "resume", Usage: "take up the conversation with this `ID`"},
			&urfave.BoolFlag{Name: "continue", Usage: "take up the last conversation of this directory"},
			&urfave.StringFlag{Name: "join", Usage: "join the mesh of this `INVITE` first, and launch on it"},
			&urfave.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "ask nothing, and let Claude Code ask nothing (" + skipPermissions + ")"},
			&urfave.BoolFlag{Name: "quiet", Usage: "ask nothing, and print nothing before Claude Code starts"},
			&urfave.BoolFlag{Name: "dry-run", Usage: "say what would be run, and run nothing"},
		},
		run: func(ctx context.Context, c *call) error {
			caps, shown, err := c.caps()
			if err != nil || shown {
				return err
			}
			l, err := c.readLaunch()
			if err != nil {
				return err
			}
			l.req.Caps = caps
			return l.run(ctx)
		},
	}
}

// launch is one start of the client.
type launch struct {
	*call
	req       bus.SessionStart
	slug      string // as named
	invite    bus.MeshJoin
	yes       bool
	quiet     bool
	prompt    string
	resume    string // conversation, or its name, to be given to the client
	goesOn    bool
	newID     string // of a conversation that begins
	rest      passedOn
	client    string // path of Claude Code
	binary    string // path of this program
	files     claudeconf.Files
	installed bool
}

// readLaunch reads the command line. A mistake in it leaves no trace.
func (c *call) readLaunch() (*launch, error) {
	own := c.args()[:len(c.args())-c.behind]
	if len(own) > 1 {
		return nil, &usageError{message: "unexpected argument " + quoted(own[1]), hint: "usage: " + launchForm}
	}
	l := &launch{
		call: c, slug: c.cmd.String("mesh"), yes: c.cmd.Bool("yes"), quiet: c.cmd.Bool("quiet"), prompt: c.cmd.String("system-prompt"),
		rest: readPassedOn(c.args()[len(own):]),
		req: bus.SessionStart{
			Name: strings.TrimSpace(c.cmd.String("name")), PID: os.Getpid(), Role: c.cmd.String("role"), OnlyMesh: c.cmd.Bool("only-mesh"),
			MessageMode: c.cmd.String("message-mode"), Nudge: c.cmd.Bool("nudge"),
		},
		invite: bus.MeshJoin{Invite: strings.TrimSpace(c.cmd.String("join"))},
	}
	if len(own) == 1 {
		l.slug = own[0]
	}
	switch l.req.MessageMode {
	case "", wire.ModePush, wire.ModeInbox, wire.ModeOff:
	default:
		return nil, usagef("%q is no message mode: push, inbox or off", l.req.MessageMode)
	}
	if err := nameable(l.req.Name); err != nil {
		return nil, err
	}
	var err error
	if l.req.Groups, err = parseGroups(c.cmd.String("groups")); err != nil {
		return nil, err
	}
	if l.invite.Invite != "" {
		switch {
		case l.slug != "":
			return nil, usagef("--join says which mesh: name no other one")
		case c.cmd.Bool("dry-run"):
			return nil, usagef("a dry run joins nothing: leave --join out")
		}
		if err := c.checkInvite(l.invite); err != nil {
			return nil, err
		}
	}
	l.req.DefaultName = c.defaultName()
	return l, l.chooseConversation()
}

// chooseConversation settles what the client will talk about, and so which key the session has.
func (l *launch) chooseConversation() error {
	l.resume, l.goesOn = l.cmd.String("resume"), l.cmd.Bool("continue") || l.rest.goesOn
	if l.resume == "" {
		l.resume = l.rest.resume
	}
	takesUp := l.resume != "" || l.rest.resumes || l.goesOn
	switch {
	case l.goesOn && (l.resume != "" || l.rest.resumes):
		return usagef("--resume and --continue are two ways to say which conversation: choose one")
	case l.prompt != "" && l.rest.prompt:
		return usagef("--system-prompt is given twice")
	case l.rest.sessionID != "" && !isConversation(l.rest.sessionID):
		return usagef("--session-id %s is no UUID", quoted(l.rest.sessionID))
	case takesUp && l.rest.sessionID != "" && !l.rest.forks:
		return usagef("--session-id is for a conversation that begins, or one that forks")
	case takesUp && !l.rest.forks:
		l.req.Continue = l.goesOn
		if isConversation(l.resume) {
			l.req.Conversation = l.resume
		}
		return nil
	}
	if l.newID = l.rest.sessionID; l.newID == "" {
		l.newID = uuid.NewString()
	}
	l.req.Conversation = l.newID
	return nil
}

// nameable says why a name cannot be a session's; the empty one stands for the default.
func nameable(name string) error {
	if name == "" {
		return nil
	}
	if t, err := mesh.ParseTarget(name); err != nil || t.Kind != mesh.TargetName {
		return usagef("%q cannot be a session's name: it reads as another kind of target", name)
	}
	return nil
}

// defaultName is the user's name, else the machine's.
func (c *call) defaultName() string {
	host, _ := os.Hostname()
	for _, name := range []string{c.getenv("USER"), c.getenv("USERNAME"), host} {
		if name = strings.TrimSpace(name); name != "" && nameable(name) == nil {
			return name
		}
	}
	return "claude"
}

func (l *launch) run(ctx context.Context) (err error) {
	// Before anything is joined or registered.
	if l.client, err = l.claude(); err != nil {
		return err
	}
	if l.binary, err = l.executable(); err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	if l.req.Cwd, err = os.Getwd(); err != nil {
		return fmt.Errorf("find working directory: %w", err)
	}
	l.files = claudeconf.ClaudeFiles(l.getenv("HOME"), l.getenv("CLAUDE_CONFIG_DIR"))
	args, err := l.clientArgs()
	if err != nil {
		return err
	}
	if l.req.Mesh, err = l.chooseMesh(ctx); err != nil {
		return err
	}
	if l.cmd.Bool("dry-run") {
		return l.tell(args)
	}
	me, err := l.register(ctx)
	if err != nil {
		return err
	}
	defer l.endSession(me.ID)
	if !l.quiet && !l.ui.json {
		l.ui.note("%s", banner(me))
	}
	cmd := exec.Command(l.client, args...)
	cmd.Args[0] = "claude"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = l.stdin, l.stdout, l.stderr
	cmd.Env = withDefaults(sessionEnviron(l.environ(), me), mcpTimeout, mcpOutput)
	return l.runChild(cmd)
}

// register makes this very process a session: when it is gone, however it ended, the daemon ends the session.
func (l *launch) register(ctx context.Context) (me bus.SessionInfo, err error) {
	n, err := l.mustConnect(ctx)
	if err != nil {
		return me, err
	}
	defer n.Close()
	err = n.daemon(ctx, bus.OpSessionStart, l.req, &me)
	var refused *bus.APIError
	var held struct {
		Same bool `json:"same"`
	}
	if errors.As(err, &refused) && refused.Reason == "conversation_live" && refused.DecodeData(&held) == nil && !held.Same {
		// Another conversation of this name has the key. This one can be gone on with all the same, under a key that peers do not know yet.
		l.ui.warn("%s; this session gets a key of its own, and peers see it as somebody new", cleanLine(refused.Detail))
		alone := l.req
		alone.Conversation, alone.Continue = "", false
		err = n.daemon(ctx, bus.OpSessionStart, alone, &me)
	}
	return me, err
}

// chooseMesh joins, asks, or takes what is named or the only one.
func (l *launch) chooseMesh(ctx context.Context) (string, error) {
	if l.invite.Invite != "" {
		return l.joinFirst(ctx)
	}
	slug, err := l.meshNamed(ctx, l.slug, false)
	if err != nil && l.mayAsk() {
		return l.askMesh(ctx, err)
	}
	return slug, err
}

// joinFirst becomes a member of the invite's mesh, or is one already.
func (l *launch) joinFirst(ctx context.Context) (string, error) {
	n, err := l.mustConnect(ctx)
	if err != nil {
		return "", err
	}
	defer n.Close()
	out, err := l.join(ctx, n, l.invite)
	if err != nil {
		return "", err
	}
	if !l.quiet && !l.ui.json {
		l.ui.note("joined mesh %s", out.Mesh)
	}
	return out.Mesh, nil
}
