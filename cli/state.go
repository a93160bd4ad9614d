package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"unicode/utf8"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/wire"
)

func stateVerb() verb {
	return verb{
		name: "state", short: "values that the whole mesh shares, by key",
		long: `Every member reads and writes them; the last writer wins. A value is any JSON but null, up to 256 KiB. The broker can read it.
Secrets belong into: claudemesh vault`,
		subs: []verb{stateGetVerb(), stateSetVerb(), stateListVerb(), stateDeleteVerb()},
	}
}

// stateJSON is a value with its mesh.
type stateJSON struct {
	wire.StateEntry
	Mesh string `json:"mesh"`
}

func stateGetVerb() verb {
	return verb{
		name: "get", args: "KEY", short: "print a value",
		long:     `Prints a string as it is and everything else as JSON; who set it, and when, goes to stderr.`,
		examples: []string{"claudemesh state get release", "claudemesh state get release --json"},
		fails:    []string{"4  the broker cannot be reached", "5  the key is not set, or no such mesh"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh state get KEY"); err != nil {
				return err
			}
			key, err := c.stateKey()
			if err != nil {
				return err
			}
			var out wire.StateResult
			slug, err := c.askBroker(ctx, wire.TypeGetState, wire.GetState{Key: key}, &out)
			if err != nil {
				return err
			}
			if unset(out.Value) {
				return notSet(key)
			}
			out.Value = readable(out.Value)
			return c.ui.result(stateJSON{out.StateEntry, slug}, func() error {
				c.ui.note("set by %s at %s", cleanLine(out.UpdatedBy), cleanLine(out.UpdatedAt))
				return c.ui.print("%s", c.forOutput(plainValue(out.Value)))
			})
		},
	}
}

func stateSetVerb() verb {
	return verb{
		name: "set", args: "KEY VALUE…\nKEY -", short: "write a value",
		long: `VALUE is JSON if it reads as JSON, else a string; --string takes it as a string in any case. "-" reads it from stdin. The other
members hear of it at once (mesh.SLUG.event.state_change on the bus).`,
		examples: []string{"claudemesh state set release 1.2.3 --string", `claudemesh state set build '{"ok":true}'`, "claudemesh state set notes - < notes.txt"},
		fails:    []string{"3  the value is null or over 256 KiB", "4  the broker cannot be reached", "6  the mesh holds too many keys", "7  this session may not write state"},
		flags:    []urfave.Flag{&urfave.BoolFlag{Name: "string", Usage: "VALUE is a string, also if it reads as JSON"}},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(2, -1, "claudemesh state set KEY VALUE"); err != nil {
				return err
			}
			key, err := c.stateKey()
			if err != nil {
				return err
			}
			text, err := c.restText(1, wire.MaxStateValue)
			if err != nil {
				return err
			}
			value, err := valueOf(text, c.cmd.Bool("string"))
			if err != nil {
				return err
			}
			slug, err := c.askBroker(ctx, wire.TypeSetState, wire.SetState{Key: key, Value: value}, nil)
			if err != nil {
				return err
			}
			return c.ui.result(map[string]any{"key": key, "value": value, "mesh": slug}, func() error {
				return c.ui.print("%s = %s", cleanLine(key), brief(string(value)))
			})
		},
	}
}

func stateListVerb() verb {
	return verb{
		name: "list", aliases: []string{"ls"}, args: "", short: "list all keys and values of a mesh",
		long:     `Long values are shortened here and say so; --json prints them whole, as an array.`,
		examples: []string{"claudemesh state list --json"},
		fails:    []string{"4  the broker cannot be reached", "5  no such mesh"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh state list"); err != nil {
				return err
			}
			all := []stateJSON{}
			err := c.onMesh(ctx, func(ctx context.Context, n *conn, slug string) error {
				all = []stateJSON{}
				for req := (wire.ListState{Page: wire.Page{Paged: true}}); ; {
					var out wire.StateList
					if err := n.broker(ctx, slug, wire.TypeListState, req, &out); err != nil {
						return err
					}
					for _, e := range out.Entries {
						e.Value = readable(e.Value)
						all = append(all, stateJSON{e, slug})
						req.After = e.Key
					}
					if !out.More || len(out.Entries) == 0 {
						return nil
					}
				}
			})
			if err != nil {
				return err
			}
			return c.ui.result(all, func() error {
				if len(all) == 0 {
					return c.ui.print("no keys are set")
				}
				for _, e := range all {
					if err := c.ui.print("%s: %s  %s", c.ui.paint(bold, cleanLine(e.Key)), brief(string(e.Value)), c.ui.paint(dim, cleanLine(e.UpdatedBy+", "+e.UpdatedAt))); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func stateDeleteVerb() verb {
	return verb{
		name: "delete", aliases: []string{"rm"}, args: "KEY", short: "remove a key",
		examples: []string{"claudemesh state delete release"},
		fails:    []string{"4  the broker cannot be reached", "5  the key is not set, or no such mesh", "7  this session may not write state"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh state delete KEY"); err != nil {
				return err
			}
			key, err := c.stateKey()
			if err != nil {
				return err
			}
			var out wire.StateAck
			slug, err := c.askBroker(ctx, wire.TypeDeleteState, wire.DeleteState{Key: key}, &out)
			if err != nil {
				return err
			}
			if out.Action == wire.ActionNotFound {
				return notSet(key)
			}
			return c.ui.result(map[string]any{"key": key, "deleted": true, "mesh": slug}, func() error { return c.ui.print("%s is deleted", cleanLine(key)) })
		},
	}
}

func (c *call) stateKey() (string, error) {
	key := c.args()[0]
	if key == "" || len(key) > wire.MaxStateKey || !utf8.ValidString(key) {
		return "", usagef("a key is text of 1 to %d bytes", wire.MaxStateKey)
	}
	return key, nil
}

func notSet(key string) error {
	return &failure{Code: "not_set", Message: "the key " + quoted(key) + " is not set", Hint: "see what is: claudemesh state list", Data: map[string]any{"key": key}, Exit: exitNotFound}
}

// unset reports a value that stands for none.
func unset(value json.RawMessage) bool {
	return len(value) == 0 || bytes.Equal(value, []byte("null"))
}

// valueOf makes JSON of what the user typed.
func valueOf(text string, asString bool) (json.RawMessage, error) {
	if !utf8.ValidString(text) {
		return nil, usagef("the value is not UTF-8 text")
	}
	if !asString && json.Valid([]byte(text)) {
		var b bytes.Buffer
		if err := json.Compact(&b, []byte(text)); err != nil {
			return nil, err
		}
		if unset(b.Bytes()) {
			return nil, &usageError{message: "null is no value", hint: "to remove the key: claudemesh state delete KEY\nfor the word itself add --string"}
		}
		return b.Bytes(), nil
	}
	b, err := json.Marshal(text)
	return readable(b), err
}

// readable writes the characters < > & of a JSON value as themselves: on its way the value was encoded for HTML, which this is not.
func readable(value json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	for i := 0; i < len(value); i++ {
		if value[i] != '\\' || i+1 == len(value) {
			b.WriteByte(value[i])
			continue
		}
		if i+6 <= len(value) {
			if plain, ok := htmlEscapes[string(value[i:i+6])]; ok {
				b.WriteByte(plain)
				i += 5
				continue
			}
		}
		b.Write(value[i : i+2]) // whole, so that the second of two backslashes begins nothing
		i++
	}
	return b.Bytes()
}

var htmlEscapes = map[string]byte{`\u003c`: '<', `\u003e`: '>', `\u0026`: '&'}

// plainValue is a value as a script wants it: a string without its quotes.
func plainValue(value json.RawMessage) string {
	var s string
	if json.Unmarshal(value, &s) == nil {
		return s
	}
	return string(value)
}

// maxBrief is how much of a long text a list shows, in bytes.
const maxBrief = 160

// brief is one line of a text that is listed.
func brief(s string) string {
	line := cleanLine(s)
	if len(line) <= maxBrief {
		return line
	}
	return strings.ToValidUTF8(line[:maxBrief], "") + "… (" + plural(len(s), "byte") + ")"
}
