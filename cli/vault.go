package cli

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

func vaultVerb() verb {
	return verb{
		name: "vault", short: "your own secrets, kept on the mesh",
		long: `Entries are encrypted by your daemon and can be opened with your member key only: no other member sees them, and the broker cannot read
them. They are there on every machine that has joined with this key.`,
		subs: []verb{vaultSetVerb(), vaultGetVerb(), vaultListVerb(), vaultDeleteVerb()},
	}
}

func vaultSetVerb() verb {
	return verb{
		name: "set", args: "KEY -\nKEY VALUE\nKEY --value-file FILE", short: "store a secret",
		long: `"-" reads the value from stdin: of an entry of type env one newline at the end is dropped, of one of type file nothing. --value-file
stores a file's bytes as they are. A VALUE on the command line can be seen by others in the list of processes and stays in the shell's history.
An entry of the same key is replaced. A value has at most 128 KiB.`,
		examples: []string{"pass show api | claudemesh vault set API_TOKEN -", "claudemesh vault set tls-key --type file --mount /etc/tls/key.pem --value-file key.pem"},
		fails:    []string{"3  the value is missing or too large", "4  the broker cannot be reached", "7  this session lacks the capability vault"},
		flags: []urfave.Flag{
			&urfave.StringFlag{Name: "type", Value: wire.VaultEnv, Usage: "`env|file`: a variable (default) or a file"},
			&urfave.StringFlag{Name: "mount", Usage: "the `PATH` where a file belongs; kept as a note, nothing is written there"},
			&urfave.StringFlag{Name: "description", Usage: "a `TEXT` that the broker can read"},
			&urfave.StringFlag{Name: "value-file", Usage: "store what is in `FILE`"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 2, "claudemesh vault set KEY -"); err != nil {
				return err
			}
			req := bus.VaultSet{Key: c.args()[0], Type: c.cmd.String("type"), Mount: c.cmd.String("mount"), Description: c.cmd.String("description")}
			if req.Type != wire.VaultEnv && req.Type != wire.VaultFile {
				return usagef("--type is env or file")
			}
			if err := wire.ValidVaultKey(req.Key); err != nil {
				return usagef("KEY is plain text of 1 to %d bytes", wire.MaxVaultKeyBytes)
			}
			stdin := c.cmd.Args().Get(1) == "-"
			slug, err := c.mesh(ctx, !stdin)
			if err != nil {
				return err
			}
			if req.Value, err = c.secretValue(req.Type); err != nil {
				return err
			}
			req.Mesh = slug
			n, err := c.connect(ctx)
			if err != nil {
				return err
			}
			defer n.Close()
			if err := n.whenOpen(ctx, c.clock, slug, func() error { return n.daemon(ctx, bus.OpVaultSet, req, nil) }); err != nil {
				return err
			}
			return c.ui.result(map[string]any{"key": req.Key, "stored": true, "mesh": slug}, func() error {
				return c.ui.print("stored %s in your vault on %s (%s)", cleanLine(req.Key), slug, byteSize(int64(len(req.Value))))
			})
		},
	}
}

// secretValue reads the value from where the arguments say.
func (c *call) secretValue(kind string) ([]byte, error) {
	path, given := c.cmd.String("value-file"), c.cmd.Args().Len() == 2
	var value []byte
	switch {
	case given == c.cmd.IsSet("value-file"):
		return nil, &usageError{message: "the value comes from one place", hint: `"-" reads stdin, --value-file FILE a file`}
	case !given:
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read value: %w", err)
		}
		defer f.Close()
		if value, err = io.ReadAll(io.LimitReader(f, mesh.MaxVaultValue+1)); err != nil {
			return nil, fmt.Errorf("read value: %w", err)
		}
	case c.args()[1] == "-":
		var err error
		if value, err = io.ReadAll(io.LimitReader(c.stdin, mesh.MaxVaultValue+2)); err != nil {
			return nil, fmt.Errorf("read stdin: %w", err)
		}
		if kind == wire.VaultEnv {
			value = []byte(strings.TrimSuffix(strings.TrimSuffix(string(value), "\n"), "\r"))
		}
	default:
		value = []byte(c.args()[1])
		if !c.ui.json {
			c.ui.warn("the value was on the command line, where other users of this machine can see it; give it on stdin instead: claudemesh vault set KEY -")
		}
	}
	switch {
	case len(value) == 0:
		return nil, usagef("the value is empty")
	case len(value) > mesh.MaxVaultValue:
		return nil, &usageError{message: fmt.Sprintf("the value is longer than the limit of %d bytes", mesh.MaxVaultValue), hint: "share it as a file instead: claudemesh file share"}
	}
	return value, nil
}

func vaultGetVerb() verb {
	return verb{
		name: "get", args: "KEY", short: "print a secret, or write it to a file",
		long: `Prints the value and a newline; --raw leaves the newline out. --out writes it to a file that only you may read. With --json a value that
is not UTF-8 is in value_base64.`,
		examples: []string{`export API_TOKEN="$(claudemesh vault get API_TOKEN)"`, "claudemesh vault get tls-key --out key.pem"},
		fails:    []string{"4  the broker cannot be reached", "5  no such entry", "6  the entry cannot be opened with this key, or the file exists", "7  this session lacks the capability vault"},
		flags: []urfave.Flag{
			&urfave.BoolFlag{Name: "raw", Usage: "no newline after the value"},
			&urfave.StringFlag{Name: "out", Usage: "write it to `FILE` (mode 0600)"},
			&urfave.BoolFlag{Name: "force", Usage: "replace a file that exists"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh vault get KEY"); err != nil {
				return err
			}
			var got bus.VaultValue
			err := c.onMesh(ctx, func(ctx context.Context, n *conn, slug string) error {
				return n.daemon(ctx, bus.OpVaultGet, bus.VaultGet{Mesh: slug, Key: c.args()[0]}, &got)
			})
			if err != nil {
				return err
			}
			if got.Readable && !c.ui.json {
				c.ui.warn("an old client stored this entry without encryption: the broker could read it; set it again, and change the secret")
			}
			if out := c.cmd.String("out"); out != "" {
				return c.writeSecret(out, got)
			}
			if c.ui.json {
				return c.ui.printJSON(vaultJSON(got), false)
			}
			if !c.cmd.Bool("raw") {
				got.Value = append(got.Value, '\n')
			}
			_, err = c.stdout.Write(got.Value)
			return err
		},
	}
}

func vaultJSON(v bus.VaultValue) map[string]any {
	out := map[string]any{"key": v.Key, "entry_type": v.Type, "mount_path": nilIfEmpty(v.Mount), "encrypted": !v.Readable}
	if utf8.Valid(v.Value) {
		out["value"] = string(v.Value)
	} else {
		out["value_base64"] = base64.StdEncoding.EncodeToString(v.Value)
	}
	return out
}

func nilIfEmpty(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (c *call) writeSecret(path string, v bus.VaultValue) error {
	f, err := newFile(path, c.cmd.Bool("force"))
	if err != nil {
		return err
	}
	_, err = f.Write(v.Value)
	if err := f.finish(err); err != nil {
		return err
	}
	return c.ui.result(map[string]any{"key": v.Key, "savedTo": path, "sizeBytes": len(v.Value)}, func() error {
		return c.ui.print("wrote %s to %s", cleanLine(v.Key), cleanLine(path))
	})
}

func vaultListVerb() verb {
	return verb{
		name: "list", aliases: []string{"ls"}, args: "", short: "list your secrets, without their values",
		long:     `--json prints an array of {key, entry_type, mount_path, description, updated_at}.`,
		examples: []string{"claudemesh vault list"},
		fails:    []string{"4  the broker cannot be reached", "7  this session lacks the capability vault"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh vault list"); err != nil {
				return err
			}
			var got wire.VaultListResult
			slug, err := c.askBroker(ctx, bus.CallVaultList, struct{}{}, &got)
			if err != nil {
				return err
			}
			if got.Entries == nil {
				got.Entries = []wire.VaultSummary{}
			}
			return c.ui.result(got.Entries, func() error {
				if err := c.ui.print("%s in your vault on %s", plural(len(got.Entries), "secret"), slug); err != nil {
					return err
				}
				for _, e := range got.Entries {
					line := fmt.Sprintf("  %s  %s  %s", c.ui.paint(bold, cleanLine(e.Key)), cleanLine(e.EntryType), c.ui.paint(dim, cleanLine(e.UpdatedAt)))
					if e.MountPath != nil {
						line += "  " + cleanLine(*e.MountPath)
					}
					if e.Description != nil {
						line += "  — " + cleanLine(*e.Description)
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

func vaultDeleteVerb() verb {
	return verb{
		name: "delete", aliases: []string{"rm"}, args: "KEY", short: "delete a secret for good",
		examples: []string{"claudemesh vault delete API_TOKEN"},
		fails:    []string{"4  the broker cannot be reached", "5  no such entry", "7  this session lacks the capability vault"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh vault delete KEY"); err != nil {
				return err
			}
			key := c.args()[0]
			var ack wire.VaultAck
			slug, err := c.askBroker(ctx, bus.CallVaultDelete, wire.VaultKey{Key: key}, &ack)
			if err != nil {
				return err
			}
			if ack.Action != wire.VaultDeleted {
				return &bus.APIError{Code: 404, Reason: "no_entry", Detail: "the vault holds no entry " + quoted(key)}
			}
			return c.ui.result(map[string]any{"key": key, "deleted": true}, func() error { return c.ui.print("deleted %s from your vault on %s", cleanLine(key), slug) })
		},
	}
}
