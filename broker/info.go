package broker

import (
	"slices"
	"strings"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// meshInfo answers with what the mesh holds, in numbers.
func (c *conn) meshInfo(_ []byte, reqID string) {
	ctx, cancel := c.b.deadline()
	defer cancel()
	info := wire.MeshInfo{
		Type: wire.TypeMeshInfoResult, Mesh: c.mesh.rec.ID, Groups: []string{}, StateKeys: []string{}, Streams: []string{}, Tables: []string{}, Collections: []string{},
		YourName: c.name, YourGroups: []mesh.Group{}, ReqID: reqID,
	}
	c.b.mu.RLock()
	for o := range c.mesh.conns {
		if !o.visible && o.member != c.member {
			continue
		}
		info.Peers++
		for _, g := range o.groups {
			info.Groups = append(info.Groups, "@"+g.Name)
		}
	}
	info.YourGroups = append(info.YourGroups, c.groups...)
	c.b.mu.RUnlock()
	slices.Sort(info.Groups)
	info.Groups = slices.Compact(info.Groups)

	keys, err := c.b.store.recordKeys(ctx, familyState, c.mesh.rec.ID)
	for _, key := range keys {
		var name string
		if name, err = nameOf(key[strings.LastIndexByte(key, '.')+1:]); err != nil {
			break
		}
		info.StateKeys = append(info.StateKeys, name)
	}
	for family, n := range map[string]*int{familyMemory: &info.MemoryCount, familySkill: &info.SkillCount} {
		if err == nil {
			*n, err = c.b.size(ctx, family, c.mesh.rec.ID)
		}
	}
	if err == nil {
		keys, err = c.b.store.recordKeys(ctx, familyFile, c.mesh.rec.ID)
		info.FileCount = len(keys)
	}
	if err != nil {
		c.storeFailed(reqID, wire.TypeMeshInfo, err)
		return
	}
	info.StateCount = len(info.StateKeys)
	slices.Sort(info.StateKeys)
	var p page
	for i, name := range info.StateKeys {
		if fits, err := p.takes(name); err != nil || !fits {
			info.StateKeys = info.StateKeys[:i]
			break
		}
	}
	c.reply(info)
}
