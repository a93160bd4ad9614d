package cli

import (
	"strings"

	"claudemesh/bus"
	"claudemesh/mcp/feed"
)

// What launch says: the line before the client starts, and what a dry run would have done.

// banner is what the daemon knows at once of a session that begins.
func banner(me bus.SessionInfo) string {
	var b strings.Builder
	b.WriteString("claudemesh: " + cleanLine(me.Name))
	if me.Role != "" {
		b.WriteString(" (" + cleanLine(me.Role) + ")")
	}
	b.WriteString(" on " + me.Mesh)
	for _, g := range me.Groups {
		b.WriteString(" @" + cleanLine(g.Name))
		if g.Role != "" {
			b.WriteString(":" + cleanLine(g.Role))
		}
	}
	if me.MessageMode != "" {
		b.WriteString(" · " + me.MessageMode)
	}
	if me.KnownPeers != nil {
		b.WriteString(" · " + plural(*me.KnownPeers, "peer"))
	}
	if me.Unread > 0 {
		b.WriteString(" · " + plural(me.Unread, "unread message"))
	}
	return b.String()
}

// launchPlan is what launch --dry-run prints.
type launchPlan struct {
	Mesh         string   `json:"mesh"`
	Name         string   `json:"name"`           // empty: that of the conversation, else DefaultName
	DefaultName  string   `json:"default_name"`   // of a conversation that had none
	Conversation string   `json:"conversation"`   // empty: only Claude Code knows
	Command      string   `json:"command"`        // the file
	Args         []string `json:"args"`           // its arguments, without its name
	Environment  []string `json:"environment"`    // names of the variables that are added or replaced
	Caps         []string `json:"allowed_caps"`   // null: all that the member may
	Installed    bool     `json:"installed"`      // Claude Code is configured already, and not by arguments
	SkipsAsking  bool     `json:"skips_asking"`   // Claude Code is told to ask for no permission
	MessageMode  string   `json:"message_mode"`   // empty: the member's
	Groups       []string `json:"groups"`         // as in --groups
	Role         string   `json:"role,omitempty"` // empty: that of the conversation, else none
}

func (l *launch) tell(args []string) error {
	p := launchPlan{
		Mesh: l.req.Mesh, Name: l.req.Name, DefaultName: l.req.DefaultName, Conversation: l.req.Conversation, Command: l.client, Args: args, Caps: l.req.Caps,
		Environment: []string{feed.EnvSession, feed.EnvMesh, feed.EnvName, feed.EnvTokenFile}, Installed: l.installed, MessageMode: l.req.MessageMode,
		Groups: []string{}, Role: l.req.Role,
	}
	if l.req.Role != "" {
		p.Environment = append(p.Environment, feed.EnvRole)
	}
	for _, kv := range withDefaults(l.environ(), mcpTimeout, mcpOutput)[len(l.environ()):] {
		name, _, _ := strings.Cut(kv, "=")
		p.Environment = append(p.Environment, name)
	}
	for _, g := range l.req.Groups {
		p.Groups = append(p.Groups, strings.TrimSuffix(g.Name+":"+g.Role, ":"))
	}
	for _, a := range args {
		p.SkipsAsking = p.SkipsAsking || a == skipPermissions
	}
	return l.ui.result(p, func() error {
		name := p.Name
		if name == "" {
			name = p.DefaultName
		}
		if err := l.ui.print("as %s on %s", cleanLine(name), p.Mesh); err != nil {
			return err
		}
		if err := l.ui.print("runs  %s", p.Command); err != nil {
			return err
		}
		for _, a := range p.Args {
			if err := l.ui.print("      %s", cleanLine(a)); err != nil {
				return err
			}
		}
		return l.ui.print("with  %s", strings.Join(p.Environment, " "))
	})
}
