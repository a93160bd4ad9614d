package broker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// Redeeming an invite makes its holder a member: by the v1 token (POST /join) or by the short code (POST /invites/{code}/claim). Both end in redeem.

// joinRefused is a reason of the reference (or, for the last two, ours) why /join fails; it is the answer's error field.
type joinRefused string

func (j joinRefused) Error() string { return string(j) }

const (
	joinFields        joinRefused = "invite_token, invite_payload, peer_pubkey, display_name required"
	joinKeyShape      joinRefused = "peer_pubkey must be 64 hex chars (32 bytes)"
	joinBadSignature  joinRefused = "invite_bad_signature"
	joinNoMesh        joinRefused = "mesh_not_found"
	joinOwnerMismatch joinRefused = "invite_owner_mismatch"
	joinNoInvite      joinRefused = "invite_not_found"
	joinRevoked       joinRefused = "invite_revoked"
	joinExpired       joinRefused = "invite_expired"
	joinExhausted     joinRefused = "invite_exhausted"
	joinInsertFailed  joinRefused = "member_insert_failed"
	joinBadName       joinRefused = "display_name must be 1 to 128 bytes without control characters"
	joinMemberRevoked joinRefused = "member_revoked"
)

// join redeems a v1 token. The order of the checks is the reference's; beyond it, the payload must be what the token holds, the expiry the owner signed is
// honoured, and a revoked key stays out. Errors are joinRefused or the store's.
func (b *Broker) join(ctx context.Context, req wire.JoinRequest) (memberID string, already bool, err error) {
	var payload mesh.Invite
	if req.InviteToken == "" || len(req.InvitePayload) == 0 || req.PeerPubkey == "" || req.DisplayName == "" {
		return "", false, joinFields
	}
	if !mesh.ValidKey(req.PeerPubkey) {
		return "", false, joinKeyShape
	}
	if !validName(req.DisplayName) {
		return "", false, joinBadName
	}
	// The token's own signature is checked by ParseInvite; a payload that equals it is therefore signed too, and one that does not is forged.
	in, token, err := mesh.ParseInvite(req.InviteToken)
	if jsonErr := json.Unmarshal(req.InvitePayload, &payload); err != nil || jsonErr != nil || payload != in {
		return "", false, joinBadSignature
	}
	b.mu.RLock()
	m, closed := b.meshes[in.MeshID], b.closed
	b.mu.RUnlock()
	switch {
	case closed:
		return "", false, ErrClosed
	case m == nil:
		return "", false, joinNoMesh
	case m.rec.OwnerPubkey != in.OwnerPubkey:
		return "", false, joinOwnerMismatch
	case in.Expired(b.now()):
		return "", false, joinExpired
	}
	return b.redeem(ctx, m, tokenHash(token), req.PeerPubkey, req.DisplayName)
}

// redeem enrolls a key by an invite of m. A key that is a member already stays what it is and uses nothing up.
func (b *Broker) redeem(ctx context.Context, m *meshState, name, pubkey, displayName string) (memberID string, already bool, err error) {
	b.joining.Lock()
	defer b.joining.Unlock()
	rec, revision, err := b.store.invite(ctx, m.rec.ID, name)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return "", false, joinNoInvite
	case err != nil:
		return "", false, err
	case rec.Revoked:
		return "", false, joinRevoked
	case b.now().Unix() > rec.Expires:
		return "", false, joinExpired
	}
	b.mu.RLock()
	who, members, gone := m.members[pubkey], len(m.members), b.meshes[m.rec.ID] != m
	taken := m.sessions[pubkey] != nil || len(m.readers[pubkey]) > 0
	b.mu.RUnlock()
	switch {
	case gone:
		return "", false, joinNoMesh
	case who != nil && who.RevokedAt != 0:
		return "", false, joinMemberRevoked
	case who != nil:
		return who.ID, true, nil
	case members >= b.lim.MembersPerMesh, taken:
		return "", false, joinInsertFailed
	case rec.Used >= rec.MaxUses:
		return "", false, joinExhausted
	}
	id, err := b.enroll(ctx, m, namedInvite{name, rec, revision}, pubkey, displayName)
	return id, false, err
}

// enroll counts the use, by a write that fails if anybody else counted one meanwhile, and then makes the member.
func (b *Broker) enroll(ctx context.Context, m *meshState, n namedInvite, pubkey, displayName string) (string, error) {
	id, err := newID(b.cfg.Rand)
	if err != nil {
		return "", err
	}
	n.rec.Used++
	if err := b.store.replaceInvite(ctx, n); err != nil {
		return "", fmt.Errorf("count use: %w", err)
	}
	who := memberRecord{ID: id, Pubkey: pubkey, Name: strings.TrimSpace(displayName), Role: n.rec.Role, JoinedAt: b.now().UnixMilli()}
	if err := b.store.create(ctx, memberKey(m.rec.ID, who.Pubkey), who); err != nil {
		return "", fmt.Errorf("enroll member: %w", err)
	}
	b.mu.Lock()
	m.members[who.Pubkey] = &member{memberRecord: who}
	b.mu.Unlock()
	return id, nil
}

// byCode finds the invite that a code stands for: nil when there is none. It is for lookups that were counted against their address.
func (b *Broker) byCode(ctx context.Context, code string) (*meshState, namedInvite, error) {
	b.mu.RLock()
	at, known := b.codes[mesh.NormalInviteCode(code)]
	m := b.meshes[at.meshID]
	b.mu.RUnlock()
	if !known || m == nil {
		return nil, namedInvite{}, nil
	}
	rec, revision, err := b.store.invite(ctx, at.meshID, at.name)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, namedInvite{}, nil
	}
	return m, namedInvite{at.name, rec, revision}, err
}

// claimStatus says how a refusal of redeem is answered to a claim.
func claimStatus(no joinRefused) (status int, code string) {
	switch no {
	case joinNoInvite, joinNoMesh:
		return http.StatusNotFound, "not_found"
	case joinRevoked:
		return http.StatusGone, "revoked"
	case joinExpired:
		return http.StatusGone, "expired"
	case joinExhausted:
		return http.StatusGone, "exhausted"
	case joinMemberRevoked:
		return http.StatusForbidden, "member_revoked"
	}
	return http.StatusConflict, string(no)
}

// claim redeems an invite by its code. Everything that can be wrong with the request is found before a use is counted (defect 63).
func (b *Broker) claim(ctx context.Context, code string, req wire.ClaimRequest) (int, wire.ClaimReply) {
	no := func(status int, code, detail string) (int, wire.ClaimReply) {
		return status, wire.ClaimReply{Error: code, Detail: detail}
	}
	if !mesh.ValidKey(req.PeerPubkey) {
		return no(http.StatusBadRequest, wire.CodeMalformed, "peer_pubkey (64 hex, ed25519) required: a member without it could never say hello")
	}
	if req.DisplayName == "" {
		req.DisplayName = "member-" + req.PeerPubkey[:8]
	}
	if !validName(req.DisplayName) {
		return no(http.StatusBadRequest, wire.CodeMalformed, string(joinBadName))
	}
	recipient := req.RecipientX25519
	if recipient == "" {
		var err error
		if recipient, err = mesh.ClaimKey(req.PeerPubkey); err != nil {
			return no(http.StatusBadRequest, wire.CodeMalformed, "peer_pubkey is no key to seal for")
		}
	}
	m, n, err := b.byCode(ctx, code)
	if err != nil {
		b.log.Error("claim failed", "err", err)
		return no(http.StatusInternalServerError, wire.CodeInternal, "")
	}
	if m == nil {
		return no(http.StatusNotFound, "not_found", "")
	}
	root, err := base64.RawURLEncoding.DecodeString(n.rec.RootKey)
	if err != nil || n.rec.SignatureV2 == "" {
		return no(http.StatusNotFound, "not_found", "this invite has no claim; join by its token")
	}
	sealed, err := mesh.SealRootKey(recipient, root, b.cfg.Rand)
	if err != nil {
		return no(http.StatusBadRequest, wire.CodeMalformed, "recipient_x25519_pubkey is no key to seal for")
	}
	id, already, err := b.redeem(ctx, m, n.name, req.PeerPubkey, req.DisplayName)
	var refusal joinRefused
	switch {
	case errors.As(err, &refusal):
		status, code := claimStatus(refusal)
		return no(status, code, "")
	case err != nil:
		b.log.Error("claim failed", "err", err)
		return no(http.StatusInternalServerError, wire.CodeInternal, "")
	}
	b.mu.RLock()
	rec := m.rec
	b.mu.RUnlock()
	return http.StatusOK, wire.ClaimReply{
		SealedRootKey: sealed, MeshID: rec.ID, MemberID: id, OwnerPubkey: rec.OwnerPubkey, PeerPubkey: req.PeerPubkey, MeshSlug: rec.Slug, Role: n.rec.Role,
		CanonicalV2: string(mesh.InviteV2String(rec.ID, n.rec.InviteID, n.rec.Expires, n.rec.Role, rec.OwnerPubkey)), SignatureV2: n.rec.SignatureV2,
		BrokerURL: b.cfg.PublicURL, AlreadyMember: already,
	}
}
