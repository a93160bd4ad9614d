package cli

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v3"
)

// Help is written for a reader that will act on it at once, a language model as often as a person: what the verb does, its forms, one example, what can
// fail and with which exit code.

const exitTable = `exit codes:
  0  done
  1  cancelled, or failed without a code of its own
  2  not signed in to a broker, or the sign-in was refused (only verbs of accounts)
  3  bad arguments, or a choice is missing or ambiguous
  4  the broker cannot be reached
  5  no such mesh, peer, message or session
  6  exists already, or its state forbids it
  7  not permitted with this credential
  8  the daemon does not start or answer, or a time limit passed
 10  a file could not be read or written
`

func helpVerb() verb {
	return verb{
		name: "help", args: "[COMMAND…]", short: "explain a command",
		run: func(_ context.Context, c *call) error {
			cmd := c.cmd.Root()
			for _, word := range c.args() {
				sub := cmd.Command(word)
				if sub == nil {
					return (&call{app: c.app, cmd: cmd}).unknownCommand(word)
				}
				cmd = sub
			}
			return (&call{app: c.app, cmd: cmd}).explain(cmd.Metadata[verbKey].(verb))
		},
	}
}

// verbKey is where a command keeps the verb it was made of.
const verbKey = "verb"

func (c *call) explain(v verb) error {
	var b strings.Builder
	name := c.cmd.FullName()
	fmt.Fprintf(&b, "%s: %s\n\n", name, v.short)
	switch {
	case v.group():
		fmt.Fprintf(&b, "usage: %s COMMAND [flags]\n\ncommands:\n", name)
		width := 0
		for _, s := range v.subs {
			width = max(width, len(s.head()))
		}
		for _, s := range v.subs {
			if !s.hidden {
				fmt.Fprintf(&b, "  %-*s  %s\n", width, s.head(), s.short)
			}
		}
		fmt.Fprintf(&b, "\n%s COMMAND --help explains one of them\n", name)
	default:
		for i, form := range strings.Split(v.args, "\n") {
			word := "usage: "
			if i > 0 {
				word = "       "
			}
			fmt.Fprintln(&b, strings.TrimRight(word+name+" "+form, " "))
		}
	}
	if v.long != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(v.long))
	}
	if len(v.examples) > 0 {
		b.WriteString("\nexample:\n")
		for _, e := range v.examples {
			b.WriteString("  " + e + "\n")
		}
	}
	b.WriteString("\nflags:\n" + flagTable(c.cmd))
	if len(v.fails) > 0 {
		b.WriteString("\nfails with:\n")
		for _, f := range v.fails {
			b.WriteString("  " + f + "\n")
		}
	}
	if !v.group() || c.cmd == c.cmd.Root() {
		b.WriteString("\n" + exitTable)
	}
	return c.ui.print("%s", strings.TrimRight(b.String(), "\n"))
}

// group reports whether a verb is explained by listing what is under it.
func (v verb) group() bool {
	return slices.ContainsFunc(v.subs, func(s verb) bool { return !s.hidden })
}

func (v verb) head() string {
	return strings.TrimRight(strings.Join(append([]string{v.name}, v.aliases...), ", ")+" "+strings.SplitN(v.args, "\n", 2)[0], " ")
}

var metavar = regexp.MustCompile("`([^`]+)`")

// flagTable lists the flags of a command, its own first, then the general ones.
func flagTable(cmd *urfave.Command) string {
	var rows [][2]string
	seen := map[string]bool{}
	for _, c := range cmd.Lineage() {
		for _, f := range c.Flags {
			d, ok := f.(interface {
				GetUsage() string
				IsVisible() bool
			})
			names := f.Names()
			if !ok || !d.IsVisible() || seen[names[0]] || c != cmd && names[0] == "version" {
				continue
			}
			seen[names[0]] = true
			usage, head := d.GetUsage(), "--"+names[0]
			if m := metavar.FindStringSubmatch(usage); m != nil {
				head += " " + m[1]
			}
			for _, n := range names[1:] {
				head += ", -" + n
			}
			rows = append(rows, [2]string{head, strings.ReplaceAll(usage, "`", "")})
		}
	}
	width := 0
	for _, r := range rows {
		width = max(width, len(r[0]))
	}
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&b, "  %-*s  %s\n", width, r[0], r[1])
	}
	return b.String()
}

// quoted shows a word of the user's in an error.
func quoted(s string) string {
	if len(s) > 80 {
		s = s[:80] + "…"
	}
	return fmt.Sprintf("%q", s)
}
