package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// Joining by invite, and the HTTP side of brokers.

const (
	enrollTimeout  = 10 * time.Second
	maxEnrollReply = 64 << 10
)

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
	base, err := bridge.HTTPBase(brokerURL)
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
