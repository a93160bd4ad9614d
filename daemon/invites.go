package daemon

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"time"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// Inviting others into a mesh that this member owns.

const (
	defaultUses   = 1
	defaultInvite = 7 * 24 * time.Hour
	longestInvite = 90 * 24 * time.Hour
)

func (d *Daemon) shareMesh(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.MeshShare
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	m, err := d.mesh(req.Mesh)
	if err != nil {
		return nil, err
	}
	life := time.Duration(req.ExpiresIn) * time.Second
	switch {
	case req.MaxUses == 0:
		req.MaxUses = defaultUses
	case req.MaxUses < 0 || req.MaxUses > 1000:
		return nil, &bus.APIError{Code: 400, Reason: "bad_invite", Detail: "an invite can be used 1 to 1000 times"}
	}
	switch {
	case req.ExpiresIn == 0:
		life = defaultInvite
	case req.ExpiresIn < 0 || req.ExpiresIn > int64(longestInvite/time.Second):
		return nil, &bus.APIError{Code: 400, Reason: "bad_invite", Detail: "an invite lives 1 second to 90 days"}
	}
	if req.BrokerURL == "" {
		req.BrokerURL = m.joined.BrokerURL
	}
	if _, err := bridge.HTTPBase(req.BrokerURL); err != nil {
		return nil, &bus.APIError{Code: 400, Reason: "bad_broker_url", Detail: err.Error()}
	}
	role := req.Role
	if role == "" {
		role = "member"
	}
	frame, err := m.newInvite(req.BrokerURL, role, d.opt.Clock.Now().Add(life))
	if err != nil {
		return nil, &bus.APIError{Code: 400, Reason: "bad_invite", Detail: err.Error()}
	}
	frame.MaxUses = req.MaxUses
	var made wire.InviteCreated
	if err := m.askOwner(ctx, wire.TypeInviteCreate, frame, &made); err != nil {
		return nil, err
	}
	out := bus.MeshInvite{
		Mesh: m.joined.Slug, Invite: mesh.InviteLink(frame.Token), ID: printable(made.ID), Code: printable(made.Code), ExpiresAt: frame.ExpiresAt, MaxUses: req.MaxUses,
	}
	if base, err := bridge.HTTPBase(req.BrokerURL); err == nil && out.Code != "" {
		out.URL = base + "/i/" + out.Code
	}
	if u, err := url.Parse(req.BrokerURL); err == nil && isLoopback(u.Hostname()) {
		out.Note = "the broker listens on this machine only: the invite works for other users and directories of this machine"
	}
	return out, nil
}

// newInvite signs an invite in both forms with the member's key; the broker accepts it only if that member owns the mesh. The key never leaves this machine.
func (m *meshRun) newInvite(brokerURL, role string, expires time.Time) (f wire.InviteCreate, err error) {
	var random [mesh.RootKeySize + 16]byte // the invite format asks for a root key; nothing is derived from it
	if _, err := io.ReadFull(m.d.opt.Rand, random[:]); err != nil {
		return f, fmt.Errorf("make root key: %w", err)
	}
	in, token, err := mesh.NewInvite(m.member, mesh.Invite{
		MeshID: m.joined.MeshID, MeshSlug: m.joined.Slug, BrokerURL: brokerURL, ExpiresAt: expires.Unix(),
		MeshRootKey: base64.RawURLEncoding.EncodeToString(random[:mesh.RootKeySize]), Role: role,
	})
	if err != nil {
		return f, err
	}
	f = wire.InviteCreate{Token: token, InviteID: hex.EncodeToString(random[mesh.RootKeySize:]), Role: in.Role, ExpiresAt: in.ExpiresAt}
	f.SignatureV2 = m.member.Sign(mesh.InviteV2String(in.MeshID, f.InviteID, in.ExpiresAt, in.Role, in.OwnerPubkey))
	return f, nil
}

// askOwner makes a request that only the owner may make.
func (m *meshRun) askOwner(ctx context.Context, op string, in, out any) error {
	fields, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode %s: %w", op, err)
	}
	reply, err := m.call(ctx, m.links.Member(), op, fields)
	if err != nil {
		return err
	}
	if err := wire.Decode(reply, out); err != nil {
		return fmt.Errorf("read answer to %s: %w", op, err)
	}
	return nil
}

func (d *Daemon) listInvites(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.InviteQuery
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	m, err := d.mesh(req.Mesh)
	if err != nil {
		return nil, err
	}
	var list wire.Invites
	if err := m.askOwner(ctx, wire.TypeInviteList, struct{}{}, &list); err != nil {
		return nil, err
	}
	out := bus.InviteList{Mesh: m.joined.Slug, Invites: make([]bus.InviteInfo, 0, len(list.Invites))}
	for _, i := range list.Invites {
		out.Invites = append(out.Invites, inviteInfo(i))
	}
	return out, nil
}

func (d *Daemon) revokeInvite(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.InviteQuery
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	m, err := d.mesh(req.Mesh)
	if err != nil {
		return nil, err
	}
	var was wire.InviteRevoked
	if err := m.askOwner(ctx, wire.TypeInviteRevoke, wire.InviteRevoke{Invite: req.Invite}, &was); err != nil {
		return nil, err
	}
	return bus.InviteList{Mesh: m.joined.Slug, Invites: []bus.InviteInfo{inviteInfo(was.Was)}}, nil
}

func inviteInfo(i wire.InviteInfo) bus.InviteInfo {
	return bus.InviteInfo{
		ID: printable(i.ID), Code: printable(i.Code), Role: printable(i.Role), ExpiresAt: i.ExpiresAt, MaxUses: i.MaxUses, Used: i.Used, Revoked: i.Revoked,
		CreatedAt: i.CreatedAt,
	}
}
