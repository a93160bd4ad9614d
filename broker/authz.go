package broker

import (
	"fmt"
	"slices"
	"strings"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// This file decides who may do what; no handler decides for itself. A request is allowed by the role of the member behind it and, for a session that was
// limited by its member, by the session's capabilities. Where an object has an author (a memory, a file, a webhook), the rule has two halves: what the role
// must be for one's own, and for anybody's.

// role is what a member is in its mesh. Each may do what those before it may.
type role int

const (
	nobody     role = iota // no role is high enough
	roleMember             // everybody who was let in
	roleAdmin              // a member with the role "admin"
	roleOwner              // the holder of the key that made the mesh
)

func (r role) String() string { return [...]string{"nobody", "member", "admin", "owner"}[r] }

// rule is who may make one request. any is nobody where there are no other members' objects, or none may touch them.
type rule struct {
	own role // the least role, for what is one's own or nobody's
	any role // the least role, for what is another member's
	// direct: only over the member's own connection, never over that of a session.
	direct bool
	// key: the capability that an API key needs for this route; "" for what no key can do.
	key string
}

// rules has a row for every operation: the frames by their type, the HTTP routes by method and path pattern.
var rules = map[string]rule{
	wire.TypeSend:          {own: roleMember},
	wire.TypeClientAck:     {own: roleMember},
	wire.TypeMessageStatus: {own: roleMember, any: roleAdmin}, // one's own: sent or received

	wire.TypeListPeers:  {own: roleMember},
	wire.TypeSetStatus:  {own: roleMember},
	wire.TypeSetSummary: {own: roleMember},
	wire.TypeSetVisible: {own: roleMember},
	wire.TypeSetStats:   {own: roleMember},
	wire.TypeSetProfile: {own: roleMember},
	routeHook:           {own: roleMember},
	wire.TypeJoinGroup:  {own: roleMember},
	wire.TypeLeaveGroup: {own: roleMember},

	// Topics. One's own is, for what changes the topic, one of which one is lead; for the others one of which one is a member. Nobody is let into the rest:
	// what the mesh's owner may not read it cannot be made to hand out.
	wire.TypeTopicCreate:       {own: roleMember},
	wire.TypeTopicList:         {own: roleMember},
	wire.TypeTopicJoin:         {own: roleMember},
	wire.TypeTopicLeave:        {own: roleMember, any: roleAdmin},
	wire.TypeTopicMembers:      {own: roleMember, any: roleAdmin},
	wire.TypeTopicHistory:      {own: roleMember},
	wire.TypeTopicMarkRead:     {own: roleMember},
	wire.TypeTopicKey:          {own: roleMember},
	wire.TypeTopicSeal:         {own: roleMember},
	wire.TypeTopicPendingSeals: {own: roleMember},
	wire.TypeTopicRotate:       {own: roleMember},

	wire.TypeSetState:    {own: roleMember},
	wire.TypeGetState:    {own: roleMember},
	wire.TypeListState:   {own: roleMember},
	wire.TypeDeleteState: {own: roleMember},
	wire.TypeRemember:    {own: roleMember},
	wire.TypeRecall:      {own: roleMember},
	wire.TypeForget:      {own: roleMember, any: roleAdmin},
	wire.TypeShareSkill:  {own: roleMember, any: roleAdmin},
	wire.TypeGetSkill:    {own: roleMember},
	wire.TypeListSkills:  {own: roleMember},
	wire.TypeRemoveSkill: {own: roleMember, any: roleAdmin},

	wire.TypeMeshInfo: {own: roleMember},
	// A scheduled message is also checked by its target, like a send.
	wire.TypeSchedule:        {own: roleMember},
	wire.TypeListScheduled:   {own: roleMember},
	wire.TypeCancelScheduled: {own: roleMember, any: roleAdmin},
	wire.TypeWatch:           {own: roleMember},
	wire.TypeUnwatch:         {own: roleMember, any: roleAdmin},
	wire.TypeWatchList:       {own: roleMember},
	wire.TypeCreateWebhook:   {own: roleMember},
	wire.TypeListWebhooks:    {own: roleMember, any: roleAdmin},
	wire.TypeDeleteWebhook:   {own: roleMember, any: roleAdmin},

	wire.TypeInviteCreate: {own: roleOwner, direct: true},
	wire.TypeInviteList:   {own: roleOwner, direct: true},
	wire.TypeInviteRevoke: {own: roleOwner, direct: true},
	wire.TypeMeshRename:   {own: roleOwner, direct: true},
	wire.TypeMeshDelete:   {own: roleOwner, direct: true},
	wire.TypeMeshLeave:    {own: roleMember, direct: true},

	routeMeshes:           {own: roleMember, direct: true},
	routeRegister:         {own: roleMember, direct: true},
	routeInvite:           {own: roleOwner, direct: true},
	routeRename:           {own: roleOwner, direct: true},
	routeDelete:           {own: roleOwner, direct: true},
	wire.TypeMemberList:   {own: roleMember},
	wire.TypeMemberEdit:   {own: roleMember, any: roleAdmin}, // see mayEdit
	wire.TypeMeshSettings: {own: roleMember, any: roleAdmin}, // own: look at them; any: change them
	routeMembers:          {own: roleMember},
	routeMemberEdit:       {own: roleMember, any: roleAdmin}, // see mayEdit
	routeMeshSettings:     {own: roleAdmin},

	// Grants are the recipient's own; nobody sets another's.
	wire.TypeGrantsGet: {own: roleMember},
	wire.TypeGrantsSet: {own: roleMember},
	routeGrants:        {own: roleMember},

	// Moderation works downwards only, see outranks.
	wire.TypeKick:       {own: roleAdmin},
	wire.TypeDisconnect: {own: roleAdmin},
	wire.TypeBan:        {own: roleAdmin},
	wire.TypeUnban:      {own: roleAdmin},
	wire.TypeListBans:   {own: roleAdmin},

	// An API key that can do what administrators can is for them to make, see mayIssue.
	wire.TypeAPIKeyCreate: {own: roleMember},
	wire.TypeAPIKeyList:   {own: roleMember, any: roleAdmin},
	wire.TypeAPIKeyRevoke: {own: roleMember, any: roleAdmin},

	// With API keys.
	routeV1Members:  {own: roleMember, key: wire.KeyRead},
	routeV1Peers:    {own: roleMember, key: wire.KeyRead},
	routeV1Post:     {own: roleMember, key: wire.KeySend},
	routeV1Topics:   {own: roleMember, key: wire.KeyRead},
	routeV1History:  {own: roleMember, key: wire.KeyRead},
	routeV1Read:     {own: roleMember, key: wire.KeyRead},
	routeV1Key:      {own: roleMember, key: wire.KeyRead},
	routeV1Stream:   {own: roleMember, key: wire.KeyRead},
	routeV1State:    {own: roleMember, key: wire.KeyRead},
	routeV1SetState: {own: roleMember, key: wire.KeyStateWrite},
	routeV1Memory:   {own: roleMember, key: wire.KeyRead},

	wire.TypeVaultSet:    {own: roleMember},
	wire.TypeVaultGet:    {own: roleMember},
	wire.TypeVaultList:   {own: roleMember},
	wire.TypeVaultDelete: {own: roleMember},

	// Who may see a file is decided by its target, see fileRecord.
	wire.TypeGetFile:         {own: roleMember, any: roleMember},
	wire.TypeListFiles:       {own: roleMember, any: roleMember},
	wire.TypeFileStatus:      {own: roleMember, any: roleMember},
	wire.TypeGrantFileAccess: {own: roleMember},
	wire.TypeDeleteFile:      {own: roleMember, any: roleAdmin},
	routeUpload:              {own: roleMember, direct: true},
	routeDownload:            {own: roleMember, any: roleMember, direct: true},
	routeTicket:              {own: roleMember, any: roleMember, direct: true},

	wire.TypeMCPRegister:     {own: roleMember},
	wire.TypeMCPUnregister:   {own: roleMember, any: roleAdmin},
	wire.TypeMCPList:         {own: roleMember},
	wire.TypeMCPCall:         {own: roleMember},
	wire.TypeMCPCallResponse: {own: roleMember},
	wire.TypeMCPSchema:       {own: roleMember},
	wire.TypeMCPCatalog:      {own: roleMember},
	wire.TypeMCPDeploy:       {own: roleMember},
	wire.TypeMCPUndeploy:     {own: roleMember},
}

// caller is who makes a request: a connection, or an HTTP request signed by a member. caps nil means no limit.
type caller struct {
	role    role
	session bool
	caps    []string
}

// roleOf is the role of a member of m; nobody once it was revoked.
func (m *meshState) roleOf(who *member) role {
	switch {
	case who == nil || who.RevokedAt != 0:
		return nobody
	case who.Pubkey == m.rec.OwnerPubkey:
		return roleOwner
	case who.Role == "admin":
		return roleAdmin
	}
	return roleMember
}

// caller is c as the table sees it. Broker.mu must not be held: the role may change while a connection is open.
func (c *conn) caller() caller {
	c.b.mu.RLock()
	defer c.b.mu.RUnlock()
	return caller{role: c.mesh.roleOf(c.member), session: c.isSession, caps: c.caps}
}

// authorize checks a frame against the table.
func (c *conn) authorize(op string) *refusal { return c.caller().allowed(op, true) }

// mayTouch checks a request for an object of the member with that id or key: own is whether the caller is that member.
func (c *conn) mayTouch(op string, own bool) *refusal { return c.caller().allowed(op, own) }

// maySend checks the capability that a limited session needs for a message to that target.
func (c *conn) maySend(target string) *refusal {
	need := mesh.CapBroadcast
	if mesh.ValidKey(target) {
		need = mesh.CapDM
	}
	if c.caps == nil || slices.Contains(c.caps, need) {
		return nil
	}
	return refused(wire.CodeForbidden, "forbidden: this session lacks the capability "+need+" that a message to this target needs")
}

// outranks reports whether a member of one role may moderate one of the other: nobody touches the owner, and administrators leave each other alone.
func outranks(mine, theirs role) bool { return mine > theirs }

func notBelow(who *member, theirs role) *refusal {
	return refused(wire.CodeForbidden, fmt.Sprintf("%.64q is %s of the mesh: only those above can do this", who.Name, theirs))
}

// mayEdit decides about a change of a member's profile: one's own as far as the mesh's policy lets members, others' by administrators; nobody changes the
// owner's permission, and only the owner, or itself, ends an administrator's. Called under the lock.
func (m *meshState) mayEdit(by, who *member, p wire.Profile) *refusal {
	mine, own := m.roleOf(by), by == who
	if (caller{role: mine}).allowed(wire.TypeMemberEdit, own) != nil {
		return refused(wire.CodeForbidden, "not authorized — only admins or self can edit")
	}
	fields := p.Fields()
	if len(fields) == 0 {
		return refused(wire.CodeInvalid, "no fields to update")
	}
	if mine < roleAdmin {
		policy := m.policy()
		var locked []string
		for _, f := range fields {
			if !policy[f] { // permission is never in it
				locked = append(locked, f)
			}
		}
		if len(locked) > 0 {
			return refused(wire.CodeForbidden, "admin-managed fields: "+strings.Join(locked, ", "))
		}
	}
	if theirs := m.roleOf(who); p.Permission != nil && (theirs == roleOwner || !own && !outranks(mine, theirs)) && *p.Permission != who.Role {
		return notBelow(who, theirs)
	}
	if p.DisplayName != nil && !validName(*p.DisplayName) {
		return refused(wire.CodeInvalid, "display name must be 1 to 128 bytes without control characters")
	}
	return nil
}

// mayIssue decides about a new API key: one with the capability admin is for administrators.
func (w caller) mayIssue(capabilities []string) *refusal {
	if slices.Contains(capabilities, wire.KeyAdmin) && w.role < roleAdmin {
		return refused(wire.CodeForbidden, "only an admin of the mesh may make an API key with the capability admin")
	}
	return nil
}

// allowed looks an operation up. A missing row refuses.
func (w caller) allowed(op string, own bool) *refusal {
	r, known := rules[op]
	least := r.own
	if !own {
		least = r.any
	}
	switch {
	case !known || least == nobody:
		return refused(wire.CodeForbidden, op+" is not allowed here")
	case w.role < least:
		return refused(wire.CodeForbidden, "only the "+least.String()+" of the mesh may do this: "+op)
	case r.direct && w.session:
		return refused(wire.CodeForbidden, "a session may not do this, its member can: "+op)
	case !w.session || w.caps == nil || op == wire.TypeSend: // a send is checked by its target
		return nil
	}
	switch need, known := mesh.OpCapability(op); {
	case !known:
		return refused(wire.CodeForbidden, "no capability lets a limited session do this: "+op)
	case need != "" && !slices.Contains(w.caps, need):
		return refused(wire.CodeForbidden, "this session lacks the capability "+need+" that "+op+" needs")
	}
	return nil
}
