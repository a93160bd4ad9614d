package cli

import (
	"context"
	"fmt"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/wire"
)

func fileVerb() verb {
	return verb{
		name: "file", short: "share files with the mesh, encrypted",
		long: `A file is encrypted by your daemon before it leaves this machine; the broker keeps what it cannot read, and its name, size, tags and
recipients. A file has at most 50 MiB.`,
		subs: []verb{fileShareVerb(), fileGetVerb(), fileListVerb(), fileStatusVerb(), fileGrantVerb(), fileDeleteVerb()},
	}
}

func fileListVerb() verb {
	return verb{
		name: "list", aliases: []string{"ls"}, args: "[PART OF A NAME]", short: "list the files you may have, newest first",
		long: `At most 100. --json prints an array of {id, name, size, tags, uploadedBy, uploadedAt, persistent, encrypted}; size is that of the stored
bytes, 40 more than the file's when it is encrypted, and uploadedBy a member id.`,
		examples: []string{"claudemesh file list", "claudemesh file list report --json"},
		fails:    []string{"4  the broker cannot be reached", "7  this session lacks the capability files"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 1, "claudemesh file list [PART OF A NAME]"); err != nil {
				return err
			}
			var got wire.FileList
			slug, err := c.askBroker(ctx, bus.CallListFiles, wire.ListFiles{Query: c.cmd.Args().First()}, &got)
			if err != nil {
				return err
			}
			if got.Files == nil {
				got.Files = []wire.FileInfo{}
			}
			return c.ui.result(got.Files, func() error {
				if err := c.ui.print("%s on %s", plural(len(got.Files), "file"), slug); err != nil {
					return err
				}
				for _, f := range got.Files {
					line := fmt.Sprintf("  %s  %s  %s  %s", cleanLine(f.ID), c.ui.paint(bold, cleanLine(f.Name)), byteSize(f.Size), c.ui.paint(dim, cleanLine(f.UploadedAt)))
					if len(f.Tags) > 0 {
						line += "  [" + cleanLine(strings.Join(f.Tags, ", ")) + "]"
					}
					if !f.Encrypted {
						line += "  not encrypted"
					}
					if !f.Persistent {
						line += "  kept for a day"
					}
					if err := c.ui.print("%s", line); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func fileStatusVerb() verb {
	return verb{
		name: "status", args: "ID", short: "show who asked for a file, newest first",
		long:     `--json prints an array of {peerName, accessedAt}; it is empty for a file that is not there or not for you.`,
		examples: []string{"claudemesh file status 8sJ2…"},
		fails:    []string{"4  the broker cannot be reached", "7  this session lacks the capability files"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh file status ID"); err != nil {
				return err
			}
			var got wire.FileStatusResult
			if _, err := c.askBroker(ctx, bus.CallFileStatus, wire.FileRef{FileID: c.args()[0]}, &got); err != nil {
				return err
			}
			if got.Accesses == nil {
				got.Accesses = []wire.FileAccess{}
			}
			return c.ui.result(got.Accesses, func() error {
				if len(got.Accesses) == 0 {
					return c.ui.print("nobody has asked for this file")
				}
				for _, a := range got.Accesses {
					if err := c.ui.print("  %s  %s", c.ui.paint(dim, cleanLine(a.AccessedAt)), cleanLine(a.PeerName)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func fileGrantVerb() verb {
	return verb{
		name: "grant", args: "ID --to PEER", short: "let one more member have a file of yours",
		long: `Seals the file's key for that member. Needed for members who joined after the file was shared, and for a file that was shared with
somebody else only.`,
		examples: []string{"claudemesh file grant 8sJ2… --to carol"},
		fails:    []string{"3  several peers are called that", "4  the broker cannot be reached", "5  no such file or peer", "6  the file is not encrypted", "7  it is not your file"},
		flags:    []urfave.Flag{&urfave.StringFlag{Name: "to", Usage: "the `PEER`: a name, or 16 to 64 hex digits of a key"}},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh file grant ID --to PEER"); err != nil {
				return err
			}
			to := c.cmd.String("to")
			if to == "" {
				return &usageError{message: "it is not said who may have the file", hint: "usage: claudemesh file grant ID --to PEER"}
			}
			var got bus.FileGranted
			err := c.onMesh(ctx, func(ctx context.Context, n *conn, slug string) error {
				return n.daemon(ctx, bus.OpFileGrant, bus.FileGrant{Mesh: slug, FileID: c.args()[0], To: to}, &got)
			})
			if err != nil {
				return err
			}
			return c.ui.result(map[string]any{"fileId": got.FileID, "to": to, "toKey": got.ToKey, "granted": true}, func() error {
				return c.ui.print("%s can have the file now: claudemesh file get %s", peerText(got.ToName, got.ToKey), cleanLine(got.FileID))
			})
		},
	}
}

// peerText names a peer for people.
func peerText(name, key string) string {
	if name = cleanLine(name); name != "" {
		return name
	}
	return short(key) + "…"
}

func fileDeleteVerb() verb {
	return verb{
		name: "delete", aliases: []string{"rm"}, args: "ID", short: "delete a file for everybody",
		long:     `Your own files; an administrator of the mesh may delete any.`,
		examples: []string{"claudemesh file delete 8sJ2…"},
		fails:    []string{"4  the broker cannot be reached", "5  no such file", "7  it is not your file, or this session lacks the capability files"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh file delete ID"); err != nil {
				return err
			}
			id := c.args()[0]
			var got wire.FileDeleted
			if _, err := c.askBroker(ctx, bus.CallDeleteFile, wire.FileRef{FileID: id}, &got); err != nil {
				return err
			}
			if got.Found != nil && !*got.Found { // a reference broker does not say
				return &bus.APIError{Code: 404, Reason: "no_file", Detail: "there is no file " + quoted(id)}
			}
			return c.ui.result(map[string]any{"id": id, "deleted": true}, func() error { return c.ui.print("deleted file %s", cleanLine(id)) })
		},
	}
}
