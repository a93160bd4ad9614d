package daemon

import (
	"context"
	"encoding/base64"
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
	invite, token, err := m.newInvite(req.BrokerURL, role, d.opt.Clock.Now().Add(life))
	if err != nil {
		return nil, &bus.APIError{Code: 400, Reason: "bad_invite", Detail: err.Error()}
	}
	fields, err := json.Marshal(wire.InviteCreate{Token: token, MaxUses: req.MaxUses})
	if err != nil {
		return nil, fmt.Errorf("encode invite: %w", err)
	}
	if _, err := m.call(ctx, m.links.Member(), wire.TypeInviteCreate, fields); err != nil {
		return nil, err
	}
	out := bus.MeshInvite{Mesh: m.joined.Slug, Invite: mesh.InviteLink(token), ExpiresAt: invite.ExpiresAt, MaxUses: req.MaxUses}
	if u, err := url.Parse(req.BrokerURL); err == nil && isLoopback(u.Hostname()) {
		out.Note = "the broker listens on this machine only: the invite works for other users and directories of this machine"
	}
	return out, nil
}

// newInvite signs an invite with the member's key; the broker accepts it only if that member owns the mesh.
func (m *meshRun) newInvite(brokerURL, role string, expires time.Time) (mesh.Invite, string, error) {
	root := make([]byte, 32) // the invite format asks for a root key; nothing is derived from it
	if _, err := io.ReadFull(m.d.opt.Rand, root); err != nil {
		return mesh.Invite{}, "", fmt.Errorf("make root key: %w", err)
	}
	return mesh.NewInvite(m.member, mesh.Invite{
		MeshID: m.joined.MeshID, MeshSlug: m.joined.Slug, BrokerURL: brokerURL, ExpiresAt: expires.Unix(),
		MeshRootKey: base64.RawURLEncoding.EncodeToString(root), Role: role,
	})
}
