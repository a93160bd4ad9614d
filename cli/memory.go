package cli

import (
	"context"
	"strings"
	"unicode/utf8"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/wire"
)

func memoryVerb() verb {
	return verb{name: "memory", short: "what the mesh remembers", subs: []verb{rememberVerb(), recallVerb(), forgetVerb()}}
}

func rememberVerb() verb {
	return verb{
		name: "remember", args: "TEXT…\n-", short: "store a text that every member can find by its words",
		long:     `"-" reads TEXT from stdin. Up to 64 KiB. The broker can read it.`,
		examples: []string{`claudemesh remember "the staging database lives in Frankfurt" --tags infra,db`},
		fails:    []string{"3  the text is empty or over 64 KiB", "4  the broker cannot be reached", "6  the mesh remembers too much already", "7  this session may not"},
		flags:    []urfave.Flag{&urfave.StringFlag{Name: "tags", Usage: "`TAGS` to keep with it, separated by commas"}},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, -1, "claudemesh remember TEXT"); err != nil {
				return err
			}
			text, err := c.restText(0, wire.MaxMemory)
			if err != nil {
				return err
			}
			req := wire.Remember{Content: text, Tags: tagList(c.cmd.String("tags"))}
			switch {
			case strings.TrimSpace(text) == "":
				return usagef("there is nothing to remember: the text is empty")
			case !utf8.ValidString(text):
				return usagef("the text is not UTF-8")
			}
			if err := req.Validate(); err != nil {
				return usagef("%v", err)
			}
			var out wire.MemoryStored
			slug, err := c.askBroker(ctx, wire.TypeRemember, req, &out)
			if err != nil {
				return err
			}
			return c.ui.result(map[string]any{"id": out.ID, "content": text, "tags": req.Tags, "mesh": slug}, func() error { return c.ui.print("remembered as %s", cleanLine(out.ID)) })
		},
	}
}

// memoryJSON is a memory with its mesh.
type memoryJSON struct {
	wire.Memory
	Mesh string `json:"mesh"`
}

func recallVerb() verb {
	return verb{
		name: "recall", args: "WORDS…", short: "find memories by their words",
		long: `Finds the memories that hold all the words, by their English stem ("databases" finds "database"), best first, at most 20. --json
prints an array.`,
		examples: []string{"claudemesh recall staging database", "claudemesh recall deploy --json"},
		fails:    []string{"3  no words", "4  the broker cannot be reached", "7  this session may not"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, -1, "claudemesh recall WORDS"); err != nil {
				return err
			}
			req := wire.Recall{Query: strings.Join(c.args(), " ")}
			if err := req.Validate(); err != nil {
				return usagef("%v", err)
			}
			var out wire.MemoryResults
			slug, err := c.askBroker(ctx, wire.TypeRecall, req, &out)
			if err != nil {
				return err
			}
			all := []memoryJSON{}
			for _, m := range out.Memories {
				all = append(all, memoryJSON{m, slug})
			}
			if out.More {
				c.ui.note("more memories match than one answer holds; ask with more words")
			}
			return c.ui.result(all, func() error {
				if len(all) == 0 {
					return c.ui.print("no memories found")
				}
				for _, m := range all {
					if err := c.printMemory(m.Memory); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func (c *call) printMemory(m wire.Memory) error {
	head := c.ui.paint(bold, cleanLine(m.ID)) + "  " + c.ui.paint(dim, cleanLine(m.RememberedBy+", "+m.RememberedAt))
	if len(m.Tags) > 0 {
		head += "  [" + cleanLine(strings.Join(m.Tags, ", ")) + "]"
	}
	return c.ui.print("%s\n    %s", head, indent(clean(m.Content), "    "))
}

func forgetVerb() verb {
	return verb{
		name: "forget", args: "ID", short: "remove a memory",
		long:     `Your own, or any if you are an admin of the mesh. It is gone for good.`,
		examples: []string{"claudemesh forget 0zmxGRrNRfUekcdDX78QyTAUGjUWwd3c"},
		fails:    []string{"4  the broker cannot be reached", "5  there is no memory of that id", "7  it is another member's"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh forget ID"); err != nil {
				return err
			}
			id := c.args()[0]
			req := wire.Forget{MemoryID: id}
			if err := req.Validate(); err != nil {
				return usagef("%v", err)
			}
			var out wire.Ack
			slug, err := c.askBroker(ctx, wire.TypeForget, req, &out)
			if err != nil {
				return err
			}
			if out.Code == wire.CodeNotFound {
				return &failure{Code: "memory_not_found", Message: "there is no memory " + quoted(id), Hint: "recall prints the ids", Data: map[string]any{"id": id}, Exit: exitNotFound}
			}
			return c.ui.result(map[string]any{"id": id, "forgotten": true, "mesh": slug}, func() error { return c.ui.print("forgotten") })
		},
	}
}
