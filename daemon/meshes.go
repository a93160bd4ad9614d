package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"claudemesh/broker"
	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// Membership: creating, joining and sharing meshes. The daemon is the only writer of config.json, so two joins at once cannot lose one.

func (d *Daemon) createMesh(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.MeshCreate
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	slug, err := mesh.Slugify(req.Name)
	if err != nil {
		return nil, &bus.APIError{Code: 400, Reason: "bad_name", Detail: err.Error()}
	}
	d.config.Lock()
	defer d.config.Unlock()
	if _, err := d.mesh(slug); err == nil {
		return nil, &bus.APIError{Code: 409, Reason: "mesh_exists", Detail: fmt.Sprintf("a mesh %q is joined already", slug)}
	}
	owner, err := mesh.NewIdentity(d.opt.Rand)
	if err != nil {
		return nil, fmt.Errorf("make member key: %w", err)
	}
	name := d.nameFor(req.DisplayName)
	j := mesh.Joined{Slug: slug, Name: strings.TrimSpace(req.Name), Pubkey: owner.PublicKey(), SecretKey: owner.SecretHex(), JoinedAt: wire.Timestamp(d.opt.Clock.Now())}
	if req.BrokerURL == "" {
		host, err := d.hostBroker(ctx)
		if err != nil {
			return nil, fmt.Errorf("start the broker of this machine: %w", err)
		}
		made, err := host.broker.CreateMesh(ctx, j.Name, j.Pubkey, name)
		if err != nil {
			return nil, createError(err)
		}
		j.MeshID, j.MemberID, j.BrokerURL = made.ID, made.MemberID, host.url
	} else {
		made, err := d.createRemote(ctx, req, j, name)
		if err != nil {
			return nil, err
		}
		j.MeshID, j.MemberID, j.BrokerURL = made.ID, made.MemberID, req.BrokerURL
	}
	return d.adopt(j, name, false)
}

func createError(err error) error {
	switch {
	case errors.Is(err, broker.ErrBadName), errors.Is(err, broker.ErrBadKey):
		return &bus.APIError{Code: 400, Reason: "bad_name", Detail: err.Error()}
	case errors.Is(err, broker.ErrFull):
		return &bus.APIError{Code: 507, Reason: "limit", Detail: err.Error()}
	default:
		return fmt.Errorf("create mesh: %w", err)
	}
}

// adopt writes a new membership to config.json and attaches it.
func (d *Daemon) adopt(j mesh.Joined, name string, already bool) (any, error) {
	err := mesh.UpdateConfig(d.opt.ConfigDir, func(c *mesh.Config) error {
		c.Meshes = append(c.Meshes, j)
		if c.DisplayName == "" {
			c.DisplayName = name
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("save membership: %w", storeError(err))
	}
	// What is kept of the same mesh from before it was left.
	for _, rename := range []func(context.Context, string, string) error{d.outbox.RenameMesh, d.inbox.RenameMesh, d.session.RenameMesh} {
		if err := rename(d.ctx, "*"+retirement(j), j.Slug); err != nil {
			return nil, err
		}
	}
	if err := d.attach(j); err != nil {
		return nil, fmt.Errorf("attach mesh: %w", err)
	}
	d.opt.Log.Info("mesh_joined", "mesh", j.Slug, "member", j.MemberID, "broker", j.BrokerURL)
	return bus.MeshJoined{
		Mesh: j.Slug, Name: j.Name, MeshID: j.MeshID, MemberID: j.MemberID, Pubkey: j.Pubkey, BrokerURL: j.BrokerURL, DisplayName: name, AlreadyMember: already,
	}, nil
}

func (d *Daemon) nameFor(asked string) string {
	if s := strings.TrimSpace(printable(asked)); s != "" {
		return s
	}
	return d.memberName()
}

func (d *Daemon) createRemote(ctx context.Context, req bus.MeshCreate, j mesh.Joined, name string) (wire.CreateMeshReply, error) {
	var reply wire.CreateMeshReply
	token, err := os.ReadFile(req.AdminTokenFile)
	if err != nil {
		return reply, &bus.APIError{Code: 400, Reason: "no_admin_token", Detail: fmt.Sprintf("the broker's admin token cannot be read: %v", err)}
	}
	body := wire.CreateMeshRequest{Name: j.Name, Pubkey: j.Pubkey, DisplayName: name}
	status, err := d.post(ctx, req.BrokerURL, "/cli/mesh/create", strings.TrimSpace(string(token)), body, &reply)
	if err != nil {
		return reply, err
	}
	if status != http.StatusOK && status != http.StatusCreated {
		return reply, &bus.APIError{Code: 502, Reason: "broker_refused", Detail: fmt.Sprintf("the broker did not create the mesh: %s (HTTP %d)", reply.Error, status)}
	}
	if reply.ID == "" || reply.MemberID == "" {
		return reply, &bus.APIError{Code: 502, Reason: "broker_refused", Detail: "the broker's answer names no mesh"}
	}
	return reply, nil
}
