package cli

import (
	"fmt"
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/mesh"
)

// This file is --caps, for the verbs that start a session: what it is limited to, and the table that explains the words.

// capText says what each capability lets a session do.
func capText(capability string) string {
	switch capability {
	case mesh.CapDM:
		return "send messages to one peer"
	case mesh.CapBroadcast:
		return "send messages to groups, topics and everybody"
	case mesh.CapRead:
		return "look at members, topics, skills, grants and the state of messages"
	case mesh.CapStateRead:
		return "read the shared state"
	case mesh.CapStateWrite:
		return "change the shared state"
	case mesh.CapMemory:
		return "remember, recall and forget"
	case mesh.CapSkills:
		return "share and remove skills"
	case mesh.CapTopics:
		return "create, join and leave topics"
	case mesh.CapFiles:
		return "share, fetch and delete files"
	case mesh.CapVault:
		return "read and write the member's secrets"
	case mesh.CapSchedule:
		return "set and cancel reminders and watches"
	case mesh.CapProfileWrite:
		return "change its own status, summary, profile and groups"
	case mesh.CapGrant:
		return "say who may write to this member"
	case mesh.CapKick:
		return "disconnect other peers, if the member may"
	case mesh.CapBan:
		return "ban members and lift bans, if the member may"
	case mesh.CapAdmin:
		return "API keys, webhooks, members and settings, as far as the member may"
	case mesh.CapServiceCall:
		return "call the tools that members publish"
	case mesh.CapServiceDeploy:
		return "publish tools"
	}
	return ""
}

// capsNone is how --caps says that nothing is allowed.
const capsNone = "none"

// capsFlag is --caps; read it with call.caps.
func capsFlag() urfave.Flag {
	return &urfave.StringFlag{Name: "caps", Usage: "all that it may do: `CAP,CAP…`, or none (default: what you may; --caps ? explains them)"}
}

// caps reads --caps. nil means that it was not given: the session may do what its member may; empty means that it may do nothing. shown: the table was asked
// for and has been printed, and the verb is done. Call it before anything else is looked at, so that the table needs no other argument.
func (c *call) caps() (caps []string, shown bool, err error) {
	list := strings.TrimSpace(c.cmd.String("caps"))
	switch {
	case !c.cmd.IsSet("caps"):
		return nil, false, nil
	case list == "?" || list == "help":
		return nil, true, c.explainCaps()
	}
	caps, err = parseCaps(list)
	return caps, false, err
}

// parseCaps reads "dm,state-read"; the names come back in the order of the table, each once.
func parseCaps(list string) ([]string, error) {
	if list == "" || list == capsNone {
		return []string{}, nil
	}
	all := mesh.Capabilities()
	var asked []string
	for _, name := range strings.Split(list, ",") {
		name = strings.ToLower(strings.TrimSpace(name))
		if !slices.Contains(all, name) {
			return nil, unknownCap(name, all)
		}
		asked = append(asked, name)
	}
	return slices.DeleteFunc(all, func(name string) bool { return !slices.Contains(asked, name) }), nil
}

func unknownCap(name string, all []string) error {
	e := &usageError{message: "no capability is called " + quoted(name)}
	if s := nearest(name, all); s != "" {
		e.hint = "did you mean " + s + "?\n"
	}
	e.hint += "capabilities: " + strings.Join(all, ", ") + "\neach is explained by: --caps ?"
	return e
}

// capRow is one line of the table.
type capRow struct {
	Capability string `json:"capability"`
	Allows     string `json:"allows"`
}

func (c *call) explainCaps() error {
	all := mesh.Capabilities()
	rows := make([]capRow, len(all))
	for i, name := range all {
		rows[i] = capRow{name, capText(name)}
	}
	return c.ui.result(rows, func() error {
		if err := c.ui.print("A session may do what its member may. With --caps A,B it may do that only:"); err != nil {
			return err
		}
		for _, r := range rows {
			if err := c.ui.print("  %-16s%s", r.Capability, r.Allows); err != nil {
				return err
			}
		}
		return c.ui.print("Every session may see who is on the mesh, read its own messages and say that it got them; --caps none leaves it just that.")
	})
}

// capabilityHint tells how a session gets what it lacks: only the user gives it, and only to a new one.
func capabilityHint(data map[string]any) string {
	has := capsWords(data["allowed_caps"])
	if has == capsNone {
		has = ""
	} else {
		has += ","
	}
	return fmt.Sprintf("the user can start a session that may, outside of this one: claudemesh session run --caps %s%s …\neach capability is explained by: claudemesh session run --caps ?",
		has, cleanLine(fmt.Sprint(data["capability"])))
}

// capsWords is a list of capabilities from an error's data as --caps takes it.
func capsWords(list any) string {
	var words []string
	items, _ := list.([]any)
	for _, s := range items {
		words = append(words, cleanLine(fmt.Sprint(s)))
	}
	if len(words) == 0 {
		return capsNone
	}
	return strings.Join(words, ",")
}

// allowedText is what peers and sessions are limited to, for people.
func allowedText(caps *[]string) string {
	switch {
	case caps == nil:
		return ""
	case len(*caps) == 0:
		return "may: nothing"
	}
	return "may: " + cleanLine(strings.Join(*caps, ", "))
}
