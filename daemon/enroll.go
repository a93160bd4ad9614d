package daemon

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// Joining by invite. There is one way for all forms: a short code becomes the token it stands for, and a token is redeemed at the broker it names. Only a
// code that stands for no token is claimed.

func (d *Daemon) joinMesh(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.MeshJoin
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	d.config.Lock()
	defer d.config.Unlock()
	config, err := mesh.LoadConfig(d.opt.ConfigDir)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	name := d.nameFor(req.DisplayName)
	base, code, short := mesh.InviteCode(req.Invite)
	if !short {
		return d.redeem(ctx, config, req.Invite, name)
	}
	at := req.BrokerURL
	switch {
	case base != "":
		at = socketURL(base)
	case at == "":
		return nil, &bus.APIError{Code: 400, Reason: "broker_required", Detail: "a code alone does not say which broker it is of: name that with --broker URL, or use the whole link"}
	}
	var found wire.InviteCode
	status, err := d.ask(ctx, brokerRequest{method: http.MethodGet, brokerURL: at, path: "/api/public/invite-code/" + code}, &found)
	switch {
	case status == http.StatusNotFound && err != nil: // a broker without a resolver may still know claims
		return d.claim(ctx, config, at, code, found, name)
	case err != nil:
		return nil, err
	case status == http.StatusTooManyRequests:
		return nil, &bus.APIError{Code: 503, Reason: "rate_limited", Detail: "the broker has had too many lookups from this address; try again in a minute"}
	case status != http.StatusOK || !found.Found:
		return nil, joinError(status, "invite_not_found")
	case found.Token == "":
		return d.claim(ctx, config, at, code, found, name)
	}
	return d.redeem(ctx, config, found.Token, name)
}

// redeem joins by a v1 token.
func (d *Daemon) redeem(ctx context.Context, config *mesh.Config, text, name string) (any, error) {
	invite, token, err := mesh.ParseInvite(text)
	if err != nil {
		return nil, &bus.APIError{Code: 400, Reason: "bad_invite", Detail: err.Error()}
	}
	if invite.Expired(d.opt.Clock.Now()) {
		at := time.Unix(invite.ExpiresAt, 0).UTC().Format(time.RFC3339)
		return nil, &bus.APIError{Code: 410, Reason: "invite_expired", Detail: "the invite expired at " + at + "; ask for a new one"}
	}
	slug, err := freeSlug(config, invite.MeshSlug, invite.MeshID)
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
	var reply wire.JoinReply
	status, err := d.post(ctx, invite.BrokerURL, "/join", "", wire.JoinRequest{InviteToken: token, InvitePayload: payload, PeerPubkey: member.PublicKey(), DisplayName: name}, &reply)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK || !reply.OK || reply.MemberID == "" {
		return nil, joinError(status, reply.Error)
	}
	return d.adopt(mesh.Joined{
		MeshID: invite.MeshID, MemberID: reply.MemberID, Slug: slug, Name: invite.MeshSlug, Pubkey: member.PublicKey(), SecretKey: member.SecretHex(),
		BrokerURL: invite.BrokerURL, JoinedAt: wire.Timestamp(d.opt.Clock.Now()),
	}, name, reply.AlreadyMember)
}

// claim joins by a version 2 invite. What the broker answers is believed only as far as the owner has signed it.
func (d *Daemon) claim(ctx context.Context, config *mesh.Config, brokerURL, code string, found wire.InviteCode, name string) (any, error) {
	if found.MeshID != "" {
		if _, err := freeSlug(config, found.MeshSlug, found.MeshID); err != nil {
			return nil, err // before a use is spent
		}
	}
	member, err := mesh.NewIdentity(d.opt.Rand)
	if err != nil {
		return nil, fmt.Errorf("make member key: %w", err)
	}
	recipient, err := mesh.ClaimKey(member.PublicKey())
	if err != nil {
		return nil, fmt.Errorf("make claim key: %w", err)
	}
	var reply wire.ClaimReply
	body := wire.ClaimRequest{PeerPubkey: member.PublicKey(), RecipientX25519: recipient, DisplayName: name}
	status, err := d.post(ctx, brokerURL, "/invites/"+code+"/claim", "", body, &reply)
	if err != nil {
		var e *bus.APIError
		if errors.As(err, &e) && status == http.StatusNotFound {
			return nil, joinError(status, "invite_not_found")
		}
		return nil, err
	}
	if status != http.StatusOK {
		return nil, joinError(status, claimError(status, reply.Error))
	}
	if reply.PeerPubkey != member.PublicKey() {
		return nil, &bus.APIError{Code: 502, Reason: "broker_refused", Detail: "the broker claimed the invite for a key that cannot connect; ask for a version 1 invite"}
	}
	root, err := mesh.OpenRootKey(member, reply.SealedRootKey)
	if err == nil {
		err = mesh.CheckClaim(reply.CanonicalV2, reply.SignatureV2, reply.MeshID, reply.Role, reply.OwnerPubkey)
	}
	if err != nil {
		return nil, &bus.APIError{Code: 502, Reason: "broker_refused", Detail: "the broker's answer to the claim: " + err.Error()}
	}
	slug, err := freeSlug(config, reply.MeshSlug, reply.MeshID)
	if err != nil {
		return nil, err
	}
	return d.adopt(mesh.Joined{
		MeshID: reply.MeshID, MemberID: reply.MemberID, Slug: slug, Name: reply.MeshSlug, Pubkey: member.PublicKey(), SecretKey: member.SecretHex(),
		BrokerURL: brokerURL, JoinedAt: wire.Timestamp(d.opt.Clock.Now()), RootKey: base64.RawURLEncoding.EncodeToString(root), InviteVersion: 2,
	}, name, reply.AlreadyMember)
}

// claimError is the name that a refused claim has among those of /join.
func claimError(status int, code string) string {
	switch {
	case status == http.StatusNotFound:
		return "invite_not_found"
	case status == http.StatusGone:
		return "invite_" + code
	}
	return code
}

// freeSlug is the local name of a mesh that is being joined. Slugs are unique on this machine, not in the world: a second mesh of the same slug gets a number.
func freeSlug(c *mesh.Config, name, meshID string) (string, error) {
	base, err := mesh.Slugify(name)
	if err != nil || meshID == "" {
		return "", &bus.APIError{Code: 400, Reason: "bad_invite", Detail: "the invite's mesh cannot be used: it has no name or no id"}
	}
	taken := map[string]bool{}
	for _, j := range c.Meshes {
		taken[j.Slug] = true
		if j.MeshID == meshID {
			return "", &bus.APIError{Code: 409, Reason: "mesh_exists", Detail: fmt.Sprintf("this mesh is joined already, as %q", j.Slug)}
		}
	}
	slug := base
	for n := 2; taken[slug]; n++ {
		slug = fmt.Sprintf("%s-%d", base, n)
	}
	return slug, nil
}

func joinError(status int, code string) error {
	text := map[string]string{
		"invite_bad_signature":  "the invite's signature is wrong: it was damaged or forged",
		"mesh_not_found":        "the broker does not know this mesh",
		"invite_owner_mismatch": "the invite was not signed by the mesh's owner",
		"invite_not_found":      "the broker does not know this invite",
		"invite_revoked":        "the invite was revoked",
		"invite_expired":        "the invite has expired; ask for a new one",
		"invite_exhausted":      "the invite has been used up; ask for a new one",
	}[code]
	if text == "" {
		text = fmt.Sprintf("the broker refused the invite: %s (HTTP %d)", printable(code), status)
	}
	return &bus.APIError{Code: 403, Reason: "join_refused", Detail: text, Data: map[string]any{"broker_code": code}}
}
