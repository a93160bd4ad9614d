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
		long: `Explains a command, as COMMAND --help does: its forms, an example, its flags, what can fail and with which exit code.

--llm prints every command, or those of the group named, one a line: what a model needs to know before it uses the program.`,
		examples: []string{"claudemesh help send", "claudemesh help --llm", "claudemesh help --llm topic", "claudemesh help send --json"},
		fails:    []string{"3  no such command"},
		flags:    []urfave.Flag{&urfave.BoolFlag{Name: "llm", Usage: "every command in a line, for language models"}},
		run: func(_ context.Context, c *call) error {
			cmd := c.root
			for _, word := range c.args() {
				sub := cmd.Command(word)
				if sub == nil {
					return (&call{app: c.app, cmd: cmd}).unknownCommand(word)
				}
				cmd = sub
			}
			if c.cmd.Bool("llm") {
				return c.explainAll(cmd)
			}
			return (&call{app: c.app, cmd: cmd}).explain(verbOf(cmd))
		},
	}
}

// explain prints the help of one command.
func (c *call) explain(v verb) error {
	return c.ui.result(newHelpJSON(c.root, c.cmd, v), func() error { return c.ui.print("%s", c.helpText(v)) })
}

func (c *call) helpText(v verb) string {
	var b strings.Builder
	name, width := fullName(c.cmd), c.ui.width()
	b.WriteString(hang(name+": ", v.short, width, 4) + "\n")
	if v.group() && v.run == nil {
		fmt.Fprintf(&b, "usage: %s COMMAND [flags]\n", name)
	} else {
		for i, form := range strings.Split(v.args, "\n") {
			word := "usage: "
			if i > 0 {
				word = "       "
			}
			fmt.Fprintln(&b, strings.TrimRight(word+name+" "+form, " "))
		}
	}
	if v.group() {
		var rows [][2]string
		for _, s := range v.subs {
			if !s.hidden {
				rows = append(rows, [2]string{s.head(), s.short})
			}
		}
		b.WriteString("\ncommands:\n" + table(rows, width))
		fmt.Fprintf(&b, "\n%s COMMAND --help explains one of them\n", name)
	}
	if v.long != "" {
		fmt.Fprintf(&b, "\n%s\n", reflow(strings.TrimSpace(v.long), width))
	}
	if len(v.examples) > 0 {
		b.WriteString("\nexample:\n")
		for _, e := range v.examples {
			b.WriteString("  " + e + "\n")
		}
	}
	b.WriteString("\nflags:\n" + table(flagRows(c.root, c.cmd), width))
	if len(v.fails) > 0 {
		b.WriteString("\nfails with:\n")
		for _, f := range v.fails {
			b.WriteString(hang("  ", f, width, 5))
		}
	}
	if !v.group() || c.cmd == c.root {
		b.WriteString("\n" + exitTable)
	}
	return strings.TrimRight(b.String(), "\n")
}

// group reports whether a verb is explained by listing what is under it.
func (v verb) group() bool {
	return slices.ContainsFunc(v.subs, func(s verb) bool { return !s.hidden })
}

func (v verb) head() string {
	return strings.TrimRight(strings.Join(append([]string{v.name}, v.aliases...), ", ")+" "+strings.SplitN(v.args, "\n", 2)[0], " ")
}

var metavar = regexp.MustCompile("`([^`]+)`")

// flagsOf lists the flags of a command, its own first, then the general ones.
func flagsOf(root, cmd *urfave.Command) []helpFlag {
	var flags []helpFlag
	seen := map[string]bool{}
	for _, c := range []*urfave.Command{cmd, root} {
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
			h := helpFlag{Name: names[0], Aliases: names[1:], Usage: strings.ReplaceAll(d.GetUsage(), "`", ""), own: c == cmd}
			if m := metavar.FindStringSubmatch(d.GetUsage()); m != nil {
				h.Value = m[1]
			} else if takesValue(f) {
				h.Value = strings.ToUpper(names[0])
			}
			flags = append(flags, h)
		}
	}
	return flags
}

func flagRows(root, cmd *urfave.Command) [][2]string {
	var rows [][2]string
	for _, f := range flagsOf(root, cmd) {
		head := strings.TrimRight("--"+f.Name+" "+f.Value, " ")
		for _, n := range f.Aliases {
			head += ", -" + n
		}
		rows = append(rows, [2]string{head, f.Usage})
	}
	return rows
}

// quoted shows a word of the user's in an error.
func quoted(s string) string {
	if len(s) > 80 {
		s = s[:80] + "…"
	}
	return fmt.Sprintf("%q", s)
}
