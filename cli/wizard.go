package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"charm.land/huh/v2"

	"claudemesh/bus"
	"claudemesh/mesh"
)

// The wizard asks what launch cannot know: which of several meshes, or how to come to a first one. It is shown only where a person sits at both ends of the
// terminal and did not ask to be left alone; everywhere else a choice that is missing is an error that lists what there is.

// mayAsk reports whether the wizard may be shown.
func (l *launch) mayAsk() bool {
	return !l.yes && !l.quiet && !l.ui.json && !l.cmd.Bool("dry-run") && terminal(l.stdin) && terminal(l.stdout)
}

// askMesh asks for what is missing by the error of choosing a mesh, which it returns when it is about something else.
func (l *launch) askMesh(ctx context.Context, err error) (string, error) {
	var several *severalMeshesError
	switch {
	case errors.As(err, &several):
		return l.askWhich(ctx, several.slugs)
	case errors.Is(err, errNoMesh):
		return l.askFirst(ctx)
	}
	return "", err
}

// askWhich asks for one of several meshes and for what peers shall see; what was given is not asked for.
func (l *launch) askWhich(ctx context.Context, slugs []string) (string, error) {
	slug, name, groups := slugs[0], l.req.Name, ""
	fields := []huh.Field{huh.NewSelect[string]().Title("Which mesh?").Options(huh.NewOptions(slugs...)...).Value(&slug)}
	begins := l.newID != "" // a conversation that is taken up has name, role and groups
	if begins && l.req.Name == "" {
		fields = append(fields, huh.NewInput().Title("Your name there").Placeholder(l.req.DefaultName).Value(&name).Validate(func(s string) error { return nameable(strings.TrimSpace(s)) }))
	}
	if begins && l.req.Role == "" {
		fields = append(fields, huh.NewInput().Title("Role (may be empty)").Value(&l.req.Role))
	}
	if begins && len(l.req.Groups) == 0 {
		fields = append(fields, huh.NewInput().Title("Groups (may be empty)").Placeholder("frontend:lead,reviewers").Value(&groups).Validate(func(s string) error {
			_, err := parseGroups(strings.TrimSpace(s))
			return err
		}))
	}
	if l.req.MessageMode == "" {
		fields = append(fields, huh.NewSelect[string]().Title("Messages").Options(
			huh.NewOption("as they come", ""), huh.NewOption("only when it looks", "inbox"), huh.NewOption("not at all, it can still look", "off"),
		).Value(&l.req.MessageMode))
	}
	if err := l.ask(ctx, l.stdout, huh.NewGroup(fields...)); err != nil {
		return "", err
	}
	l.req.Name, l.req.Role = strings.TrimSpace(name), strings.TrimSpace(l.req.Role)
	if groups = strings.TrimSpace(groups); groups != "" {
		var err error
		if l.req.Groups, err = parseGroups(groups); err != nil {
			return "", err
		}
	}
	return slug, nil
}

// askFirst makes or joins a first mesh.
func (l *launch) askFirst(ctx context.Context) (string, error) {
	var joins bool
	var name, invite string
	err := l.ask(ctx, l.stdout,
		huh.NewGroup(huh.NewSelect[bool]().Title("You are on no mesh yet").Options(
			huh.NewOption("make one on this machine", false), huh.NewOption("join one by an invite", true),
		).Value(&joins)),
		huh.NewGroup(huh.NewInput().Title("Invite").Placeholder("https://…/i/CODE").CharLimit(maxInvite).Value(&invite).Validate(func(s string) error {
			return l.checkInvite(bus.MeshJoin{Invite: strings.TrimSpace(s)})
		})).WithHideFunc(func() bool { return !joins }),
		huh.NewGroup(huh.NewInput().Title("Its name").Placeholder("team").Value(&name).Validate(func(s string) error {
			_, err := mesh.Slugify(s)
			return err
		})).WithHideFunc(func() bool { return joins }),
	)
	if err != nil {
		return "", err
	}
	if joins {
		l.invite.Invite = strings.TrimSpace(invite)
		return l.joinFirst(ctx)
	}
	n, err := l.mustConnect(ctx)
	if err != nil {
		return "", err
	}
	defer n.Close()
	var out bus.MeshJoined
	if err := n.daemon(ctx, bus.OpMeshCreate, bus.MeshCreate{Name: name}, &out); err != nil {
		return "", err
	}
	l.ui.note("created mesh %s", out.Mesh)
	return out.Mesh, nil
}

// ask shows questions on out, a page per group. Ctrl-C and the end of ctx cancel. It is one form at a time: what is typed between two would be lost.
func (c *call) ask(ctx context.Context, out io.Writer, pages ...*huh.Group) error {
	form := huh.NewForm(pages...).WithInput(c.stdin).WithOutput(out).WithAccessible(plainTerminal(c.getenv))
	err := form.RunWithContext(ctx)
	switch {
	case errors.Is(err, huh.ErrUserAborted), ctx.Err() != nil, errors.Is(err, os.ErrClosed):
		return errCancelled
	case err != nil:
		return fmt.Errorf("ask: %w", err)
	}
	return nil
}

// plainTerminal reports whether the terminal, or its reader, can do with lines only.
func plainTerminal(getenv func(string) string) bool {
	return getenv("TERM") == "dumb" || getenv("ACCESSIBLE") != ""
}
