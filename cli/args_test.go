package cli

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func testApp() *app { return &app{env: hostEnv(nil)} }

func TestArguments(t *testing.T) {
	tests := []struct {
		name string
		in   string // words separated by |
		want string
		json bool
	}{
		{"flags before the verb", "--json|--mesh|team|send|bob|hi", "send|--mesh=team|--|bob|hi", true},
		{"a verb's own flag before the verb", "--priority|now|send|bob|hi", "send|--priority=now|--|bob|hi", false},
		{"a verb's own flag between group and verb", "message|--priority|now|send|bob|hi", "message|send|--priority=now|--|bob|hi", false},
		{"a verb's boolean before the verb", "--unread|inbox", "inbox|--unread=true", false},
		{"a value that reads like a verb", "--name|send|session|run|sh", "session|run|--name=send|--|sh", false},
		{"a group's flag in front of its verb is the verb's", "daemon|outbox|--pending|list", "daemon|outbox|list|--pending=true", false},
		{"a flag given twice", "send|bob|hi|--priority|now|--priority=low", "send|--priority=now|--priority=low|--|bob|hi", false},
		{"flags between and after positionals", "send|bob|--mesh=team|hi|there|--json", "send|--mesh=team|--|bob|hi|there", true},
		{"a boolean takes no word", "peer|list|--all|x", "peer|list|--all=true|--|x", false},
		{"a boolean with a value", "inbox|--unread=false", "inbox|--unread=false", false},
		{"two dashes end the flags", "send|bob|--|--json", "send|--|bob|--json", false},
		{"everything after two dashes belongs to the command", "session|run|--name|a|--|sh|-c|x|--json|--", "session|run|--name=a|--|sh|-c|x|--json|--", false},
		{"a list item is text, and flags behind it are flags", "send|bob|- item|--json", "send|--|bob|- item", true},
		{"a negative number is text", "send|bob|-5|--json", "send|--|bob|-5", true},
		{"a sentence that begins like a flag is text", "send|bob|-x marks it", "send|--|bob|-x marks it", false},
		{"a lone dash is text", "send|bob|-", "send|--|bob|-", false},
		{"three dashes are text", "send|bob|---", "send|--|bob|---", false},
		{"a value may begin with a dash when it is no flag", "send|bob|hi|--reply-to|-5", "send|--reply-to=-5|--|bob|hi", false},
		{"an empty value", "send|bob|hi|--reply-to=", "send|--reply-to=|--|bob|hi", false},
		{"a value with an equals sign", "create|x|--broker=ws://a?b=c", "create|--broker=ws://a?b=c|--|x", false},
		{"a verb's name as text", "send|help|send", "send|--|help|send", false},
		{"json can be taken back", "peers|--json=false", "peers", false},
		{"a long flag with one dash", "send|bob|hi|-priority|now", "send|--priority=now|--|bob|hi", false},
		{"a short flag", "-V", "--V=true", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, err := canonical(testApp().tree(), strings.Split(tt.in, "|"))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(w.args, "|"); got != tt.want || w.json != tt.json {
				t.Errorf("got %s (json %v), want %s (json %v)", got, w.json, tt.want, tt.json)
			}
		})
	}

	refused := []struct {
		name, in, message, hint string
		json                    bool
	}{
		{"an unknown flag, with the nearest one", "send|bob|hi|--priorty|now", "unknown flag --priorty", "--priority", false},
		{"an unknown flag, as JSON when that is wanted later", "send|bob|hi|--frob|--json", "unknown flag --frob", "--help", true},
		{"a flag of the group that the verb does not have", "daemon|outbox|requeue|id|--pending", "unknown flag --pending", "", false},
		{"another verb's flag before the verb", "--uses|3|inbox", "unknown flag --uses", "", false},
		{"another verb's flag", "inbox|--uses|3", "unknown flag --uses", "", false},
		{"an unknown short flag", "send|-x", "unknown flag -x", "", false},
		{"an unknown long flag with one dash", "send|-priorty|now", "unknown flag -priorty", "--priority", false},
		{"a value that is missing", "send|bob|hi|--mesh", "flag --mesh needs a value", "", false},
		{"a flag where a value belongs", "send|bob|hi|--mesh|--json", "flag --mesh needs a value", "", true},
		{"the end of flags where a value belongs", "session|run|--name|--|sh", "flag --name needs a value", "", false},
	}
	for _, tt := range refused {
		t.Run("refuses "+tt.name, func(t *testing.T) {
			w, err := canonical(testApp().tree(), strings.Split(tt.in, "|"))
			var usage *usageError
			if !errors.As(err, &usage) || usage.message != tt.message || !strings.Contains(usage.hint, tt.hint) || w.json != tt.json {
				t.Errorf("got %v (%+v), json %v", err, usage, w.json)
			}
		})
	}

	t.Run("an expression of --jq", func(t *testing.T) {
		for _, in := range []string{"peers|--jq|.[0]", "--jq=.[0]|peers", "peers|-jq|.[0]"} {
			w, err := canonical(testApp().tree(), strings.Split(in, "|"))
			if err != nil || !w.filters || w.jq != ".[0]" || strings.Join(w.args, "|") != "peers" {
				t.Errorf("%s: got %+v, %v", in, w, err)
			}
		}
	})

	t.Run("fields of --json", func(t *testing.T) {
		w, err := canonical(testApp().tree(), []string{"peers", "--json=name,status"})
		if err != nil || !w.json || w.fields != "name,status" {
			t.Errorf("got %+v, %v", w, err)
		}
	})
}

func FuzzArguments(f *testing.F) {
	f.Add("send|bob|--json|-|--|x")
	f.Add("--mesh|--|peers|-x=|--=|-")
	f.Fuzz(func(t *testing.T, in string) {
		words := strings.Split(in, "|")
		w, err := canonical(testApp().tree(), words)
		if err != nil {
			return
		}
		// Every word that came out was put in, whole; behind "--" nothing was touched.
		if i := slices.Index(words, "--"); i >= 0 {
			rest := words[i+1:]
			if len(rest) > 0 && !slices.Equal(w.args[len(w.args)-len(rest):], rest) {
				t.Fatalf("%q became %q", words, w.args)
			}
		}
	})
}

func FuzzCompletion(f *testing.F) {
	f.Add("send|--priority|now|bob", "--wa")
	f.Add("--json|help|topic", "'")
	f.Add("--mesh|=", "--mesh=")
	f.Fuzz(func(t *testing.T, before, current string) {
		a := &app{env: hostEnv(nil)}
		a.getenv = func(string) string { return "" } // no home: neither config nor daemon
		a.root = a.tree()
		c := &completer{call: &call{app: a, cmd: a.root}, before: strings.Split(before, "|"), current: unquoted(current)}
		for _, found := range c.find(t.Context()) {
			if !strings.HasPrefix(found.Word, c.current) || strings.ContainsAny(found.Word+found.What, "\t\n\x1b") {
				t.Fatalf("%q, %q: offers %q", before, current, found)
			}
		}
	})
}
