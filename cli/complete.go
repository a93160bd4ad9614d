package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v3"
)

// What can stand at the cursor follows from what the help says: a verb's args and a flag's value name what belongs there (SLUG, PEER, TOPIC, yes|no), and
// this file knows where to find those.

// Limits of a completion: somebody has pressed a key and waits.
const (
	completeLimit  = 400 * time.Millisecond
	completeMeshes = 4 // of which peers are asked for, when none is named
)

type candidate struct {
	Word string `json:"word"`
	What string `json:"what"`
}

type completer struct {
	*call
	before  []string // words in front of the cursor
	current string   // as much of the word as is typed
}

// find lists the candidates that begin with what is typed.
func (c *completer) find(ctx context.Context) []candidate {
	found := []candidate{}
	for _, f := range c.candidates(ctx) {
		// A word that would not stay what it is on a terminal is not put on somebody's command line.
		if strings.HasPrefix(f.Word, c.current) && f.Word == cleanLine(f.Word) && f.Word != "" && !slices.ContainsFunc(found, func(o candidate) bool { return o.Word == f.Word }) {
			found = append(found, candidate{f.Word, cleanLine(f.What)})
		}
	}
	return found
}

func (c *completer) candidates(ctx context.Context) []candidate {
	if slices.Contains(c.before, "--") {
		return nil // what stands behind it is text, or another program's
	}
	root := c.root
	path, isCommand := findCommand(root, c.before)
	cmd := path[len(path)-1]
	known := []*urfave.Command{root, cmd}
	name, _, attached := flagWord(c.current)
	if strings.HasPrefix(c.current, "-") && !attached {
		return c.flagNames(cmd)
	}
	if attached {
		return prefixed("--"+name+"=", c.values(ctx, c.flagValue(cmd, name)))
	}
	positionals := 0
	for i := 0; i < len(c.before); i++ {
		name, _, attached := flagWord(c.before[i])
		flag := findFlag(known, name)
		switch {
		case name != "" && flag != nil && takesValue(flag) && !attached:
			if i++; i == len(c.before) {
				return c.values(ctx, c.flagValue(cmd, name))
			}
		case name == "" && !isCommand[i]:
			positionals++
		}
	}
	var out []candidate
	if positionals == 0 {
		out = c.commands(cmd)
	}
	v := verbOf(cmd)
	if v.run == nil {
		return out
	}
	if v.name == "help" {
		return c.helpTopics()
	}
	return append(out, c.values(ctx, argument(v.args, positionals))...)
}

// prefixed puts a flag's name in front of its values, as they stand on the line.
func prefixed(head string, values []candidate) []candidate {
	for i := range values {
		values[i].Word = head + values[i].Word
	}
	return values
}

func (c *completer) commands(cmd *urfave.Command) []candidate {
	var out []candidate
	for _, sub := range cmd.Commands {
		if sub.Hidden {
			continue
		}
		// An alias is for those who know it: it is offered when nothing else fits what is typed.
		for i, name := range sub.Names() {
			if i == 0 || c.current != "" && strings.HasPrefix(name, c.current) && !strings.HasPrefix(sub.Name, c.current) {
				out = append(out, candidate{name, sub.Usage})
			}
		}
	}
	return out
}

// helpTopics are the commands that help explains, behind those words of it that stand already.
func (c *completer) helpTopics() []candidate {
	cmd, asked := c.root, false
	for _, word := range c.before {
		sub := cmd.Command(word)
		switch {
		case !asked:
			asked = sub != nil // help itself
		case sub != nil:
			cmd = sub
		}
	}
	return c.commands(cmd)
}

// flagNames lists the flags that are not given yet.
func (c *completer) flagNames(cmd *urfave.Command) []candidate {
	var out []candidate
	for _, f := range flagsOf(c.root, cmd) {
		given := slices.ContainsFunc(c.before, func(w string) bool { name, _, _ := flagWord(w); return name == f.Name })
		if !given {
			out = append(out, candidate{"--" + f.Name, f.Usage})
		}
	}
	return out
}

// flagValue is what the help calls the value of a flag.
func (c *completer) flagValue(cmd *urfave.Command, name string) string {
	for _, f := range flagsOf(c.root, cmd) {
		if f.Name == name || slices.Contains(f.Aliases, name) {
			return f.Value
		}
	}
	return ""
}

// argument is what the help calls the nth positional argument. The last one of a form that goes on ("CAPABILITY…") stands for all behind it.
func argument(args string, n int) string {
	for _, form := range strings.Split(args, "\n") {
		words := strings.Fields(form)
		switch {
		case n < len(words) && !strings.HasPrefix(words[n], "-"):
			return strings.Trim(words[n], "[]")
		case len(words) > 0 && n >= len(words) && strings.HasSuffix(strings.Trim(words[len(words)-1], "[]"), "…"):
			return strings.Trim(words[len(words)-1], "[]")
		}
	}
	return ""
}

// isChoice reports whether the help lists the values themselves: now|next|low.
func isChoice(what string) bool {
	return strings.Contains(what, "|") && strings.Trim(what, "abcdefghijklmnopqrstuvwxyz0123456789-|") == ""
}

// values lists what can stand where the help says what.
func (c *completer) values(ctx context.Context, what string) []candidate {
	if isChoice(what) {
		var out []candidate
		for _, w := range strings.Split(what, "|") {
			out = append(out, candidate{w, ""})
		}
		return out
	}
	switch strings.TrimSuffix(what, "…") {
	case "SLUG", "MESH", "OLD":
		return c.meshWords()
	case "PEER", "MEMBER":
		return c.peerWords(ctx, false)
	case "TO":
		return c.peerWords(ctx, true)
	case "TOPIC":
		return c.topicWords(ctx, "")
	case "SESSION":
		return c.sessionWords(ctx)
	case "CAPABILITY":
		return c.capabilityWords()
	}
	return nil
}

// unquoted is a word as the shell will hand it over, as far as it is typed.
func unquoted(s string) string {
	if strings.HasPrefix(s, `"`) || strings.HasPrefix(s, "'") {
		return strings.TrimRight(s[1:], s[:1])
	}
	return strings.ReplaceAll(s, `\`, "")
}
