package daemon

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"claudemesh/broker"
	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// Membership: creating, joining and sharing meshes. The daemon is the only writer of config.json, so two joins at once cannot lose one.

const (
	enrollTimeout  = 10 * time.Second
	maxEnrollReply = 64 << 10
	defaultUses    = 1
	defaultInvite  = 7 * 24 * time.Hour
	longestInvite  = 90 * 24 * time.Hour
)

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

func (d *Daemon) joinMesh(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.MeshJoin
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	invite, token, err := mesh.ParseInvite(req.Invite)
	if err != nil {
		return nil, &bus.APIError{Code: 400, Reason: "bad_invite", Detail: err.Error()}
	}
	if invite.Expired(d.opt.Clock.Now()) {
		at := time.Unix(invite.ExpiresAt, 0).UTC().Format(time.RFC3339)
		return nil, &bus.APIError{Code: 410, Reason: "invite_expired", Detail: "the invite expired at " + at + "; ask for a new one"}
	}
	d.config.Lock()
	defer d.config.Unlock()
	config, err := mesh.LoadConfig(d.opt.ConfigDir)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	slug, err := freeSlug(config, invite)
	if err != nil {
		return nil, err
	}
	member, err := mesh.NewIdentity(d.opt.Rand)
	if err != nil {
		return nil, fmt.Errorf("make member key: %w", err)
	}
	payload, err := json.Marshal(invite)
	if err != nil {
		return nil, fmt.Errorf("encode invite: %w", err)
	}
	name := d.nameFor(req.DisplayName)
	var reply wire.JoinReply
	status, err := d.post(ctx, invite.BrokerURL, "/join", "", wire.JoinRequest{InviteToken: token, InvitePayload: payload, PeerPubkey: member.PublicKey(), DisplayName: name}, &reply)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK || !reply.OK || reply.MemberID == "" {
		return nil, joinError(status, reply)
	}
	return d.adopt(mesh.Joined{
		MeshID: invite.MeshID, MemberID: reply.MemberID, Slug: slug, Name: invite.MeshSlug, Pubkey: member.PublicKey(), SecretKey: member.SecretHex(),
		BrokerURL: invite.BrokerURL, JoinedAt: wire.Timestamp(d.opt.Clock.Now()),
	}, name, reply.AlreadyMember)
}

// freeSlug is the local name of the invite's mesh. Slugs are unique on this machine, not in the world: a second mesh of the same slug gets a number.
func freeSlug(c *mesh.Config, invite mesh.Invite) (string, error) {
	base, err := mesh.Slugify(invite.MeshSlug)
	if err != nil {
		return "", &bus.APIError{Code: 400, Reason: "bad_invite", Detail: "the invite's mesh name cannot be used: " + err.Error()}
	}
	taken := map[string]bool{}
	for _, j := range c.Meshes {
		taken[j.Slug] = true
		if j.MeshID == invite.MeshID {
			return "", &bus.APIError{Code: 409, Reason: "mesh_exists", Detail: fmt.Sprintf("this mesh is joined already, as %q", j.Slug)}
		}
	}
	slug := base
	for n := 2; taken[slug]; n++ {
		slug = fmt.Sprintf("%s-%d", base, n)
	}
	return slug, nil
}

func joinError(status int, reply wire.JoinReply) error {
	text := map[string]string{
		"invite_bad_signature":  "the invite's signature is wrong: it was damaged or forged",
		"mesh_not_found":        "the broker does not know this mesh",
		"invite_owner_mismatch": "the invite was not signed by the mesh's owner",
		"invite_not_found":      "the broker does not know this invite",
		"invite_revoked":        "the invite was revoked",
		"invite_expired":        "the invite has expired; ask for a new one",
		"invite_exhausted":      "the invite has been used up; ask for a new one",
	}[reply.Error]
	if text == "" {
		text = fmt.Sprintf("the broker refused the invite: %s (HTTP %d)", printable(reply.Error), status)
	}
	return &bus.APIError{Code: 403, Reason: "join_refused", Detail: text, Data: map[string]any{"broker_code": reply.Error}}
}

// post sends JSON to a broker's HTTP side and reads a JSON answer of any status. The broker is reached the way its links are.
func (d *Daemon) post(ctx context.Context, brokerURL, path, bearer string, body, reply any) (int, error) {
	base, err := httpBase(brokerURL)
	if err != nil {
		return 0, &bus.APIError{Code: 400, Reason: "bad_broker_url", Detail: err.Error()}
	}
	data, err := json.Marshal(body)
	if err != nil {
		return 0, fmt.Errorf("encode request: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, enrollTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+path, bytes.NewReader(data))
	if err != nil {
		return 0, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	client := &http.Client{
		Transport:     &http.Transport{DialContext: d.dial, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, &bus.APIError{Code: 503, Reason: "broker_unreachable", Detail: fmt.Sprintf("the broker at %s cannot be reached: %v", brokerURL, unwrapURL(err))}
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxEnrollReply))
	if err != nil {
		return 0, &bus.APIError{Code: 503, Reason: "broker_unreachable", Detail: fmt.Sprintf("the broker at %s broke off: %v", brokerURL, err)}
	}
	if err := json.Unmarshal(answer, reply); err != nil {
		return 0, &bus.APIError{Code: 502, Reason: "broker_refused", Detail: fmt.Sprintf("%s answered HTTP %d without JSON: is it a claudemesh broker?", brokerURL, res.StatusCode)}
	}
	return res.StatusCode, nil
}

// unwrapURL drops the request line that net/http puts in front of its errors: it may hold what does not belong in a message.
func unwrapURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func httpBase(brokerURL string) (string, error) {
	u, err := url.Parse(brokerURL)
	if err != nil {
		return "", fmt.Errorf("broker url: %w", err)
	}
	switch u.Scheme {
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme = "https"
	default:
		return "", fmt.Errorf("a broker url begins with ws:// or wss://, not %q", brokerURL)
	}
	if u.Host == "" || u.User != nil {
		return "", fmt.Errorf("broker url %q names no host, or carries a password", brokerURL)
	}
	return u.Scheme + "://" + u.Host + strings.TrimSuffix(u.Path, "/ws"), nil
}

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
	if _, err := httpBase(req.BrokerURL); err != nil {
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
