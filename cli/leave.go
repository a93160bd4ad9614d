package cli

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/mesh"
)

// The end of a membership, and the change of a mesh's name.

func renameVerb() verb {
	return verb{
		name: "rename", args: "OLD NEW", short: "give a mesh another slug",
		long: `Renames a mesh at its broker and here; only its owner may. Others keep the slug they joined it under. --local renames it on this machine
only, which everybody may. Sessions that run on the mesh are in the way: they end with it, or --force ends them. Messages, inbox and peers move along.`,
		examples: []string{"claudemesh rename team core-team", "claudemesh rename team-2 work --local"},
		fails:    []string{"3  NEW is no slug", "4  the broker cannot be reached", "5  OLD is not joined", "6  NEW is taken, or sessions run", "7  you are not the owner"},
		flags: []urfave.Flag{
			&urfave.BoolFlag{Name: "local", Usage: "on this machine only"},
			&urfave.BoolFlag{Name: "force", Usage: "end the sessions that run on it"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(2, 2, "claudemesh rename OLD NEW"); err != nil {
				return err
			}
			old, slug := c.args()[0], c.args()[1]
			if err := c.mustBeJoined(old); err != nil {
				return err
			}
			if !mesh.ValidSlug(slug) {
				return usagef("%s is no slug: 2 to 32 of a-z, 0-9 and -, not beginning with -", quoted(slug))
			}
			n, err := c.connect(ctx)
			if err != nil {
				return err
			}
			defer n.Close()
			var out bus.MeshRenamed
			req := bus.MeshRename{Mesh: old, Slug: slug, Local: c.cmd.Bool("local"), Force: c.cmd.Bool("force")}
			if err := n.whenOpen(ctx, c.clock, old, func() error { return n.daemon(ctx, bus.OpMeshRename, req, &out) }); err != nil {
				return err
			}
			return c.ui.result(struct {
				OK   bool   `json:"ok"`
				Slug string `json:"slug"`
				bus.MeshRenamed
			}{true, out.Mesh, out}, func() error {
				where := ""
				if out.Local {
					where = " on this machine"
				}
				return c.ui.print("mesh %s is called %s now%s", out.Was, out.Mesh, where)
			})
		},
	}
}

func leaveVerb() verb {
	return verb{
		name: "leave", args: "SLUG", short: "leave a mesh",
		long: `Ends your membership at the broker and removes the mesh from this machine: its sessions end, what waited to be sent fails with a reason,
inbox and outbox keep the history. You can join again by a new invite. The owner of a mesh cannot leave it, only delete it.
--local leaves the broker out: it goes on believing that you are a member, and the key that proves it is gone.`,
		examples: []string{"claudemesh leave team", "claudemesh leave team --local --yes"},
		fails:    []string{"3  --local without --yes, and nobody to ask", "4  the broker cannot be reached", "5  no such mesh is joined", "6  you are its owner"},
		flags:    []urfave.Flag{&urfave.BoolFlag{Name: "local", Usage: "on this machine only"}, yesFlag()},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh leave SLUG"); err != nil {
				return err
			}
			slug := c.args()[0]
			if err := c.mustBeJoined(slug); err != nil {
				return err
			}
			if c.cmd.Bool("local") {
				return c.leaveLocally(ctx, slug)
			}
			return c.endMembership(ctx, slug, bus.OpMeshLeave, bus.MeshLeave{Mesh: slug}, "left mesh")
		},
	}
}

func deleteVerb() verb {
	return verb{
		name: "delete", aliases: []string{"rm"}, args: "[SLUG]", short: "delete a mesh for everybody",
		long: `Deletes a mesh at its broker, with its members, messages, files and everything else that is kept there, and removes it here. Only its
owner may. On a terminal you are asked to type its slug; elsewhere --yes is needed. It cannot be undone.
--local only removes it from this machine, as leave --local does.`,
		examples: []string{"claudemesh delete team", "claudemesh delete team --yes --json"},
		fails:    []string{"1  not confirmed", "3  no --yes, and nobody to ask", "4  the broker cannot be reached", "5  no such mesh is joined", "7  you are not the owner"},
		flags:    []urfave.Flag{&urfave.BoolFlag{Name: "local", Usage: "on this machine only"}, yesFlag()},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 1, "claudemesh delete [SLUG]"); err != nil {
				return err
			}
			var slug string
			var err error
			if len(c.args()) == 1 {
				slug = c.args()[0]
				err = c.mustBeJoined(slug)
			} else {
				slug, err = c.mesh(ctx, true)
			}
			switch {
			case err != nil:
				return err
			case c.cmd.Bool("local"):
				return c.leaveLocally(ctx, slug)
			}
			if err := c.confirmWord("this deletes mesh "+slug+" for everybody, for good; type its slug to go on", slug); err != nil {
				return err
			}
			return c.endMembership(ctx, slug, bus.OpMeshDelete, bus.MeshDelete{Mesh: slug}, "deleted mesh")
		},
	}
}

// mustBeJoined is for verbs that name the mesh as an argument: a typing error starts no daemon.
func (c *call) mustBeJoined(slug string) error {
	joined, err := c.joined()
	if err == nil && !slices.Contains(joined, slug) {
		return &unknownMeshError{slug: slug, joined: joined}
	}
	return err
}

func (c *call) leaveLocally(ctx context.Context, slug string) error {
	if err := c.confirm("this removes the only copy of your key of mesh " + slug + "; if you own it, nobody can ever invite, rename or delete: do it?"); err != nil {
		return err
	}
	return c.endMembership(ctx, slug, bus.OpMeshLeave, bus.MeshLeave{Mesh: slug, Local: true}, "removed from this machine: mesh")
}

func (c *call) endMembership(ctx context.Context, slug, op string, req any, done string) error {
	n, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer n.Close()
	var out bus.MeshLeft
	if err := n.whenOpen(ctx, c.clock, slug, func() error { return n.daemon(ctx, op, req, &out) }); err != nil {
		return err
	}
	return c.ui.result(struct {
		OK   bool   `json:"ok"`
		Slug string `json:"slug"`
		bus.MeshLeft
	}{true, slug, out}, func() error {
		if err := c.ui.print("%s %s", done, slug); err != nil {
			return err
		}
		if out.Sessions > 0 {
			c.ui.note("%s ended", plural(out.Sessions, "session"))
		}
		if out.Unsent > 0 {
			c.ui.note("%s will not be sent; see: claudemesh daemon outbox list --failed", plural(out.Unsent, "message"))
		}
		if out.Note != "" {
			c.ui.note("%s", cleanLine(out.Note))
		}
		return nil
	})
}

// confirmWord has the user type a word, unless --yes was given.
func (c *call) confirmWord(question, word string) error {
	if c.cmd.Bool("yes") {
		return nil
	}
	if c.ui.json || !terminal(c.stdin) || !terminal(c.stderr) {
		return &usageError{message: "this cannot be undone, and there is nobody to ask", hint: "say that you mean it with --yes"}
	}
	fmt.Fprintf(c.stderr, "%s: ", question)
	line, err := bufio.NewReader(c.stdin).ReadString('\n')
	if strings.TrimSpace(line) != word || err != nil {
		return errCancelled
	}
	return nil
}
