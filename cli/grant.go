package cli

import (
	"context"
	"maps"
	"slices"
	"strings"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// Grants: who may write to this member. The broker keeps them and obeys them when it accepts a message.

// capAll stands for every capability.
const capAll = "all"

func grantVerb() verb {
	return verb{
		name: "grant", args: "PEER CAPABILITY…", short: "let a peer do more with you",
		long: `Adds capabilities to what PEER may do with you on this mesh. dm: write to you and your sessions; broadcast: reach you by groups, topics and '*'.
read, state-read, state-write and file-read are kept for clients that ask; "all" means every one. A peer without an entry has ` + strings.Join(wire.DefaultGrant(), ", ") + `.`,
		examples: []string{"claudemesh grant bob dm broadcast"},
		fails:    grantFails(),
		run: func(ctx context.Context, c *call) error {
			caps, err := c.grantArgs("grant")
			if err != nil {
				return err
			}
			return c.regrant(ctx, c.args()[0], func(had []string) []string { return inOrder(append(slices.Clone(had), caps...)) })
		},
	}
}

func revokeVerb() verb {
	return verb{
		name: "revoke", args: "PEER CAPABILITY…\nPEER all", short: "let a peer do less with you",
		long:     `Takes capabilities from what PEER may do with you on this mesh; "all" blocks it. See grant for the names.`,
		examples: []string{"claudemesh revoke bob broadcast"},
		fails:    grantFails(),
		run: func(ctx context.Context, c *call) error {
			caps, err := c.grantArgs("revoke")
			if err != nil {
				return err
			}
			return c.regrant(ctx, c.args()[0], func(had []string) []string {
				return inOrder(slices.DeleteFunc(slices.Clone(had), func(s string) bool { return slices.Contains(caps, s) }))
			})
		},
	}
}

func blockVerb() verb {
	return verb{
		name: "block", args: "PEER", short: "take nothing from a peer any more",
		long: `The broker refuses PEER's direct messages to you, and passes you by when PEER writes to groups, topics or everybody. What was accepted before still
comes. PEER learns it when it writes to you.`,
		examples: []string{"claudemesh block mallory"},
		fails:    grantFails(),
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh block PEER"); err != nil {
				return err
			}
			return c.regrant(ctx, c.args()[0], func([]string) []string { return []string{} })
		},
	}
}

func unblockVerb() verb {
	return verb{
		name: "unblock", args: "PEER", short: "treat a peer as everybody again",
		long:     `Removes the entry of PEER: it may again do what peers without an entry may.`,
		examples: []string{"claudemesh unblock mallory"},
		fails:    grantFails(),
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh unblock PEER"); err != nil {
				return err
			}
			return c.regrant(ctx, c.args()[0], func([]string) []string { return nil })
		},
	}
}

func grantFails() []string {
	return []string{"3  an unknown capability; the peer is ambiguous", "4  the broker cannot be reached", "5  no such peer or mesh"}
}

// grantArgs checks the arguments of grant and revoke and returns the capabilities.
func (c *call) grantArgs(verb string) ([]string, error) {
	if err := c.want(2, -1, "claudemesh "+verb+" PEER CAPABILITY…"); err != nil {
		return nil, err
	}
	known := wire.GrantCapabilities()
	var caps []string
	for _, word := range c.args()[1:] {
		for _, name := range strings.Split(word, ",") {
			switch {
			case name == capAll:
				caps = append(caps, known...)
			case !slices.Contains(known, name):
				return nil, &usageError{message: "unknown capability " + quoted(name), hint: "capabilities: " + strings.Join(known, ", ") + ", " + capAll}
			default:
				caps = append(caps, name)
			}
		}
	}
	return caps, nil
}

// inOrder lists each capability once, in the usual order.
func inOrder(caps []string) []string {
	return slices.DeleteFunc(wire.GrantCapabilities(), func(s string) bool { return !slices.Contains(caps, s) })
}

// regrant changes the entry of one peer; nil removes it.
func (c *call) regrant(ctx context.Context, peer string, change func(had []string) []string) error {
	return c.onMesh(ctx, func(ctx context.Context, n *conn, slug string) error {
		who, err := n.member(ctx, slug, peer)
		if err != nil {
			return err
		}
		if who.IsSelf {
			return usagef("%s is you: your own sessions always reach one another", quoted(peer))
		}
		var now wire.GrantsResult
		if err := n.broker(ctx, slug, wire.TypeGrantsGet, nil, &now); err != nil {
			return err
		}
		had, listed := now.Grants[who.Pubkey]
		if !listed {
			had = now.Default
		}
		caps := change(had)
		if err := n.broker(ctx, slug, wire.TypeGrantsSet, wire.GrantsSet{Grants: wire.Grants{who.Pubkey: caps}}, &now); err != nil {
			return err
		}
		value := any(caps)
		if caps == nil {
			value, caps = nil, now.Default
		}
		return c.ui.result(map[string]any{"ok": true, "mesh": slug, "peer": who.Name, "pubkey": who.Pubkey, "capabilities": value}, func() error {
			return c.ui.print("%s on %s: %s", called(who.Name, who.Pubkey), slug, capsText(caps))
		})
	})
}

// member asks the daemon which member a name or key means.
func (n *conn) member(ctx context.Context, slug, peer string) (who bus.PeerMember, err error) {
	err = n.Do(ctx, bus.CallSubject(slug, n.actor, bus.CallResolve), bus.PeerRef{Peer: peer}, &who)
	return who, err
}

// called is a member as people know it.
func called(name, key string) string {
	if name == "" {
		return short(key) + "…"
	}
	return cleanLine(name)
}

func capsText(caps []string) string {
	if len(caps) == 0 {
		return "blocked"
	}
	return strings.Join(caps, ", ")
}

func grantsVerb() verb {
	return verb{
		name: "grants", args: "", short: "list what you let whom do",
		long:     `Lists the peers with an entry of their own. Everybody else may do what the last line says.`,
		examples: []string{"claudemesh grants --json"},
		fails:    []string{"4  the broker cannot be reached", "5  no such mesh"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh grants"); err != nil {
				return err
			}
			return c.onMesh(ctx, func(ctx context.Context, n *conn, slug string) error {
				var now wire.GrantsResult
				if err := n.broker(ctx, slug, wire.TypeGrantsGet, nil, &now); err != nil {
					return err
				}
				var all wire.MemberListResult
				if err := n.broker(ctx, slug, wire.TypeMemberList, nil, &all); err != nil {
					return err
				}
				names := map[string]string{}
				for _, m := range all.Members {
					if _, listed := now.Grants[m.Pubkey]; listed {
						names[m.Pubkey] = m.DisplayName
					}
				}
				out := grantsJSON{Mesh: slug, Grants: now.Grants, Names: names, Default: now.Default}
				return c.ui.result(out, func() error { return c.printGrants(out) })
			})
		},
	}
}

// grantsJSON is the answer of grants; Names are those of the members among the keys.
type grantsJSON struct {
	Mesh    string            `json:"mesh"`
	Grants  wire.Grants       `json:"grants"`
	Names   map[string]string `json:"names"`
	Default []string          `json:"default"`
}

func (c *call) printGrants(g grantsJSON) error {
	for _, key := range slices.Sorted(maps.Keys(g.Grants)) {
		if !mesh.ValidKey(key) {
			continue
		}
		if err := c.ui.print("  %s  %s…  %s", c.ui.paint(bold, called(g.Names[key], key)), short(key), cleanLine(capsText(g.Grants[key]))); err != nil {
			return err
		}
	}
	return c.ui.print("  everybody else on %s: %s", g.Mesh, cleanLine(capsText(g.Default)))
}
