package bus

import (
	"fmt"
)

// Capability names of Grant.Caps: what a limited session may do. Each stands for subjects, so the server itself refuses the rest.
const (
	CapDM           = "dm"            // messages to one peer
	CapBroadcast    = "broadcast"     // messages to groups, topics and everybody
	CapStateRead    = "state-read"    // read shared state
	CapStateWrite   = "state-write"   // write shared state
	CapMemoryRead   = "memory-read"   // recall
	CapMemoryWrite  = "memory-write"  // remember, forget
	CapSkillsRead   = "skills-read"   // list and fetch skills
	CapSkillsWrite  = "skills-write"  // share and remove skills
	CapFileRead     = "file-read"     // list and fetch shared files
	CapFileWrite    = "file-write"    // share and delete files
	CapTasks        = "tasks"         // the shared task list
	CapTopics       = "topics"        // join, leave and read topics
	CapProfileWrite = "profile-write" // own status, summary, profile, groups
	CapGrant        = "grant"         // grant and revoke what others may do
	CapKick         = "kick"          // disconnect others
	CapBan          = "ban"           // ban and unban members
)

// capSends and capCalls are what a capability adds: kinds of send and operations of call.
var (
	capSends = map[string][]string{
		CapDM:        {SendDM},
		CapBroadcast: {SendGroup, SendTopic, SendAll},
	}
	capCalls = map[string][]string{
		CapStateRead:    {"get_state", "list_state"},
		CapStateWrite:   {"set_state"},
		CapMemoryRead:   {"recall"},
		CapMemoryWrite:  {"remember", "forget"},
		CapSkillsRead:   {"list_skills", "get_skill"},
		CapSkillsWrite:  {"share_skill", "remove_skill"},
		CapFileRead:     {"list_files", "get_file", "file_status"},
		CapFileWrite:    {"share_file", "delete_file", "grant_file_access"},
		CapTasks:        {"list_tasks", "create_task", "claim_task", "complete_task"},
		CapTopics:       {"topic_list", "topic_join", "topic_leave", "topic_members", "topic_history", "topic_mark_read"},
		CapProfileWrite: {CallSetStatus, CallSetSummary, "set_visible", "set_profile", CallJoinGroup, CallLeaveGroup},
		CapGrant:        {"grant", "revoke", "block"},
		CapKick:         {"kick", "disconnect"},
		CapBan:          {"ban", "unban", "list_bans"},
	}
	// alwaysCalls are open to every session: without the list of peers it could not even answer.
	alwaysCalls = []string{CallListPeers}
)

// capSubjects are the publish subjects of a limited session under one mesh token (a slug or "*").
func capSubjects(slug, actor string, caps []string) ([]string, error) {
	var out []string
	for _, op := range alwaysCalls {
		out = append(out, pattern("mesh", slug, actor, "call", op))
	}
	for _, c := range caps {
		sends, calls := capSends[c], capCalls[c]
		if sends == nil && calls == nil {
			return nil, fmt.Errorf("%w: unknown capability %q", ErrBadGrant, c)
		}
		for _, kind := range sends {
			out = append(out, pattern("mesh", slug, actor, "send", kind))
		}
		for _, op := range calls {
			out = append(out, pattern("mesh", slug, actor, "call", op))
		}
	}
	return out, nil
}
