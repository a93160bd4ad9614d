package wire

import "fmt"

// The mesh itself: making, renaming, deleting and leaving it. The frames are ours and go over the member's own connection; the HTTP bodies have the
// reference's shapes.

// MeshRename gives a mesh another slug, another name, or both. Only the owner may.
type MeshRename struct {
	Type  string `json:"type"`
	Slug  string `json:"slug,omitempty"`
	Name  string `json:"name,omitempty"`
	ReqID string `json:"_reqId,omitempty"`
}

// Validate checks presence and lengths.
func (m MeshRename) Validate() error {
	if m.Slug == "" && m.Name == "" {
		return fmt.Errorf("%w: slug or name missing", ErrInvalid)
	}
	return firstError(tooLong("slug", m.Slug, 63), tooLong("name", m.Name, MaxNameBytes))
}

// MeshRenamed answers it, and PATCH /api/cli/meshes/{slug}, with what holds now.
type MeshRenamed struct {
	Type  string `json:"type,omitempty"`
	Slug  string `json:"slug,omitempty"`
	Name  string `json:"name,omitempty"`
	Error string `json:"error,omitempty"`
	ReqID string `json:"_reqId,omitempty"`
}

// MeshDelete deletes a mesh and all that the broker holds of it, for good. Slug must be its slug, so that no stray request does it. Only the owner may.
type MeshDelete struct {
	Type  string `json:"type"`
	Slug  string `json:"slug"`
	ReqID string `json:"_reqId,omitempty"`
}

// Validate checks presence and length.
func (m MeshDelete) Validate() error {
	return firstError(required("slug", m.Slug), tooLong("slug", m.Slug, 63))
}

// MeshDeleted answers it; the connection is closed after it (CloseBanned, CodeMeshDeleted).
type MeshDeleted struct {
	Type    string `json:"type"`
	Deleted string `json:"deleted"` // the slug
	ReqID   string `json:"_reqId,omitempty"`
}

// MeshLeft answers TypeMeshLeave, by which a member ends its membership: the broker forgets it, and it may join again by a new invite. The connection is
// closed after it (CloseBanned, CodeLeft). The owner cannot leave.
type MeshLeft struct {
	Type  string `json:"type"`
	ReqID string `json:"_reqId,omitempty"`
}

// MeshRow is one mesh in the answer of GET /cli/meshes, as seen by the member who asks.
type MeshRow struct {
	ID          string `json:"id"`
	Slug        string `json:"slug"`
	Name        string `json:"name"`
	Role        string `json:"role"` // owner, admin, member
	IsOwner     bool   `json:"is_owner"`
	MemberCount int    `json:"member_count"`
	ActivePeers int    `json:"active_peers"` // registered connections
	JoinedAt    string `json:"joined_at"`    // TimeFormat
	BrokerURL   string `json:"broker_url"`
	OwnerName   string `json:"owner_name,omitempty"` // ours
}

// MeshRows answers GET /cli/meshes.
type MeshRows struct {
	Meshes []MeshRow `json:"meshes"`
	Error  string    `json:"error,omitempty"`
}

// CreateMeshRequest is the body of POST /cli/mesh/create, with the broker's admin token as bearer. Pubkey becomes owner and first member.
type CreateMeshRequest struct {
	Name        string `json:"name"`
	Pubkey      string `json:"pubkey"`
	DisplayName string `json:"display_name,omitempty"`
}

// CreateMeshReply answers it; Error is set when the mesh was not made.
type CreateMeshReply struct {
	ID       string `json:"id,omitempty"`
	Slug     string `json:"slug,omitempty"`
	Name     string `json:"name,omitempty"`
	MemberID string `json:"member_id,omitempty"`
	Error    string `json:"error,omitempty"`
}
