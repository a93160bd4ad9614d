package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/cli/account"
	"claudemesh/mesh"
	"claudemesh/wire"
)

func loginVerb() verb {
	return verb{
		name: "login", args: "", short: "sign this machine in to an account, by approval on another",
		long: `Shows a code and waits until it is approved: by claudemesh login approve CODE on a machine that is signed in, which also sends its
memberships, sealed for this one; or on the broker's page, with a pass (claudemesh login pass) or the admin token, which sends none. The broker never sees the
last three groups of the code: by them the two machines know each other's keys. --json prints the code on stderr, and at the end {"ok", "user", "broker_url", "expires_at", "added", "approved_by"}.`,
		examples: []string{"claudemesh login --broker wss://mesh.example.org/ws", "claudemesh login approve ABCD-2345-EFGH-6789-JKLM"},
		fails: []string{
			"2  denied, or nobody approved in time", "3  which broker is not clear", "4  the broker cannot be reached", "6  signed in already", "7  inside a session",
		},
		flags: []urfave.Flag{accountBrokerFlag()},
		subs:  []verb{loginApproveVerb(), loginDenyVerb(), loginPassVerb()},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh login [--broker URL]"); err != nil {
				return err
			}
			return c.login(ctx)
		},
	}
}

func (c *call) login(ctx context.Context) error {
	n, err := c.newcomer()
	if err != nil {
		return err
	}
	secret, err := mesh.NewDeviceSecret(rand.Reader)
	if err != nil {
		return err
	}
	device := thisDevice(n.key)
	device.Check = secret.Vouch(mesh.DeviceAsks, n.key.PublicKey())
	code, err := n.client.Begin(ctx, device)
	if err != nil {
		return err
	}
	user, _, err := mesh.ParseDeviceCode(code.UserCode)
	if err != nil {
		return fmt.Errorf("%w: its code is malformed", account.ErrNoAccounts)
	}
	c.ui.note("code      %s", secret.Code(user))
	c.ui.note("approve   claudemesh login approve %s", secret.Code(user))
	c.ui.note("          on a machine that is signed in to your account; it sends its memberships")
	if page := webPage(code.VerificationURIComplete); page != "" {
		c.ui.note("or        %s", page)
		c.ui.note("          with a pass or the admin token; memberships come later, by claudemesh sync")
	}
	c.ui.note("waiting, for %d minutes; interrupt to give up", max(code.ExpiresIn/60, 1))
	got, err := n.client.Wait(ctx, code)
	if err != nil {
		return err
	}
	expires := wire.Timestamp(c.clock.Now().Add(time.Duration(got.ExpiresIn) * time.Second))
	a, err := c.keepAuth(n.dir, n.at, account.SourceDevice, got.AccessToken, expires, *got.User, n.key)
	if err != nil {
		return err
	}
	n.client.Token = a.SessionToken
	return c.welcomed(ctx, n.dir, a, n.client, secret)
}

// welcomed takes what the approving machine has sent. Only a holder of the code's secret can have vouched for it.
func (c *call) welcomed(ctx context.Context, dir string, a *account.Auth, client *account.Client, secret mesh.DeviceSecret) error {
	key, err := a.Device()
	if err != nil {
		return err
	}
	boxes, err := client.Collect(ctx)
	if err != nil {
		return err
	}
	added, by := []string{}, ""
	for _, box := range boxes {
		content, err := account.Open(key, a.User.ID, box)
		if err != nil || !secret.Vouched(content.Admit, mesh.DeviceAdmits, box.From, key.PublicKey()) {
			c.ui.warn("a package was left for this machine by one that does not know the code; it is not taken")
			continue
		}
		by = content.Name
		a.Trust(account.TrustedPeer{Pubkey: box.From, Name: content.Name})
		for _, p := range content.Trusted {
			if p.Pubkey != key.PublicKey() {
				a.Trust(p)
			}
		}
		more, err := c.adoptMeshes(ctx, dir, content.Meshes)
		added = append(added, more...)
		if err := errors.Join(err, a.Save(dir)); err != nil {
			return err
		}
	}
	return c.ui.result(map[string]any{
		"ok": true, "user": a.User, "broker_url": a.BrokerURL, "expires_at": a.ExpiresAt, "added": added, "approved_by": by,
	}, func() error {
		if err := c.ui.print("signed in as %s at %s", cleanLine(a.User.DisplayName), a.BrokerURL); err != nil {
			return err
		}
		switch {
		case by == "":
			return c.ui.print("  no memberships came with it: the page cannot send any. What to do: claudemesh sync")
		case len(added) == 0:
			return c.ui.print("  nothing new came from %s", cleanLine(by))
		}
		return c.ui.print("  from %s  %s", cleanLine(by), strings.Join(added, ", "))
	})
}

// webPage is a page's address if it is one to show.
func webPage(s string) string {
	if len(s) > 300 || !strings.HasPrefix(s, "http://") && !strings.HasPrefix(s, "https://") || cleanLine(s) != s {
		return ""
	}
	return s
}

func loginApproveVerb() verb {
	return verb{
		name: "approve", args: "CODE", short: "let a machine in that shows CODE, and send it the memberships of this one",
		long: `CODE is what claudemesh login shows on that machine, all five groups of it. This machine checks by it that the key it seals for is that
machine's own, whatever the broker says. The other machine becomes the same member of the meshes: whoever has it can read and write as you. --without-meshes lets it in and sends nothing;
with the first two groups alone nothing can be sent, either.`,
		examples: []string{"claudemesh login approve ABCD-2345-EFGH-6789-JKLM", "claudemesh login approve ABCD-2345-EFGH-6789-JKLM --yes --json"},
		fails: []string{
			"2  this machine is not signed in", "3  the code is malformed; nobody to ask and no --yes", "5  the code is not known or too old", "6  decided about already",
			"7  the key that the broker shows is not that of the machine with this code",
		},
		flags: []urfave.Flag{yesFlag(), &urfave.BoolFlag{Name: "without-meshes", Usage: "sign it in, and send no membership"}},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh login approve CODE"); err != nil {
				return err
			}
			return c.approve(ctx, c.args()[0])
		},
	}
}

func (c *call) approve(ctx context.Context, text string) error {
	user, secret, err := mesh.ParseDeviceCode(text)
	if err != nil {
		return usagef("%v", err)
	}
	dir, a, client, err := c.signedIn()
	if err != nil {
		return err
	}
	key, err := a.Device()
	if err != nil {
		return err
	}
	asked, err := client.Asked(ctx, user)
	if err != nil {
		return err
	}
	if !secret.IsZero() && !secret.Vouched(asked.Check, mesh.DeviceAsks, asked.Pubkey) {
		return &failure{
			Code: "wrong_key", Message: "the key that the broker shows is not that of the machine with this code; nothing was approved",
			Hint: "is the code typed right? if it is, somebody is between you and that machine: do not approve it", Exit: exitPermission,
		}
	}
	config, err := mesh.LoadConfig(dir)
	if err != nil {
		return err
	}
	var send []mesh.Joined
	if !c.cmd.Bool("without-meshes") && !secret.IsZero() && asked.Pubkey != "" && !key.IsZero() {
		send = sealable(config, a.BrokerURL)
	}
	name := cleanLine(asked.Hostname)
	question := fmt.Sprintf("sign in %s (%s %s, asked from %s) as %s, and send it %s with their keys?", quoted(name), cleanLine(asked.Platform), cleanLine(asked.Arch), cleanLine(asked.From), cleanLine(a.User.DisplayName), plural(len(send), "membership"))
	if err := c.confirm(question); err != nil {
		return err
	}
	var decision wire.DeviceDecision
	if !secret.IsZero() && asked.Pubkey != "" && !key.IsZero() {
		content := account.Content{
			Account: a.User.ID, Admit: secret.Vouch(mesh.DeviceAdmits, key.PublicKey(), asked.Pubkey), Name: thisDevice(key).Hostname, Meshes: send, Trusted: a.Trusted,
		}
		box, err := account.Seal(key, asked.Pubkey, content, rand.Reader)
		if err != nil {
			return err
		}
		decision.Package = &box
		// Before the broker is told: a machine that is let in and not remembered would have to be named by its key later.
		a.Trust(account.TrustedPeer{Pubkey: asked.Pubkey, Name: asked.Hostname})
		if err := a.Save(dir); err != nil {
			return err
		}
	}
	if err := client.Decide(ctx, user, decision); err != nil {
		if decision.Package != nil {
			a.Distrust(asked.Pubkey)
			err = errors.Join(err, a.Save(dir))
		}
		return err
	}
	sent := []string{}
	for _, j := range send {
		sent = append(sent, j.Slug)
	}
	return c.ui.result(map[string]any{"ok": true, "approved": true, "hostname": name, "device_pubkey": asked.Pubkey, "sent": sent}, func() error {
		if err := c.ui.print("signed in %s", name); err != nil || len(sent) == 0 {
			return err
		}
		return c.ui.print("  sent  %s", strings.Join(sent, ", "))
	})
}

func loginDenyVerb() verb {
	return verb{
		name: "deny", args: "CODE", short: "turn a machine away that shows CODE",
		examples: []string{"claudemesh login deny ABCD-2345"},
		fails:    []string{"2  this machine is not signed in", "3  the code is malformed", "5  the code is not known or too old", "6  decided about already"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh login deny CODE"); err != nil {
				return err
			}
			user, _, err := mesh.ParseDeviceCode(c.args()[0])
			if err != nil {
				return usagef("%v", err)
			}
			_, _, client, err := c.signedIn()
			if err != nil {
				return err
			}
			if err := client.Decide(ctx, user, wire.DeviceDecision{Deny: true}); err != nil {
				return err
			}
			return c.ui.result(map[string]any{"ok": true, "approved": false}, func() error { return c.ui.print("the machine was turned away") })
		},
	}
}

func loginPassVerb() verb {
	return verb{
		name: "pass", args: "", short: "make a pass that approves one machine on the broker's page",
		long:     `The pass stands on stdout, is good for ten minutes and for one machine. For when the code is at hand in a browser and this terminal is not.`,
		examples: []string{"claudemesh login pass"},
		fails:    []string{"2  this machine is not signed in", "4  the broker cannot be reached"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh login pass"); err != nil {
				return err
			}
			_, _, client, err := c.signedIn()
			if err != nil {
				return err
			}
			out, err := client.Pass(ctx)
			if err != nil {
				return err
			}
			return c.ui.result(map[string]any{"ok": true, "pass": out.Pass, "expires_at": out.ExpiresAt}, func() error { return c.ui.print("%s", cleanLine(out.Pass)) })
		},
	}
}
