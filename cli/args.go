package cli

import (
	"strings"

	urfave "github.com/urfave/cli/v3"
)

// words are the arguments of one run, understood.
type words struct {
	// args are in the one order that cannot be misread: command words, flags with their values attached, "--", positionals. --json, --jq and --help are taken out.
	args    []string
	json    bool
	help    bool
	fields  string // of --json=FIELDS
	jq      string // of --jq=EXPR
	filters bool   // --jq was given
	behind  int    // how many positionals stood behind "--"
}

// canonical reads the arguments. Flags may stand anywhere, also before the command they belong to; a text that begins with a dash and is no flag ("-5",
// "- item") does not swallow the flags behind it, and an unknown flag is an error before anything runs. What it returns beside an error is valid as far as
// --json goes: the error is to be printed as JSON, too.
//
// A flag is a word of the form --name, --name=value, -name or -name=value, where name begins with a letter; with one dash it holds no white space. A flag that
// takes a value takes the next word unless that is "--" or a flag of the command; a boolean never does. "--" ends the flags. Of a flag that is given twice the
// last one holds.
func canonical(root *urfave.Command, args []string) (w words, err error) {
	path, isCommand := findCommand(root, args)
	known := []*urfave.Command{root, path[len(path)-1]}
	for _, c := range path[1:] {
		w.args = append(w.args, c.Name)
	}
	var positionals []string
	for i := 0; i < len(args); i++ {
		word := args[i]
		if word == "--" {
			positionals = append(positionals, args[i+1:]...)
			w.behind = len(args) - i - 1
			break
		}
		name, value, attached := flagWord(word)
		if name == "" {
			if !isCommand[i] {
				positionals = append(positionals, word)
			}
			continue
		}
		flag := findFlag(known, name)
		switch {
		case flag != nil && name == "json":
			w.json, w.fields = value != "false", ""
			if value != "true" && value != "false" {
				w.fields = value
			}
		case flag != nil && flag.Names()[0] == "help":
			// The library would answer it by itself, in its own words.
			w.help = value != "false"
		case flag == nil && err == nil:
			// Go on reading: a --json may still follow.
			err = unknownFlag(path, word, name)
		case flag == nil:
		case !takesValue(flag):
			if !attached {
				value = "true"
			}
			w.args = append(w.args, "--"+name+"="+value)
		case attached:
			w.put(name, value)
		case i+1 == len(args) || args[i+1] == "--" || isFlagOf(known, args[i+1]):
			if err == nil {
				err = usagef("flag --%s needs a value", name)
			}
		default:
			i++
			w.put(name, args[i])
		}
	}
	if len(positionals) > 0 {
		w.args = append(append(w.args, "--"), positionals...)
	}
	return w, err
}

// findCommand finds the command that is meant, as the path from the root, and which of the arguments are the words of it. To tell a command's word from the
// value of a flag in front of it, it asks the commands that can still be meant whether the flag takes one.
func findCommand(root *urfave.Command, args []string) (path []*urfave.Command, isCommand map[int]bool) {
	path, isCommand = []*urfave.Command{root}, map[int]bool{}
	for i := 0; i < len(args) && args[i] != "--"; i++ {
		last := path[len(path)-1]
		name, _, attached := flagWord(args[i])
		if name == "" {
			sub := last.Command(args[i])
			if sub == nil {
				break // the first positional argument: what follows is no command
			}
			path, isCommand[i] = append(path, sub), true
			continue
		}
		flag := findFlag([]*urfave.Command{root, last}, name)
		if flag == nil {
			flag = flagBelow(last, name)
		}
		if flag != nil && takesValue(flag) && !attached {
			i++
		}
	}
	return path, isCommand
}

// flagBelow finds a flag of a command under cmd. Where they differ about it, one that takes a value goes first.
func flagBelow(cmd *urfave.Command, name string) (found urfave.Flag) {
	for _, sub := range cmd.Commands {
		for _, f := range []urfave.Flag{findFlag([]*urfave.Command{sub}, name), flagBelow(sub, name)} {
			if f != nil && (found == nil || takesValue(f)) {
				found = f
			}
		}
	}
	return found
}

// put notes a flag that takes a value.
func (w *words) put(name, value string) {
	if name == "jq" {
		w.jq, w.filters = value, true
		return
	}
	w.args = append(w.args, "--"+name+"="+value)
}

// flagWord takes a word apart; name is empty when it is no flag.
func flagWord(word string) (name, value string, attached bool) {
	dashes := len(word) - len(strings.TrimLeft(word, "-"))
	if dashes < 1 || dashes > 2 {
		return "", "", false
	}
	name, value, attached = strings.Cut(word[dashes:], "=")
	if name == "" || !letter(name[0]) || dashes == 1 && len(name) > 1 && !plainWord(name) {
		return "", "", false
	}
	return name, value, attached
}

func letter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

// plainWord keeps a text such as "-x marks the spot" from being taken for a flag.
func plainWord(s string) bool { return !strings.ContainsAny(s, " \t\n\r") }

func findFlag(path []*urfave.Command, name string) urfave.Flag {
	for i := len(path) - 1; i >= 0; i-- {
		for _, f := range path[i].Flags {
			for _, n := range f.Names() {
				if n == name {
					return f
				}
			}
		}
	}
	return nil
}

func isFlagOf(path []*urfave.Command, word string) bool {
	name, _, _ := flagWord(word)
	return name != "" && findFlag(path, name) != nil
}

func takesValue(f urfave.Flag) bool {
	_, boolean := f.(*urfave.BoolFlag)
	return !boolean
}

func unknownFlag(path []*urfave.Command, word, name string) error {
	e := &usageError{message: "unknown flag " + cleanLine(strings.SplitN(word, "=", 2)[0])}
	var names []string
	for _, c := range []*urfave.Command{path[0], path[len(path)-1]} {
		for _, f := range c.Flags {
			names = append(names, f.Names()...)
		}
	}
	if s := nearest(name, names); len(s) > 1 {
		e.hint = "did you mean --" + s + "?\n"
	} else if s != "" {
		e.hint = "did you mean -" + s + "?\n"
	}
	e.hint += "put -- before text that begins with a dash\nsee: " + commandPath(path) + " --help"
	return e
}

func commandPath(path []*urfave.Command) string {
	words := make([]string, len(path))
	for i, c := range path {
		words[i] = c.Name
	}
	return strings.Join(words, " ")
}
