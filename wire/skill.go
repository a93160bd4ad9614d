package wire

import "encoding/json"

// Frame types of shared skills. TypeSkillChange is ours.
const (
	TypeShareSkill  = "share_skill"
	TypeGetSkill    = "get_skill"
	TypeListSkills  = "list_skills"
	TypeRemoveSkill = "remove_skill"
	TypeSkillAck    = "skill_ack"
	TypeSkillData   = "skill_data"
	TypeSkillList   = "skill_list"
	TypeSkillChange = "skill_change"
)

// What was done with an object of that name.
const (
	ActionShared   = "shared"
	ActionRemoved  = "removed"
	ActionDeleted  = "deleted"
	ActionNotFound = "not_found"
)

// Limits of a skill.
const (
	MaxSkillName         = 128       // bytes
	MaxSkillDescription  = 4096      // bytes
	MaxSkillInstructions = 256 << 10 // bytes
	MaxSkillManifest     = 32 << 10  // bytes of JSON
)

// ShareSkill publishes a skill, or replaces the one of its name, which only its author or an admin may.
type ShareSkill struct {
	Type         string          `json:"type"`
	Name         string          `json:"name"`
	Description  string          `json:"description"`
	Instructions string          `json:"instructions"`
	Tags         []string        `json:"tags,omitempty"`
	Manifest     json.RawMessage `json:"manifest,omitempty"`
	ReqID        string          `json:"_reqId,omitempty"`
}

// Validate checks presence and sizes.
func (s ShareSkill) Validate() error {
	return firstError(validSkillName(s.Name), jsonTooLong("manifest", s.Manifest, MaxSkillManifest), required("description", s.Description), tooLong("description", s.Description, MaxSkillDescription),
		required("instructions", s.Instructions), tooLong("instructions", s.Instructions, MaxSkillInstructions), validTags(s.Tags))
}

// GetSkill asks for one skill.
type GetSkill struct {
	Type  string `json:"type"`
	Name  string `json:"name"`
	ReqID string `json:"_reqId,omitempty"`
}

// Validate checks the name.
func (g GetSkill) Validate() error { return validSkillName(g.Name) }

// RemoveSkill removes one: the author's own, or any for an admin.
type RemoveSkill struct {
	Type  string `json:"type"`
	Name  string `json:"name"`
	ReqID string `json:"_reqId,omitempty"`
}

// Validate checks the name.
func (r RemoveSkill) Validate() error { return validSkillName(r.Name) }

// ListSkills asks for the skills whose name, description or tags hold the query, ordered by name. After is a name.
type ListSkills struct {
	Type  string `json:"type"`
	Query string `json:"query,omitempty"`
	Page
	ReqID string `json:"_reqId,omitempty"`
}

// Validate checks lengths.
func (l ListSkills) Validate() error {
	return firstError(tooLong("query", l.Query, MaxQuery), tooLong("after", l.After, MaxSkillName))
}

// SkillAck answers ShareSkill and RemoveSkill. Action is ActionShared, ActionRemoved or ActionNotFound.
type SkillAck struct {
	Type   string `json:"type"`
	Name   string `json:"name"`
	Action string `json:"action"`
	ReqID  string `json:"_reqId,omitempty"`
}

// SkillEntry is one row of SkillList. Author is a display name.
type SkillEntry struct {
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Tags        []string `json:"tags"`
	Author      string   `json:"author"`
	CreatedAt   string   `json:"createdAt"`
}

// Skill is a skill whole.
type Skill struct {
	SkillEntry
	Instructions string          `json:"instructions"`
	Manifest     json.RawMessage `json:"manifest"` // null when it has none
}

// SkillData answers GetSkill; Skill is nil when there is none of that name.
type SkillData struct {
	Type  string `json:"type"`
	Skill *Skill `json:"skill"`
	ReqID string `json:"_reqId,omitempty"`
}

// SkillList answers ListSkills. More: there are skills behind the last one.
type SkillList struct {
	Type   string       `json:"type"`
	Skills []SkillEntry `json:"skills"`
	More   bool         `json:"more,omitempty"`
	ReqID  string       `json:"_reqId,omitempty"`
}

// SkillChange tells the other connections that asked for it (CapChanges) that a skill was shared or removed. Ours.
type SkillChange struct {
	Type   string `json:"type"`
	Name   string `json:"name"`
	Action string `json:"action"`
	By     string `json:"by"` // display name
}

// Validate checks lengths.
func (s SkillChange) Validate() error {
	return firstError(validSkillName(s.Name), tooLong("action", s.Action, MaxNameBytes), tooLong("by", s.By, MaxTextBytes))
}

func validSkillName(name string) error {
	return firstError(required("name", name), tooLong("name", name, MaxSkillName))
}
