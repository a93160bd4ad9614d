package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"claudemesh/wire"
)

// Skills that members share: instructions for a model, by name. A name belongs to the member who shared it first.

// skillRecord is a skill as it is stored. ByKey is the public key of its author.
type skillRecord struct {
	Description  string          `json:"description"`
	Instructions string          `json:"instructions"`
	Tags         []string        `json:"tags"`
	Manifest     json.RawMessage `json:"manifest"`
	By           string          `json:"by"`
	ByKey        string          `json:"by_key"`
	CreatedAt    int64           `json:"created_at"`
	UpdatedAt    int64           `json:"updated_at"`
}

func (s skillRecord) entry(name string) wire.SkillEntry {
	return wire.SkillEntry{Name: name, Description: s.Description, Tags: s.Tags, Author: s.By, CreatedAt: wire.Timestamp(unixMilli(s.CreatedAt))}
}

func (s skillRecord) skill(name string) *wire.Skill {
	return &wire.Skill{SkillEntry: s.entry(name), Instructions: s.Instructions, Manifest: s.Manifest}
}

// matches reports whether name, description or a tag holds the query, without regard to case.
func (s skillRecord) matches(name, query string) bool {
	query = strings.ToLower(query)
	return slices.ContainsFunc(append([]string{name, s.Description}, s.Tags...), func(text string) bool { return strings.Contains(strings.ToLower(text), query) })
}

func (c *conn) skillKey(name string) string {
	return recordKey(familySkill, c.mesh.rec.ID, recordName(name))
}

// shareSkill stores a skill, or replaces one: its own author's, or any for an admin, who leaves the author what it is.
func (c *conn) shareSkill(data []byte, reqID string) {
	var f wire.ShareSkill
	if !c.decode(data, reqID, &f) {
		return
	}
	now := c.b.now().UnixMilli()
	rec := skillRecord{
		Description: f.Description, Instructions: f.Instructions, Tags: append([]string{}, f.Tags...), Manifest: f.Manifest,
		By: c.author(), ByKey: c.member.Pubkey, CreatedAt: now, UpdatedAt: now,
	}
	if c.tooBig(reqID, rec.skill(f.Name)) {
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	s, err := c.b.hold(ctx, familySkill, c.mesh.rec.ID)
	if err != nil {
		c.storeFailed(reqID, wire.TypeShareSkill, err)
		return
	}
	defer s.done()
	old, err := getRecord[skillRecord](ctx, c.b.store, c.skillKey(f.Name))
	switch {
	case errors.Is(err, errNoRecord) && s.n >= c.b.lim.SkillsPerMesh:
		c.fail(reqID, wire.CodeLimit, fmt.Sprintf("the mesh has %d skills already", s.n))
		return
	case errors.Is(err, errNoRecord):
		err = s.add(ctx, c.b.store, c.skillKey(f.Name), rec)
	case err == nil:
		if no := c.mayTouch(wire.TypeShareSkill, old.Value.ByKey == c.member.Pubkey); no != nil {
			c.fail(reqID, no.code, "the skill belongs to another member: "+no.message)
			return
		}
		rec.CreatedAt, rec.ByKey = old.Value.CreatedAt, old.Value.ByKey
		if rec.ByKey != c.member.Pubkey {
			rec.By = old.Value.By
		}
		err = c.b.store.putRecord(ctx, c.skillKey(f.Name), rec)
	}
	if err != nil {
		c.storeFailed(reqID, wire.TypeShareSkill, err)
		return
	}
	c.skillChanged(f.Name, wire.ActionShared, reqID)
}

// skillChanged tells the others and answers the request.
func (c *conn) skillChanged(name, action, reqID string) {
	c.news(wire.SkillChange{Type: wire.TypeSkillChange, Name: name, Action: action, By: c.author()}, true)
	c.reply(wire.SkillAck{Type: wire.TypeSkillAck, Name: name, Action: action, ReqID: reqID})
}

func (c *conn) getSkill(data []byte, reqID string) {
	var f wire.GetSkill
	if !c.decode(data, reqID, &f) {
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	answer := wire.SkillData{Type: wire.TypeSkillData, ReqID: reqID}
	r, err := getRecord[skillRecord](ctx, c.b.store, c.skillKey(f.Name))
	switch {
	case err == nil:
		answer.Skill = r.Value.skill(f.Name)
	case !errors.Is(err, errNoRecord):
		c.storeFailed(reqID, wire.TypeGetSkill, err)
		return
	}
	c.reply(answer)
}

func (c *conn) listSkills(data []byte, reqID string) {
	var f wire.ListSkills
	if !c.decode(data, reqID, &f) {
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	skills := []wire.SkillEntry{}
	more, err := listNamed(ctx, c.b.store, familySkill, c.mesh.rec.ID, f.After, func(name string, s skillRecord) (any, bool) {
		if !s.matches(name, f.Query) {
			return nil, false
		}
		skills = append(skills, s.entry(name))
		return skills[len(skills)-1], true
	})
	switch {
	case err != nil:
		c.storeFailed(reqID, wire.TypeListSkills, err)
		return
	case more && !f.Paged:
		c.tooMuch(reqID, "skills")
		return
	case more:
		skills = skills[:len(skills)-1]
	}
	c.reply(wire.SkillList{Type: wire.TypeSkillList, Skills: skills, More: more, ReqID: reqID})
}

func (c *conn) removeSkill(data []byte, reqID string) {
	var f wire.RemoveSkill
	if !c.decode(data, reqID, &f) {
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	s, err := c.b.hold(ctx, familySkill, c.mesh.rec.ID)
	if err != nil {
		c.storeFailed(reqID, wire.TypeRemoveSkill, err)
		return
	}
	defer s.done()
	r, err := getRecord[skillRecord](ctx, c.b.store, c.skillKey(f.Name))
	if errors.Is(err, errNoRecord) {
		c.reply(wire.SkillAck{Type: wire.TypeSkillAck, Name: f.Name, Action: wire.ActionNotFound, ReqID: reqID})
		return
	}
	if err == nil {
		if no := c.mayTouch(wire.TypeRemoveSkill, r.Value.ByKey == c.member.Pubkey); no != nil {
			c.fail(reqID, no.code, "the skill belongs to another member: "+no.message)
			return
		}
		err = s.remove(ctx, c.b.store, c.skillKey(f.Name))
	}
	if err != nil {
		c.storeFailed(reqID, wire.TypeRemoveSkill, err)
		return
	}
	c.skillChanged(f.Name, wire.ActionRemoved, reqID)
}
