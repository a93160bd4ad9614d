package cli

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/cli/claudeconf"
	"claudemesh/mcp/skilltext"
	"claudemesh/wire"
)

// What the bundled skill shows must be there: a model believes it.
func TestTheBundledSkillNamesOnlyWhatExists(t *testing.T) {
	s, err := parseSkill(bundledSkill)
	if err != nil {
		t.Fatal(err)
	}
	if err := (wire.ShareSkill{Name: s.Name, Description: s.Description, Instructions: s.Instructions, Tags: s.Tags}).Validate(); err != nil {
		t.Error(err)
	}
	e := hostEnv(nil)
	e.stdout, e.stderr = &bytes.Buffer{}, &bytes.Buffer{}
	root := (&app{env: e}).tree()
	shown := regexp.MustCompile("(?m)(?:^    |`|\\$\\()claudemesh ([^`\n]*)").FindAllStringSubmatch(bundledSkill, -1)
	if len(shown) < 25 {
		t.Fatalf("only %d commands found", len(shown))
	}
	for _, m := range shown {
		at, path := root, []*urfave.Command{root}
		for _, word := range strings.Fields(m[1]) {
			if word == "VERB" || word == "--" {
				break
			}
			if flag, ok := strings.CutPrefix(word, "--"); ok {
				if findFlag(path, flag) == nil {
					t.Errorf("claudemesh %s: no flag %s", m[1], word)
				}
				continue
			}
			if len(at.Commands) == 0 {
				continue
			}
			next := at.Command(word)
			if v, ok := at.Metadata[verbKey].(verb); ok && next == nil && v.run != nil {
				continue // an argument of a verb that is a group as well
			}
			if next == nil {
				t.Errorf("claudemesh %s: no command %q in %s", m[1], word, at.Name)
				break
			}
			at = next
			path = append(path, at)
		}
	}
}

func TestASkillIsReadAsItIsWritten(t *testing.T) {
	for _, s := range []wire.Skill{
		{SkillEntry: wire.SkillEntry{Name: "plain", Description: "one line"}, Instructions: "do it\n"},
		{SkillEntry: wire.SkillEntry{Name: "odd: name", Description: "a\nb: c # d", Tags: []string{"x", "1"}}, Instructions: "---\nnot the end\n---\n", Manifest: []byte(`{"a":{"b":[1,"2"]}}`)},
		{SkillEntry: wire.SkillEntry{Name: "true", Description: "null"}, Instructions: "x\n", Manifest: []byte(`null`)},
	} {
		t.Run(s.Name, func(t *testing.T) {
			text, err := skilltext.Format(&s)
			if err != nil {
				t.Fatal(err)
			}
			got, err := parseSkill(text)
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			manifest := string(s.Manifest)
			if manifest == "null" {
				manifest = ""
			}
			if got.Name != s.Name || got.Description != s.Description || strings.Join(got.Tags, ",") != strings.Join(s.Tags, ",") || got.Instructions != s.Instructions || string(got.Manifest) != manifest {
				t.Errorf("%+v\n%s", got, text)
			}
		})
	}
}

// A rule for a command that does not exist would be one that the user grants for nothing.
func TestPermissionRulesNameCommandsThatExist(t *testing.T) {
	e := hostEnv(nil)
	e.stdout, e.stderr = &bytes.Buffer{}, &bytes.Buffer{}
	for _, rule := range claudeconf.Rules() {
		words, begins := strings.CutPrefix(rule, "Bash(claudemesh ")
		words, ends := strings.CutSuffix(words, ":*)")
		if !begins || !ends {
			t.Errorf("%s is not of the form Bash(claudemesh VERB:*)", rule)
		}
		at := (&app{env: e}).tree()
		for _, word := range strings.Fields(words) {
			if at = at.Command(word); at == nil {
				t.Errorf("%s: there is no such command", rule)
				break
			}
		}
	}
}
