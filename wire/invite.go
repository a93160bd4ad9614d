package wire

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Invites: how the owner registers, lists and revokes them over its connection, and the bodies of the HTTP routes by which they are redeemed.

// Limits of invites.
const (
	// MaxInviteUses bounds max_uses.
	MaxInviteUses = 1000
	// MaxInviteList bounds how many invites a mesh may have at once, expired ones that were swept not counted.
	MaxInviteList = 500
)

// InviteCreate registers an invite with the broker, so that its uses can be counted and a short code can stand for it. It holds a v1 token, the parts of a v2
// capability (InviteID, Role, ExpiresAt and SignatureV2, the owner's signature over mesh.InviteV2String), or both; with a token, role and expiry are the
// token's. Only the mesh owner may. Ours. Over HTTP the same object is the body of POST /cli/mesh/{slug}/invite.
type InviteCreate struct {
	Type        string `json:"type,omitempty"`
	Token       string `json:"invite_token,omitempty"`
	MaxUses     int    `json:"max_uses"`
	InviteID    string `json:"invite_id,omitempty"`  // up to 64 of [0-9A-Za-z]
	Role        string `json:"role,omitempty"`       // member or admin
	ExpiresAt   int64  `json:"expires_at,omitempty"` // Unix seconds
	SignatureV2 string `json:"signature_v2,omitempty"`
	ReqID       string `json:"_reqId,omitempty"`
}

// Validate checks presence, values and lengths; token and signature are checked by package mesh.
func (i InviteCreate) Validate() error {
	if i.MaxUses < 1 || i.MaxUses > MaxInviteUses {
		return fmt.Errorf("%w: max_uses must be 1 to %d", ErrInvalid, MaxInviteUses)
	}
	if i.Token == "" && i.SignatureV2 == "" {
		return fmt.Errorf("%w: invite_token or signature_v2 missing: only the owner's key can make an invite", ErrInvalid)
	}
	if i.SignatureV2 != "" && (i.InviteID == "" || len(i.InviteID) > 64 || strings.Trim(i.InviteID, base62) != "") {
		return fmt.Errorf("%w: invite_id must be 1 to 64 letters and digits", ErrInvalid)
	}
	if i.Token == "" && i.Role != "member" && i.Role != "admin" {
		return fmt.Errorf("%w: role must be member or admin", ErrInvalid)
	}
	return firstError(tooLong("invite_token", i.Token, MaxTextBytes), tooLong("signature_v2", i.SignatureV2, 128))
}

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// InviteCreated answers InviteCreate. Code is the short code, URL the short link at the address the broker knows of itself.
type InviteCreated struct {
	Type      string `json:"type"`
	ID        string `json:"id"` // names the invite for InviteRevoke
	Code      string `json:"code"`
	URL       string `json:"url,omitempty"`
	ExpiresAt int64  `json:"expires_at"` // Unix seconds
	MaxUses   int    `json:"max_uses"`
	ReqID     string `json:"_reqId,omitempty"`
}

// InviteCreatedHTTP answers POST /cli/mesh/{slug}/invite: the reference's shape, ExpiresAt in TimeFormat.
type InviteCreatedHTTP struct {
	URL       string `json:"url"`
	Code      string `json:"code"`
	ExpiresAt string `json:"expires_at"`
	Emailed   bool   `json:"emailed"` // always false: this broker sends no mail
	ID        string `json:"id"`
	MaxUses   int    `json:"max_uses"`
}

// InviteInfo is one invite in a list: never its token.
type InviteInfo struct {
	ID        string `json:"id"`
	Code      string `json:"code"`
	Role      string `json:"role"`
	ExpiresAt int64  `json:"expires_at"` // Unix seconds
	MaxUses   int    `json:"max_uses"`
	Used      int    `json:"used"`
	Revoked   bool   `json:"revoked,omitempty"`
	CreatedAt int64  `json:"created_at"` // Unix milliseconds; 0: not known
}

// Invites answers TypeInviteList, newest first.
type Invites struct {
	Type    string       `json:"type"`
	Invites []InviteInfo `json:"invites"`
	ReqID   string       `json:"_reqId,omitempty"`
}

// InviteRevoke ends an invite, by its id or its code. Revoking one twice is no error.
type InviteRevoke struct {
	Type   string `json:"type"`
	Invite string `json:"invite"`
	ReqID  string `json:"_reqId,omitempty"`
}

// Validate checks presence and length.
func (i InviteRevoke) Validate() error {
	return firstError(required("invite", i.Invite), tooLong("invite", i.Invite, 64))
}

// InviteRevoked answers it.
type InviteRevoked struct {
	Type  string     `json:"type"`
	Was   InviteInfo `json:"invite"`
	ReqID string     `json:"_reqId,omitempty"`
}

// InviteCode answers GET /api/public/invite-code/{code}. An invite that has no v1 token is found with Version 2 and no Token: it is redeemed by a claim.
type InviteCode struct {
	Found   bool   `json:"found"`
	Token   string `json:"token,omitempty"`
	Version int    `json:"version,omitempty"`
	// Of an invite without token: what a claim would join.
	MeshID   string `json:"mesh_id,omitempty"`
	MeshSlug string `json:"mesh_slug,omitempty"`
	Error    string `json:"error,omitempty"`
}

// ClaimRequest is the body of POST /invites/{code}/claim. PeerPubkey is the ed25519 key that becomes the member: ours, and required, because a member whose
// key the broker does not know can never say hello (defect 62). RecipientX25519 (32 bytes, base64url without padding) is what the root key is sealed for;
// empty: the curve25519 form of PeerPubkey.
type ClaimRequest struct {
	PeerPubkey      string `json:"peer_pubkey"`
	RecipientX25519 string `json:"recipient_x25519_pubkey,omitempty"`
	DisplayName     string `json:"display_name,omitempty"`
}

// ClaimReply answers it. CanonicalV2 and SignatureV2 are what the mesh's owner signed, so that the claimer need not trust the broker about the mesh.
// Everything from PeerPubkey on is ours.
type ClaimReply struct {
	SealedRootKey string `json:"sealed_root_key,omitempty"`
	MeshID        string `json:"mesh_id,omitempty"`
	MemberID      string `json:"member_id,omitempty"`
	OwnerPubkey   string `json:"owner_pubkey,omitempty"`
	CanonicalV2   string `json:"canonical_v2,omitempty"`

	SignatureV2   string `json:"signature,omitempty"`
	PeerPubkey    string `json:"peer_pubkey,omitempty"`
	MeshSlug      string `json:"mesh_slug,omitempty"`
	BrokerURL     string `json:"broker_url,omitempty"`
	Role          string `json:"role,omitempty"`
	AlreadyMember bool   `json:"already_member,omitempty"`

	Error  string `json:"error,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// JoinRequest is the body of POST /join: a v1 invite and the key that wants to become a member.
type JoinRequest struct {
	InviteToken   string          `json:"invite_token"`
	InvitePayload json.RawMessage `json:"invite_payload"`
	PeerPubkey    string          `json:"peer_pubkey"`
	DisplayName   string          `json:"display_name"`
}

// JoinReply answers POST /join. Error is a machine name of the reference (invite_expired, …).
type JoinReply struct {
	OK            bool   `json:"ok"`
	MemberID      string `json:"memberId,omitempty"`
	AlreadyMember bool   `json:"alreadyMember,omitempty"`
	Error         string `json:"error,omitempty"`
}
