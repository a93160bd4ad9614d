package broker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// maxInviteLife is the longest life of an invite when it is registered.
const maxInviteLife = 90 * 24 * time.Hour

func tokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// inviteCreate registers an invite that the mesh's owner has signed. Registering the same one again changes nothing.
func (c *conn) inviteCreate(data []byte, reqID string) {
	var f wire.InviteCreate
	if !c.decode(data, reqID, &f) {
		return
	}
	in, token, err := mesh.ParseInvite(f.Token)
	switch {
	case err != nil:
		c.fail(reqID, wire.CodeInvalid, err.Error())
		return
	case in.MeshID != c.mesh.rec.ID || in.OwnerPubkey != c.mesh.rec.OwnerPubkey:
		c.fail(reqID, wire.CodeInvalid, "the invite is for another mesh or by another owner")
		return
	case in.Expired(c.b.now()):
		c.fail(reqID, wire.CodeExpired, "the invite has expired")
		return
	case in.ExpiresAt > c.b.now().Add(maxInviteLife).Unix():
		c.fail(reqID, wire.CodeTTLTooLong, "an invite may live for 90 days at most")
		return
	}
	rec := inviteRecord{MeshID: in.MeshID, Role: in.Role, Expires: in.ExpiresAt, MaxUses: f.MaxUses}
	ctx, cancel := c.b.deadline()
	defer cancel()
	err = c.b.store.create(ctx, inviteKey(tokenHash(token)), rec)
	if errors.Is(err, jetstream.ErrKeyExists) {
		var had inviteRecord
		if had, _, err = c.b.store.invite(ctx, tokenHash(token)); err == nil {
			rec = had
		}
	}
	if err != nil {
		c.log.Error("invite not registered", "err", err)
		c.fail(reqID, wire.CodeInternal, "the store does not answer")
		return
	}
	c.reply(wire.InviteCreated{Type: wire.TypeInviteCreated, ExpiresAt: rec.Expires, MaxUses: rec.MaxUses, ReqID: reqID})
}

// invite returns a registered invite and the revision to replace it by; jetstream.ErrKeyNotFound when there is none.
func (s *store) invite(ctx context.Context, hash string) (rec inviteRecord, revision uint64, err error) {
	e, err := s.meta.Get(ctx, inviteKey(hash))
	if err != nil {
		return rec, 0, fmt.Errorf("read invite: %w", err)
	}
	if err := json.Unmarshal(e.Value(), &rec); err != nil {
		return rec, 0, fmt.Errorf("read invite: %w", err)
	}
	return rec, e.Revision(), nil
}

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
	joinMeshMismatch  joinRefused = "invite_mesh_mismatch"
	joinRevoked       joinRefused = "invite_revoked"
	joinExpired       joinRefused = "invite_expired"
	joinExhausted     joinRefused = "invite_exhausted"
	joinInsertFailed  joinRefused = "member_insert_failed"
	joinBadName       joinRefused = "display_name must be 1 to 128 bytes without control characters"
	joinMemberRevoked joinRefused = "member_revoked"
)

// join redeems an invite. The order of the checks is the reference's; beyond it, the payload must be what the token holds, the expiry the owner signed is
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

	b.joining.Lock()
	defer b.joining.Unlock()
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
	}
	hash := tokenHash(token)
	rec, revision, err := b.store.invite(ctx, hash)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return "", false, joinNoInvite
	case err != nil:
		return "", false, err
	case rec.MeshID != m.rec.ID:
		return "", false, joinMeshMismatch
	case rec.Revoked:
		return "", false, joinRevoked
	case b.now().Unix() > rec.Expires, in.Expired(b.now()):
		return "", false, joinExpired
	}
	b.mu.RLock()
	who, members := m.members[req.PeerPubkey], len(m.members)
	taken := m.sessions[req.PeerPubkey] != nil || len(m.readers[req.PeerPubkey]) > 0
	b.mu.RUnlock()
	switch {
	case who != nil && who.RevokedAt != 0:
		return "", false, joinMemberRevoked
	case who != nil:
		return who.ID, true, nil
	case members >= b.lim.MembersPerMesh, taken:
		return "", false, joinInsertFailed
	case rec.Used >= rec.MaxUses:
		return "", false, joinExhausted
	}
	return b.enroll(ctx, m, hash, rec, revision, in.Role, req)
}

// enroll counts the use, by a write that fails if anybody else counted one meanwhile, and then makes the member.
func (b *Broker) enroll(ctx context.Context, m *meshState, hash string, rec inviteRecord, revision uint64, role string, req wire.JoinRequest) (string, bool, error) {
	id, err := newID(b.cfg.Rand)
	if err != nil {
		return "", false, err
	}
	rec.Used++
	data, err := json.Marshal(rec)
	if err != nil {
		return "", false, err
	}
	if _, err := b.store.meta.Update(ctx, inviteKey(hash), data, revision); err != nil {
		return "", false, fmt.Errorf("count use of invite: %w", err)
	}
	who := memberRecord{ID: id, Pubkey: req.PeerPubkey, Name: strings.TrimSpace(req.DisplayName), Role: role, JoinedAt: b.now().UnixMilli()}
	if err := b.store.create(ctx, memberKey(m.rec.ID, who.Pubkey), who); err != nil {
		return "", false, fmt.Errorf("enroll member: %w", err)
	}
	b.mu.Lock()
	m.members[who.Pubkey] = &member{memberRecord: who}
	b.mu.Unlock()
	return id, false, nil
}
