package broker

import "claudemesh/wire"

// op serves one frame of a connection that has said hello and may make this request (see authz.go). It answers for itself; reqID is "" when the client wants
// no answer matched.
type op func(c *conn, data []byte, reqID string)

// ops is every operation this broker serves, by the frame's type. What each may do is in rules.
var ops = map[string]op{
	// Messages.
	wire.TypeSend:          func(c *conn, data []byte, _ string) { c.send(data) },
	wire.TypeClientAck:     (*conn).clientAck,
	wire.TypeMessageStatus: (*conn).messageStatus,

	// Presence.
	wire.TypeListPeers:  func(c *conn, _ []byte, reqID string) { c.listPeers(reqID) },
	wire.TypeSetStatus:  (*conn).setStatus,
	wire.TypeSetSummary: (*conn).setSummary,
	wire.TypeSetVisible: (*conn).setVisible,
	wire.TypeSetStats:   (*conn).setStats,
	wire.TypeSetProfile: (*conn).setProfile,
	wire.TypeJoinGroup:  (*conn).joinGroup,
	wire.TypeLeaveGroup: (*conn).leaveGroup,

	// Topics.
	wire.TypeTopicCreate:       (*conn).topicCreate,
	wire.TypeTopicList:         func(c *conn, _ []byte, reqID string) { c.topicList(reqID) },
	wire.TypeTopicJoin:         (*conn).topicJoin,
	wire.TypeTopicLeave:        (*conn).topicLeave,
	wire.TypeTopicMembers:      (*conn).topicMembers,
	wire.TypeTopicHistory:      (*conn).topicHistory,
	wire.TypeTopicMarkRead:     (*conn).topicMarkRead,
	wire.TypeTopicKey:          (*conn).topicKey,
	wire.TypeTopicSeal:         (*conn).topicSeal,
	wire.TypeTopicPendingSeals: (*conn).topicPendingSeals,
	wire.TypeTopicRotate:       (*conn).topicRotate,

	// What members keep for one another.
	wire.TypeSetState:    (*conn).setState,
	wire.TypeGetState:    (*conn).getState,
	wire.TypeListState:   (*conn).listState,
	wire.TypeDeleteState: (*conn).deleteState,
	wire.TypeRemember:    (*conn).remember,
	wire.TypeRecall:      (*conn).recall,
	wire.TypeForget:      (*conn).forget,
	wire.TypeShareSkill:  (*conn).shareSkill,
	wire.TypeGetSkill:    (*conn).getSkill,
	wire.TypeListSkills:  (*conn).listSkills,
	wire.TypeRemoveSkill: (*conn).removeSkill,

	// Scheduled messages, watches, webhooks.
	wire.TypeSchedule:        (*conn).schedule,
	wire.TypeListScheduled:   (*conn).listScheduled,
	wire.TypeCancelScheduled: (*conn).cancelScheduled,
	wire.TypeWatch:           (*conn).watch,
	wire.TypeUnwatch:         (*conn).unwatch,
	wire.TypeWatchList:       (*conn).watchList,
	wire.TypeCreateWebhook:   (*conn).createWebhook,
	wire.TypeListWebhooks:    (*conn).listWebhooks,
	wire.TypeDeleteWebhook:   (*conn).deleteWebhook,

	// The mesh and its members.
	wire.TypeMeshInfo:     (*conn).meshInfo,
	wire.TypeInviteCreate: (*conn).inviteCreate,
	wire.TypeInviteList:   (*conn).inviteList,
	wire.TypeInviteRevoke: (*conn).inviteRevoke,
	wire.TypeMeshRename:   (*conn).meshRename,
	wire.TypeMeshDelete:   (*conn).meshDelete,
	wire.TypeMeshLeave:    (*conn).meshLeave,
	wire.TypeMemberList:   (*conn).memberList,
	wire.TypeMemberEdit:   (*conn).memberEdit,
	wire.TypeMeshSettings: (*conn).meshSettings,
	wire.TypeGrantsGet:    (*conn).grantsGet,
	wire.TypeGrantsSet:    (*conn).grantsSet,

	// Moderation.
	wire.TypeKick:       (*conn).kick,
	wire.TypeDisconnect: (*conn).disconnect,
	wire.TypeBan:        (*conn).ban,
	wire.TypeUnban:      (*conn).unban,
	wire.TypeListBans:   (*conn).listBans,

	// API keys.
	wire.TypeAPIKeyCreate: (*conn).apiKeyCreate,
	wire.TypeAPIKeyList:   (*conn).apiKeyList,
	wire.TypeAPIKeyRevoke: (*conn).apiKeyRevoke,

	// The vault.
	wire.TypeVaultSet:    (*conn).vaultSet,
	wire.TypeVaultGet:    (*conn).vaultGet,
	wire.TypeVaultList:   (*conn).vaultList,
	wire.TypeVaultDelete: (*conn).vaultDelete,

	// Files.
	wire.TypeGetFile:         (*conn).getFile,
	wire.TypeListFiles:       (*conn).listFiles,
	wire.TypeFileStatus:      (*conn).fileStatus,
	wire.TypeGrantFileAccess: (*conn).grantFileAccess,
	wire.TypeDeleteFile:      (*conn).deleteFile,
	// Services.
	wire.TypeMCPRegister:     (*conn).mcpRegister,
	wire.TypeMCPUnregister:   (*conn).mcpUnregister,
	wire.TypeMCPList:         (*conn).mcpList,
	wire.TypeMCPCall:         (*conn).mcpCall,
	wire.TypeMCPCallResponse: (*conn).mcpCallResponse,
	wire.TypeMCPSchema:       (*conn).mcpSchema,
	wire.TypeMCPCatalog:      (*conn).mcpCatalog,
	wire.TypeMCPDeploy:       (*conn).mcpDeploy,
	wire.TypeMCPUndeploy:     (*conn).mcpUndeploy,
}
