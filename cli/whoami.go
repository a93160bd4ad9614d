package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/cli/account"
	"claudemesh/mesh"
)

// whoamiJSON has the reference's keys; broker_url, device_pubkey, expires_at and note are ours.
type whoamiJSON struct {
	SignedIn     bool          `json:"signed_in"`
	User         any           `json:"user,omitempty"`
	TokenSource  string        `json:"token_source,omitempty"`
	Meshes       *whoamiCounts `json:"meshes,omitempty"`
	Local        *whoamiLocal  `json:"local,omitempty"`
	BrokerURL    string        `json:"broker_url,omitempty"`
	DevicePubkey string        `json:"device_pubkey,omitempty"`
	ExpiresAt    string        `json:"expires_at,omitempty"`
	Note         string        `json:"note,omitempty"`
}

type whoamiCounts struct {
	Owned int `json:"owned"`
	Guest int `json:"guest"`
}

type whoamiLocal struct {
	ConfigPath string       `json:"config_path"`
	Meshes     []whoamiMesh `json:"meshes"`
}

type whoamiMesh struct {
	Slug         string `json:"slug"`
	MeshID       string `json:"mesh_id"`
	MemberID     string `json:"member_id"`
	PubkeyPrefix string `json:"pubkey_prefix"`
}

func whoamiVerb() verb {
	return verb{
		name: "whoami", args: "", short: "say who you are: on the meshes here, and to a broker if you are signed in",
		long: `Asks the account's broker whether the token is still good; without an answer it tells what is known here, and says so. --json prints
{"schema_version", "signed_in", "user", "token_source", "meshes": {"owned", "guest"}, "local": {"config_path", "meshes"}}.`,
		examples: []string{"claudemesh whoami", "claudemesh whoami --json"},
		fails:    []string{"2  neither signed in nor on any mesh (the JSON is printed all the same)"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh whoami"); err != nil {
				return err
			}
			return c.whoami(ctx)
		},
	}
}

func (c *call) whoami(ctx context.Context) error {
	dir, err := c.configDir()
	if err != nil {
		return err
	}
	config, err := mesh.LoadConfig(dir)
	if err != nil {
		return err
	}
	out := whoamiJSON{}
	if len(config.Meshes) > 0 {
		out.Local = &whoamiLocal{ConfigPath: mesh.ConfigPath(dir)}
		for _, j := range config.Meshes {
			out.Local.Meshes = append(out.Local.Meshes, whoamiMesh{j.Slug, j.MeshID, j.MemberID, j.Pubkey[:min(12, len(j.Pubkey))]})
		}
	}
	a, err := account.LoadAuth(dir)
	if err == nil {
		err = c.askWhoami(ctx, dir, a, &out)
	}
	if err != nil && !errors.Is(err, account.ErrSignedOut) {
		return err
	}
	err = c.ui.result(out, func() error { return c.printWhoami(out, a) })
	if err == nil && !out.SignedIn && out.Local == nil {
		return &exitError{exitAuth}
	}
	return err
}

// askWhoami asks the broker. A token that it does not know is dropped, as the reference does; a broker that does not answer is no failure.
func (c *call) askWhoami(ctx context.Context, dir string, a *account.Auth, out *whoamiJSON) error {
	client, err := c.accountClient(dir, a.BrokerURL, a.SessionToken)
	if err != nil {
		return err
	}
	out.SignedIn, out.User, out.TokenSource, out.BrokerURL, out.ExpiresAt = true, a.User, a.TokenSource, a.BrokerURL, a.ExpiresAt
	if key, err := a.Device(); err == nil {
		out.DevicePubkey = key.PublicKey()
	}
	rows, err := client.Meshes(ctx)
	var no *account.Refused
	switch {
	case errors.As(err, &no) && no.SignedOut():
		*out = whoamiJSON{Local: out.Local, Note: "the session at " + a.BrokerURL + " was revoked or has ended; sign in again with: claudemesh login"}
		return account.Forget(dir)
	case errors.Is(err, context.Canceled):
		return err
	case err != nil:
		out.Note = "not asked the broker: " + cleanLine(err.Error())
		return nil
	}
	out.Meshes = &whoamiCounts{}
	for _, r := range rows.Meshes {
		if r.IsOwner {
			out.Meshes.Owned++
		} else {
			out.Meshes.Guest++
		}
	}
	return nil
}

func (c *call) printWhoami(out whoamiJSON, a *account.Auth) error {
	var lines []string
	switch {
	case out.SignedIn:
		lines = append(lines, fmt.Sprintf("signed in as %s at %s", c.ui.paint(bold, cleanLine(a.User.DisplayName)), a.BrokerURL))
		if m := out.Meshes; m != nil {
			lines = append(lines, fmt.Sprintf("  meshes there  %d owned, %d as a guest", m.Owned, m.Guest))
		}
		lines = append(lines, "  this machine  "+out.DevicePubkey)
	default:
		lines = append(lines, "not signed in to a broker; a mesh of your own needs no account")
	}
	if out.Note != "" {
		lines = append(lines, "  note          "+cleanLine(out.Note))
	}
	if out.Local == nil {
		lines = append(lines, "no mesh is joined here: claudemesh create NAME, or claudemesh join INVITE")
	} else {
		for _, m := range out.Local.Meshes {
			lines = append(lines, fmt.Sprintf("  on mesh %s as %s…", m.Slug, m.PubkeyPrefix))
		}
	}
	return c.ui.print("%s", strings.Join(lines, "\n"))
}

func logoutVerb() verb {
	return verb{
		name: "logout", args: "", short: "sign this machine out of its account, or another one",
		long: `The token is revoked at the broker and auth.json removed; meshes and their keys stay. If the broker cannot be reached the file is removed
all the same, and the token ends by itself: it is said when. --device ID signs another machine out (claudemesh sync lists them); what it has of keys it keeps: to take a lost machine its
memberships, let the mesh's owner ban the member, or leave the mesh and join anew.`,
		examples: []string{"claudemesh logout", "claudemesh logout --device 7fQ2…"},
		fails:    []string{"2  not signed in", "4  --device: the broker cannot be reached", "5  --device: no such machine"},
		flags:    []urfave.Flag{&urfave.StringFlag{Name: "device", Usage: "sign out the machine with this `ID` instead"}},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh logout [--device ID]"); err != nil {
				return err
			}
			if id := c.cmd.String("device"); id != "" {
				return c.logoutDevice(ctx, id)
			}
			return c.logout(ctx)
		},
	}
}

func (c *call) logout(ctx context.Context) error {
	dir, a, client, err := c.signedIn()
	if err != nil {
		return err
	}
	_, revokeErr := client.Revoke(ctx, "")
	if errors.Is(revokeErr, context.Canceled) {
		return revokeErr
	}
	if err := account.Forget(dir); err != nil {
		return err
	}
	note := ""
	if revokeErr != nil {
		note = fmt.Sprintf("the broker was not told (%v): the token ends by itself, at %s at the latest", cleanLine(revokeErr.Error()), a.ExpiresAt)
	}
	return c.ui.result(map[string]any{"ok": true, "revoked": revokeErr == nil, "note": note}, func() error {
		if note != "" {
			c.ui.warn("%s", note)
		}
		return c.ui.print("signed out of %s; meshes and keys of this machine stay", a.BrokerURL)
	})
}

func (c *call) logoutDevice(ctx context.Context, id string) error {
	dir, a, client, err := c.signedIn()
	if err != nil {
		return err
	}
	info, err := client.Info(ctx)
	if err != nil {
		return err
	}
	for _, d := range info.Sessions {
		if d.ID != id && (len(id) < 6 || !strings.HasPrefix(d.ID, id)) {
			continue
		}
		if _, err := client.Revoke(ctx, d.ID); err != nil {
			return err
		}
		a.Distrust(d.Pubkey)
		if err := a.Save(dir); err != nil {
			return err
		}
		return c.ui.result(map[string]any{"ok": true, "revoked": true, "id": d.ID, "hostname": d.Hostname}, func() error {
			return c.ui.print("signed out %s; nothing is sealed for it any more. The keys that it has it keeps", cleanLine(d.Hostname))
		})
	}
	return &failure{Code: "not_found", Message: "no machine of the account has the id " + quoted(id), Hint: "they are listed by: claudemesh sync", Exit: exitNotFound}
}
