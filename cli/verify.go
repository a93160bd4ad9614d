package cli

import (
	"context"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

func verifyVerb() verb {
	return verb{
		name: "verify", args: "[PEER]", short: "show the safety number you share with a peer",
		long: `Both of you run this and compare the digits by voice or in person: if they are the same, nobody stands between you. They are made of the two members'
keys, so every session of a peer has the same. Without PEER, those of all members are shown.

Beside it stands what this machine knows of the key: new (never met), known, changed (the name belonged to another key: somebody may have taken it), or
verified. --confirm says that you have compared the digits: from then on the key is verified, and its names are its own.`,
		examples: []string{"claudemesh verify bob", "claudemesh verify bob --confirm", "claudemesh verify --json"},
		fails:    []string{"3  the peer is ambiguous", "4  the broker cannot be reached", "5  no such peer or mesh", "7  --confirm by a session: only the user compares"},
		flags:    []urfave.Flag{&urfave.BoolFlag{Name: "confirm", Usage: "the digits are the same: trust this key under its names"}},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 1, "claudemesh verify [PEER]"); err != nil {
				return err
			}
			if c.cmd.Bool("confirm") && !c.cmd.Args().Present() {
				return usagef("--confirm takes the peer whose number you have compared: claudemesh verify PEER --confirm")
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
				if err := c.trusted(ctx, n, slug, rows); err != nil {
					return err
				}
				return c.ui.result(rows, func() error {
					if len(rows) == 0 {
						return c.ui.print("nobody else is a member of %s", slug)
					}
					for _, r := range rows {
						trust := r.Trust
						if r.Trust == bus.TrustChanged {
							trust = c.ui.paint(red, trust) + ": the name was " + strings.Join(shorts(r.Was), ", ")
						}
						if err := c.ui.print("  %s  %s  %s…  %s", r.SafetyNumber, c.ui.paint(bold, called(r.Peer, r.Pubkey)), short(r.Pubkey), trust); err != nil {
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
	Trust        string `json:"trust"` // new, known, changed or verified
	// Was are the member keys that the name belonged to, when it has changed.
	Was         []string `json:"was,omitempty"`
	FirstSeenAt string   `json:"firstSeenAt,omitempty"`
	VerifiedAt  string   `json:"verifiedAt,omitempty"`
}

// trusted fills in what this machine knows of the keys, after it has been told that one was compared.
func (c *call) trusted(ctx context.Context, n *conn, slug string, rows []safetyRow) error {
	refs := make([]bus.TrustRef, 0, len(rows))
	for _, r := range rows {
		ref := bus.TrustRef{MemberKey: r.Pubkey, Names: []string{r.Peer}}
		if c.cmd.Args().Present() {
			// What was typed may be a session's name.
			if t, err := mesh.ParseTarget(c.args()[0]); err == nil && t.Kind == mesh.TargetName {
				ref.Names = append(ref.Names, t.Ref)
			}
		}
		refs = append(refs, ref)
	}
	if c.cmd.Bool("confirm") {
		for _, ref := range refs {
			if err := n.daemon(ctx, bus.OpTrustConfirm, bus.TrustConfirm{Mesh: slug, TrustRef: ref}, nil); err != nil {
				return err
			}
		}
	}
	for start := 0; start < len(refs); start += bus.MaxTrustRefs / 10 {
		part := refs[start:min(len(refs), start+bus.MaxTrustRefs/10)]
		var known bus.TrustList
		if err := n.daemon(ctx, bus.OpTrust, bus.TrustQuery{Mesh: slug, Members: part}, &known); err != nil {
			return err
		}
		for i, k := range known.Members[:min(len(known.Members), len(part))] {
			r := &rows[start+i]
			r.Trust, r.Was, r.FirstSeenAt, r.VerifiedAt = k.State, k.Was, k.FirstSeenAt, k.VerifiedAt
		}
	}
	return nil
}

func shorts(keys []string) []string {
	out := make([]string, 0, len(keys))
	for _, k := range keys {
		out = append(out, short(k)+"…")
	}
	return out
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
