package cli

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/cli/account"
	"claudemesh/mesh"
	"claudemesh/wire"
)

func syncVerb() verb {
	return verb{
		name: "sync", args: "", short: "exchange memberships with the other machines of your account",
		long: `Takes what other machines have sealed for this one, seals the memberships of this one for them, and links its keys to the account. The broker
sees neither. Nothing is taken from a machine, or sealed for one, that was not vouched for: by the code of claudemesh login approve, by a machine that was, or by --trust and its whole key,
as claudemesh whoami shows it there. Do that on both machines. --json prints {"ok", "added", "sealed_for", "linked", "devices", "untrusted", "meshes"}.`,
		examples: []string{"claudemesh sync", "claudemesh sync --trust 3f0c…64 hex digits"},
		fails:    []string{"2  not signed in", "3  --trust is no key", "4  the broker cannot be reached", "5  --trust: no machine of the account has that key"},
		flags: []urfave.Flag{
			&urfave.StringFlag{Name: "trust", Usage: "vouch for the machine with this `KEY`"},
			&urfave.BoolFlag{Name: "force", Usage: "does nothing; it is there for scripts of old", Hidden: true},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh sync [--trust KEY]"); err != nil {
				return err
			}
			return c.sync(ctx)
		},
	}
}

// syncJSON is the answer.
type syncJSON struct {
	OK        bool           `json:"ok"`
	Added     []string       `json:"added"`      // slugs that are new here
	SealedFor []string       `json:"sealed_for"` // machines
	Linked    int            `json:"linked"`     // memberships of this machine that belong to the account
	Devices   []syncDevice   `json:"devices"`
	Untrusted []syncDevice   `json:"untrusted"`
	Meshes    []wire.MeshRow `json:"meshes"` // of the account at its broker
}

type syncDevice struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Pubkey   string `json:"device_pubkey"`
	LastSeen string `json:"last_seen_at"`
	Current  bool   `json:"current"`
}

func (c *call) sync(ctx context.Context) error {
	trust := c.cmd.String("trust")
	if trust != "" && !mesh.ValidKey(trust) {
		return usagef("--trust is the whole key of a machine, 64 hex digits: claudemesh whoami shows it there")
	}
	dir, a, client, err := c.signedIn()
	if err != nil {
		return err
	}
	key, err := a.Device()
	if err != nil {
		return err
	}
	info, err := client.Info(ctx)
	if err != nil {
		return err
	}
	if trust != "" {
		i := slices.IndexFunc(info.Sessions, func(d wire.AccountDevice) bool { return d.Pubkey == trust && !d.Current })
		if i < 0 {
			return &failure{Code: "not_found", Message: "no other machine of the account has that key", Hint: "compare it with what claudemesh whoami shows there", Exit: exitNotFound}
		}
		a.Trust(account.TrustedPeer{Pubkey: trust, Name: info.Sessions[i].Hostname})
		if err := a.Save(dir); err != nil {
			return err
		}
	}
	out := syncJSON{OK: true, Added: []string{}, SealedFor: []string{}, Devices: []syncDevice{}, Untrusted: []syncDevice{}, Meshes: []wire.MeshRow{}}
	if err := c.takePackages(ctx, dir, a, client, key, &out); err != nil {
		return err
	}
	config, err := mesh.LoadConfig(dir)
	if err != nil {
		return err
	}
	linked, err := client.Link(ctx, a.User.ID, here(config, a.BrokerURL))
	if err != nil {
		return err
	}
	out.Linked = linked.Linked
	if err := c.sealForOthers(ctx, a, client, key, config, info.Sessions, &out); err != nil {
		return err
	}
	rows, err := client.Meshes(ctx)
	if err != nil {
		return err
	}
	out.Meshes = append(out.Meshes, rows.Meshes...)
	return c.ui.result(out, func() error { return c.printSync(out, config) })
}

// takePackages adopts what trusted machines have sealed for this one, and trusts whom they trust: they are the user's, too.
func (c *call) takePackages(ctx context.Context, dir string, a *account.Auth, client *account.Client, key mesh.Identity, out *syncJSON) error {
	boxes, err := client.Collect(ctx)
	if err != nil {
		return err
	}
	changed := false
	for _, box := range boxes {
		if !a.Trusts(box.From) {
			continue
		}
		content, err := account.Open(key, a.User.ID, box)
		if err != nil {
			c.ui.warn("what a machine sealed for this one is not taken: %v", err)
			continue
		}
		for _, p := range content.Trusted {
			if p.Pubkey != key.PublicKey() {
				changed = a.Trust(p) || changed
			}
		}
		added, err := c.adoptMeshes(ctx, dir, content.Meshes)
		if err != nil {
			return err
		}
		out.Added = append(out.Added, added...)
	}
	if changed {
		return a.Save(dir)
	}
	return nil
}

func (c *call) sealForOthers(ctx context.Context, a *account.Auth, client *account.Client, key mesh.Identity, config *mesh.Config, devices []wire.AccountDevice, out *syncJSON) error {
	for _, d := range devices {
		row := syncDevice{d.ID, cleanLine(d.Hostname), d.Pubkey, d.LastSeenAt, d.Current}
		out.Devices = append(out.Devices, row)
		switch {
		case d.Current, d.Pubkey == key.PublicKey(), key.IsZero():
			continue
		case d.Pubkey == "" || !a.Trusts(d.Pubkey):
			out.Untrusted = append(out.Untrusted, row)
			continue
		}
		content := account.Content{Account: a.User.ID, Name: thisDevice(key).Hostname, Meshes: sealable(config, a.BrokerURL), Trusted: a.Trusted}
		box, err := account.Seal(key, d.Pubkey, content, rand.Reader)
		if err != nil {
			return err
		}
		if err := client.Deposit(ctx, box); err != nil {
			return err
		}
		out.SealedFor = append(out.SealedFor, row.Name)
	}
	return nil
}

func (c *call) printSync(out syncJSON, config *mesh.Config) error {
	lines := []string{"up to date"}
	if len(out.Added) > 0 {
		lines[0] = fmt.Sprintf("joined here: %s", strings.Join(out.Added, ", "))
	}
	if len(out.SealedFor) > 0 {
		lines = append(lines, "  sealed for  "+strings.Join(out.SealedFor, ", ")+"; claudemesh sync there takes it")
	}
	for _, d := range out.Devices {
		mark := ""
		if d.Current {
			mark = "  (this one)"
		}
		lines = append(lines, fmt.Sprintf("  machine     %s  %s, seen %s%s", short(d.ID), d.Name, d.LastSeen, mark))
	}
	for _, d := range out.Untrusted {
		lines = append(lines, fmt.Sprintf("  not trusted %s: compare its key with claudemesh whoami there, then\n              claudemesh sync --trust %s", d.Name, cleanLine(d.Pubkey)))
	}
	for _, m := range out.Meshes {
		if !slices.ContainsFunc(config.Meshes, func(j mesh.Joined) bool { return j.MeshID == m.ID }) {
			lines = append(lines, fmt.Sprintf("  not here    %s: run claudemesh sync on a machine that has it", cleanLine(m.Slug)))
		}
	}
	return c.ui.print("%s", strings.Join(lines, "\n"))
}
