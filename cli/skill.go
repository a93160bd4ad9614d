package cli

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/mcp/skilltext"
	"claudemesh/wire"
)

// bundledSkill teaches a model to use claudemesh.
//
//go:embed skill/SKILL.md
var bundledSkill string

func skillVerb() verb {
	return verb{
		name: "skill", short: "skills that members share; alone it prints the one about claudemesh itself",
		long: `A skill is a text that teaches a model to do something: a SKILL.md with a name and a description in front. Without a further word it
prints the one that teaches claudemesh, to be put where your client looks for skills.`,
		examples: []string{"claudemesh skill > ~/.claude/skills/claudemesh/SKILL.md", "claudemesh skill list"},
		fails:    []string{"3  no such subcommand"},
		subs:     []verb{skillListVerb(), skillGetVerb(), skillPublishVerb(), skillRemoveVerb()},
		run: func(_ context.Context, c *call) error {
			if word := c.cmd.Args().First(); word != "" {
				return c.unknownCommand(word)
			}
			s, err := parseSkill(bundledSkill)
			if err != nil {
				return err
			}
			return c.ui.result(s, func() error { return c.ui.print("%s", strings.TrimSuffix(bundledSkill, "\n")) })
		},
	}
}

// skillJSON is a row of the list with its mesh.
type skillJSON struct {
	wire.SkillEntry
	Mesh string `json:"mesh"`
}

func skillListVerb() verb {
	return verb{
		name: "list", aliases: []string{"ls"}, args: "[QUERY]", short: "list the skills of a mesh",
		long:     `With QUERY only those whose name, description or tags hold that text.`,
		examples: []string{"claudemesh skill list review --json"},
		fails:    []string{"4  the broker cannot be reached", "5  no such mesh"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 1, "claudemesh skill list [QUERY]"); err != nil {
				return err
			}
			all := []skillJSON{}
			err := c.onMesh(ctx, func(ctx context.Context, n *conn, slug string) error {
				all = []skillJSON{}
				for req := (wire.ListSkills{Query: c.cmd.Args().First(), Page: wire.Page{Paged: true}}); ; {
					var out wire.SkillList
					if err := n.broker(ctx, slug, wire.TypeListSkills, req, &out); err != nil {
						return err
					}
					for _, s := range out.Skills {
						all = append(all, skillJSON{s, slug})
						req.After = s.Name
					}
					if !out.More || len(out.Skills) == 0 {
						return nil
					}
				}
			})
			if err != nil {
				return err
			}
			return c.ui.result(all, func() error {
				if len(all) == 0 {
					return c.ui.print("no skills found")
				}
				for _, s := range all {
					line := c.ui.paint(bold, cleanLine(s.Name)) + "  by " + cleanLine(s.Author)
					if len(s.Tags) > 0 {
						line += "  [" + cleanLine(strings.Join(s.Tags, ", ")) + "]"
					}
					if err := c.ui.print("%s\n    %s", line, brief(s.Description)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func skillGetVerb() verb {
	return verb{
		name: "get", args: "NAME", short: "print a skill as a SKILL.md",
		long:     `It was written by a member of the mesh, not by you: read it before you let a model follow it.`,
		examples: []string{"claudemesh skill get review > .claude/skills/review/SKILL.md"},
		fails:    []string{"4  the broker cannot be reached", "5  no such skill or mesh"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh skill get NAME"); err != nil {
				return err
			}
			name := c.args()[0]
			var out wire.SkillData
			slug, err := c.askBroker(ctx, wire.TypeGetSkill, wire.GetSkill{Name: name}, &out)
			if err != nil {
				return err
			}
			if out.Skill == nil {
				return noSkill(name)
			}
			return c.ui.result(struct {
				*wire.Skill
				Mesh string `json:"mesh"`
			}{out.Skill, slug}, func() error {
				text, err := skilltext.Format(out.Skill)
				if err != nil {
					return err
				}
				return c.ui.print("%s", c.forOutput(strings.TrimSuffix(text, "\n")))
			})
		},
	}
}

func skillPublishVerb() verb {
	return verb{
		name: "publish", aliases: []string{"share"}, args: "DIR|FILE|-", short: "share a skill with the mesh",
		long: `Reads a directory's SKILL.md, a file, or stdin: text with name, description and perhaps tags in front, between two lines "---".
The flags replace what is in front. Other files of the directory are not shared. A skill of the name is replaced if it is yours, or you are an admin.`,
		examples: []string{"claudemesh skill publish ~/.claude/skills/review", "claudemesh skill publish notes.md --name notes --description 'how we write notes'"},
		fails: []string{
			"3  name, description or text are missing or too long", "4  the broker cannot be reached", "6  the mesh has too many skills", "7  the skill of that name is another member's",
			"10  the file cannot be read",
		},
		flags: []urfave.Flag{
			&urfave.StringFlag{Name: "name", Usage: "its `NAME`"},
			&urfave.StringFlag{Name: "description", Usage: "what it is for: `TEXT`"},
			&urfave.StringFlag{Name: "tags", Usage: "`TAGS`, separated by commas"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh skill publish DIR|FILE|-"); err != nil {
				return err
			}
			s, err := c.readSkill(c.args()[0])
			if err != nil {
				return err
			}
			if c.cmd.IsSet("tags") {
				s.Tags = tagList(c.cmd.String("tags"))
			}
			if v := c.cmd.String("name"); v != "" {
				s.Name = v
			}
			if v := c.cmd.String("description"); v != "" {
				s.Description = v
			}
			req := wire.ShareSkill{Name: s.Name, Description: s.Description, Instructions: s.Instructions, Tags: s.Tags, Manifest: s.Manifest}
			if err := req.Validate(); err != nil {
				return &usageError{message: "the skill cannot be shared: " + strings.TrimPrefix(err.Error(), "invalid frame: "), hint: "see: claudemesh skill publish --help"}
			}
			var out wire.SkillAck
			slug, err := c.askBroker(ctx, wire.TypeShareSkill, req, &out)
			if err != nil {
				return err
			}
			return c.ui.result(map[string]any{"name": out.Name, "action": out.Action, "mesh": slug}, func() error {
				return c.ui.print("%s is shared with %s", cleanLine(out.Name), slug)
			})
		},
	}
}

// maxSkillFile bounds what publish reads: the instructions and what is in front of them.
const maxSkillFile = wire.MaxSkillInstructions + wire.MaxSkillManifest

// readSkill reads a skill from a directory, a file or stdin.
func (c *call) readSkill(path string) (skillText, error) {
	if path == "-" {
		text, err := readAtMost(c.stdin, "stdin", maxSkillFile)
		if err != nil {
			return skillText{}, err
		}
		return parseSkill(text)
	}
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		c.leftOut(path)
		path = filepath.Join(path, "SKILL.md")
		info, err = os.Stat(path)
	}
	if err != nil {
		return skillText{}, fmt.Errorf("read skill: %w", err)
	}
	if !info.Mode().IsRegular() {
		return skillText{}, usagef("%s is neither a file nor a directory", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return skillText{}, fmt.Errorf("read skill: %w", err)
	}
	defer f.Close()
	text, err := readAtMost(f, path, maxSkillFile)
	if err != nil {
		return skillText{}, err
	}
	return parseSkill(text)
}

// leftOut says that a skill's directory holds more than is shared. It looks no further than the directory itself.
func (c *call) leftOut(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return // the reading of SKILL.md says why
	}
	for _, e := range entries {
		if e.Name() != "SKILL.md" && !strings.HasPrefix(e.Name(), ".") {
			c.ui.warn("only SKILL.md is shared, not %s", cleanLine(e.Name()))
			return
		}
	}
}

func skillRemoveVerb() verb {
	return verb{
		name: "remove", aliases: []string{"rm"}, args: "NAME", short: "remove a skill from the mesh",
		long:     `Your own, or any if you are an admin of the mesh.`,
		examples: []string{"claudemesh skill remove review"},
		fails:    []string{"4  the broker cannot be reached", "5  no such skill or mesh", "7  it is another member's"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh skill remove NAME"); err != nil {
				return err
			}
			name := c.args()[0]
			var out wire.SkillAck
			slug, err := c.askBroker(ctx, wire.TypeRemoveSkill, wire.RemoveSkill{Name: name}, &out)
			if err != nil {
				return err
			}
			if out.Action == wire.ActionNotFound {
				return noSkill(name)
			}
			return c.ui.result(map[string]any{"name": name, "removed": true, "mesh": slug}, func() error { return c.ui.print("%s is removed", cleanLine(name)) })
		},
	}
}

func noSkill(name string) error {
	return &failure{Code: "skill_not_found", Message: "there is no skill " + quoted(name), Hint: "see: claudemesh skill list", Data: map[string]any{"name": name}, Exit: exitNotFound}
}

// skillText is a SKILL.md taken apart.
type skillText struct {
	Name         string          `json:"name"`
	Description  string          `json:"description"`
	Tags         []string        `json:"tags,omitempty"`
	Instructions string          `json:"instructions"`
	Manifest     json.RawMessage `json:"manifest,omitempty"` // what else is in front
}
