package mesh

import "slices"

// Capability names: what a session that is limited may do. A session without a list of them may do all that its member may.
const (
	CapDM            = "dm"             // messages to one peer
	CapBroadcast     = "broadcast"      // messages to groups, topics and everybody
	CapRead          = "read"           // look at what the mesh holds that has no capability of its own: members, topics, skills, message states
	CapStateRead     = "state-read"     // read shared state
	CapStateWrite    = "state-write"    // write shared state
	CapMemory        = "memory"         // remember, recall, forget
	CapSkills        = "skills"         // publish and remove skills
	CapTopics        = "topics"         // create, join and leave topics
	CapFiles         = "files"          // share, fetch and delete files
	CapVault         = "vault"          // the member's secrets
	CapSchedule      = "schedule"       // reminders and watches
	CapProfileWrite  = "profile-write"  // own status, summary, profile, groups
	CapGrant         = "grant"          // say who may write to this member
	CapKick          = "kick"           // disconnect others
	CapBan           = "ban"            // ban and unban members
	CapAdmin         = "admin"          // invites, API keys, webhooks, members, the mesh itself
	CapServiceCall   = "service-call"   // call the tools that members publish
	CapServiceDeploy = "service-deploy" // publish tools
)

// opCapability is what a limited session needs for an operation of the broker; "" is for those that every session may do: without the list of peers it
// could not even answer. The bus turns it into permissions, the broker checks it again.
var opCapability = map[string]string{
	"list_peers": "", "peer_resolve": "", "client_ack": "", "set_stats": "",
	"mesh_info": CapRead, "message_status": CapRead, "member_list": CapRead, "member_profile": CapRead, "list_bans": CapBan,
	"set_status": CapProfileWrite, "set_summary": CapProfileWrite, "set_visible": CapProfileWrite, "set_profile": CapProfileWrite,
	"join_group": CapProfileWrite, "leave_group": CapProfileWrite,
	"get_state": CapStateRead, "list_state": CapStateRead, "set_state": CapStateWrite, "delete_state": CapStateWrite,
	"remember": CapMemory, "recall": CapMemory, "forget": CapMemory,
	"list_skills": CapRead, "get_skill": CapRead, "share_skill": CapSkills, "remove_skill": CapSkills,
	"topic_list": CapRead, "topic_members": CapRead, "topic_history": CapRead, "topic_search": CapRead, "topic_mark_read": CapRead,
	"topic_key": CapRead, "topic_seal": CapTopics, "topic_pending_seals": CapRead, "topic_rotate": CapTopics,
	"topic_create": CapTopics, "topic_join": CapTopics, "topic_leave": CapTopics,
	"list_files": CapFiles, "get_file": CapFiles, "file_status": CapFiles, "grant_file_access": CapFiles, "delete_file": CapFiles,
	"vault_set": CapVault, "vault_get": CapVault, "vault_list": CapVault, "vault_delete": CapVault,
	"watch": CapSchedule, "unwatch": CapSchedule, "watch_list": CapSchedule,
	"schedule": CapSchedule, "list_scheduled": CapSchedule, "cancel_scheduled": CapSchedule,
	"create_webhook": CapAdmin, "list_webhooks": CapAdmin, "delete_webhook": CapAdmin,
	"apikey_create": CapAdmin, "apikey_list": CapAdmin, "apikey_revoke": CapAdmin,
	"grants_get": CapRead, "grants_set": CapGrant,
	"kick": CapKick, "disconnect": CapKick, "ban": CapBan, "unban": CapBan,
	"invite_create": CapAdmin, "invite_list": CapAdmin, "invite_revoke": CapAdmin,
	"member_edit": CapAdmin, "mesh_rename": CapAdmin, "mesh_delete": CapAdmin, "mesh_leave": CapAdmin, "mesh_settings": CapAdmin,
	"mcp_list": CapServiceCall, "mcp_call": CapServiceCall, "mcp_schema": CapServiceCall, "mcp_catalog": CapServiceCall,
	"mcp_register": CapServiceDeploy, "mcp_unregister": CapServiceDeploy, "mcp_call_response": CapServiceDeploy,
	"mcp_deploy": CapServiceDeploy, "mcp_undeploy": CapServiceDeploy,
}

// OpCapability returns the capability that a limited session needs for an operation of the broker, "" when it needs none; known is false for an operation
// that no limited session may do. A send needs CapDM or CapBroadcast, by its target.
func OpCapability(op string) (capability string, known bool) {
	capability, known = opCapability[op]
	return capability, known
}

// OpsOf lists the operations that need exactly that capability, in order; those that need none for "".
func OpsOf(capability string) (ops []string) {
	for op, need := range opCapability {
		if need == capability {
			ops = append(ops, op)
		}
	}
	slices.Sort(ops)
	return ops
}

// Capabilities lists all capability names in the order in which they are explained.
func Capabilities() []string {
	return []string{
		CapDM, CapBroadcast, CapRead, CapStateRead, CapStateWrite, CapMemory, CapSkills, CapTopics, CapFiles, CapVault, CapSchedule, CapProfileWrite,
		CapGrant, CapKick, CapBan, CapAdmin, CapServiceCall, CapServiceDeploy,
	}
}
