package cli

import (
	"context"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

func verifyVerb() verb {
	return verb{
		name: "verify", args: "[PEER]", short: "show the safety number you share with a peer",
		long: `Both of you run this and compare the digits by voice or in person: if they are the same, nobody stands between you. They are made of the two members'
keys, so every session of a peer has the same. Without PEER, those of all members are shown.`,
		examples: []string{"claudemesh verify bob", "claudemesh verify --json"},
		fails:    []string{"3  the peer is ambiguous", "4  the broker cannot be reached", "5  no such peer or mesh"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 1, "claudemesh verify [PEER]"); err != nil {
				return err
			}
			return c.onMesh(ctx, func(ctx context.Context, n *conn, slug string) error {
				self, err := n.self(ctx, slug)
				if err != nil {
					return err
				}
				peers, err := c.toVerify(ctx, n, slug)
				if err != nil {
					return err
				}
				rows := []safetyRow{}
				for _, p := range peers {
					if p.Pubkey == self {
						continue
					}
					number, err := mesh.SafetyNumber(self, p.Pubkey)
					if err != nil {
						return err
					}
					rows = append(rows, safetyRow{Mesh: slug, Peer: p.Name, Pubkey: p.Pubkey, SafetyNumber: number})
				}
				if c.cmd.Args().Present() && len(rows) == 0 {
					return usagef("%s is you: there is nobody to compare with", quoted(c.args()[0]))
				}
				return c.ui.result(rows, func() error {
					if len(rows) == 0 {
						return c.ui.print("nobody else is a member of %s", slug)
					}
					for _, r := range rows {
						if err := c.ui.print("  %s  %s  %s…", r.SafetyNumber, c.ui.paint(bold, called(r.Peer, r.Pubkey)), short(r.Pubkey)); err != nil {
							return err
						}
					}
					return nil
				})
			})
		},
	}
}

type safetyRow struct {
	Mesh         string `json:"mesh"`
	Peer         string `json:"peer"`
	Pubkey       string `json:"pubkey"` // the member's
	SafetyNumber string `json:"safetyNumber"`
}

// self is the key of this daemon's member of a mesh.
func (n *conn) self(ctx context.Context, slug string) (string, error) {
	var all bus.MeshList
	if err := n.daemon(ctx, bus.OpMeshList, nil, &all); err != nil {
		return "", err
	}
	for _, m := range all.Meshes {
		if m.Mesh == slug {
			return m.Pubkey, nil
		}
	}
	return "", &unknownMeshError{slug: slug}
}

// toVerify lists the member named, else all.
func (c *call) toVerify(ctx context.Context, n *conn, slug string) ([]bus.PeerMember, error) {
	if c.cmd.Args().Present() {
		who, err := n.member(ctx, slug, c.args()[0])
		return []bus.PeerMember{who}, err
	}
	var all wire.MemberListResult
	if err := n.broker(ctx, slug, wire.TypeMemberList, nil, &all); err != nil {
		return nil, err
	}
	var out []bus.PeerMember
	for _, m := range all.Members {
		out = append(out, bus.PeerMember{Pubkey: m.Pubkey, Name: m.DisplayName})
	}
	return out, nil
}
