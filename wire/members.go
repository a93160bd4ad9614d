package wire

import (
	"encoding/json"
	"fmt"

	"claudemesh/mesh"
)

// Members and what is known of them. The frames are ours; the reference has the HTTP routes only, with the same fields.
const (
	TypeMemberList       = "member_list"
	TypeMemberListResult = "member_list_result"
	TypeMemberEdit       = "member_edit"
	TypeMemberEdited     = "member_edited"
)

// EventProfileUpdated tells a member's connections that its profile was changed; eventData are the changed fields.
const EventProfileUpdated = "profile_updated"

// Message modes of a profile. They are kept and told; delivery is the same in each.
const (
	ModePush  = "push"
	ModeInbox = "inbox"
	ModeOff   = "off"
)

// Permissions of a member.
const (
	PermissionAdmin  = "admin"
	PermissionMember = "member"
)

// Fields of a profile, as Policy and errors name them.
const (
	FieldDisplayName = "displayName"
	FieldRoleTag     = "roleTag"
	FieldGroups      = "groups"
	FieldMessageMode = "messageMode"
	FieldPermission  = "permission"
)

// Member is one member of a mesh. Groups are those a new connection starts with. Pubkey and IsOwner are ours.
type Member struct {
	ID              string       `json:"id"`
	Pubkey          string       `json:"pubkey"`
	DisplayName     string       `json:"displayName"`
	RoleTag         *string      `json:"roleTag"`
	Groups          []mesh.Group `json:"groups"`
	MessageMode     string       `json:"messageMode"`
	Permission      string       `json:"permission"`
	IsOwner         bool         `json:"isOwner"`
	DashboardUserID *string      `json:"dashboardUserId"`
	JoinedAt        string       `json:"joinedAt"`
	LastSeenAt      *string      `json:"lastSeenAt"`
	Online          bool         `json:"online"`
	SessionCount    int          `json:"sessionCount"`
}

// MemberListResult answers member_list: everybody who is in, by display name.
type MemberListResult struct {
	Type    string   `json:"type"`
	Members []Member `json:"members"`
	ReqID   string   `json:"_reqId,omitempty"`
}

// Profile is a change of a member: the fields that are present. A null or empty role tag removes it.
type Profile struct {
	DisplayName *string         `json:"displayName,omitempty"`
	RoleTag     json.RawMessage `json:"roleTag,omitempty"` // a string or null
	Groups      *[]mesh.Group   `json:"groups,omitempty"`
	MessageMode *string         `json:"messageMode,omitempty"`
	Permission  *string         `json:"permission,omitempty"`
}

// Fields lists the fields that are present.
func (p Profile) Fields() (present []string) {
	for _, f := range []struct {
		in   bool
		name string
	}{
		{p.DisplayName != nil, FieldDisplayName},
		{p.RoleTag != nil, FieldRoleTag},
		{p.Groups != nil, FieldGroups},
		{p.MessageMode != nil, FieldMessageMode},
		{p.Permission != nil, FieldPermission},
	} {
		if f.in {
			present = append(present, f.name)
		}
	}
	return present
}

// Tag is the role tag of the change, nil for none.
func (p Profile) Tag() (*string, error) {
	var tag *string
	if err := json.Unmarshal(p.RoleTag, &tag); err != nil {
		return nil, fmt.Errorf("%w: roleTag must be a string or null", ErrInvalid)
	}
	if tag != nil && *tag == "" {
		tag = nil
	}
	return tag, nil
}

// Validate checks values and lengths.
func (p Profile) Validate() error {
	if p.DisplayName != nil {
		if err := firstError(required(FieldDisplayName, *p.DisplayName), tooLong(FieldDisplayName, *p.DisplayName, MaxNameBytes)); err != nil {
			return err
		}
	}
	if p.RoleTag != nil {
		tag, err := p.Tag()
		if err != nil {
			return err
		}
		if tag != nil && len(*tag) > MaxNameBytes {
			return tooLong(FieldRoleTag, *tag, MaxNameBytes)
		}
	}
	if p.MessageMode != nil && *p.MessageMode != ModePush && *p.MessageMode != ModeInbox && *p.MessageMode != ModeOff {
		return fmt.Errorf("%w: messageMode must be push, inbox or off", ErrInvalid)
	}
	if p.Permission != nil && *p.Permission != PermissionAdmin && *p.Permission != PermissionMember {
		return fmt.Errorf("%w: permission must be admin or member", ErrInvalid)
	}
	if p.Groups != nil {
		return groups(*p.Groups)
	}
	return nil
}

// MemberEdit changes a member, by its id.
type MemberEdit struct {
	Type     string `json:"type"`
	MemberID string `json:"memberId"`
	Profile
	ReqID string `json:"_reqId,omitempty"`
}

// Validate checks the change.
func (m MemberEdit) Validate() error {
	return firstError(required("memberId", m.MemberID), tooLong("memberId", m.MemberID, MaxIDBytes), m.Profile.Validate())
}

// MemberEdited answers MemberEdit. Changes are the fields that have another value now.
type MemberEdited struct {
	Type    string  `json:"type"`
	Member  Member  `json:"member"`
	Changes Profile `json:"changes"`
	ReqID   string  `json:"_reqId,omitempty"`
}
