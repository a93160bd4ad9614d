package conformance

import (
	"encoding/base64"

	"claudemesh/wire"
)

// self is the asker's own row of the list of peers.
func (s *socket) peer(key string) fields {
	list := s.must(wire.TypeListPeers, nil, wire.TypePeersList)
	r := row(rows(list, "peers"), "pubkey", key)
	if r == nil {
		panic(stop{differs("the peer is not listed in %s", show(list))})
	}
	return r
}

func presenceChecks() []check {
	return []check{
		{wire.TypeListPeers, "every connection is listed with its keys, name, status and place", func(p *play) finding {
			need(p.a.peer(p.bob.who.PublicKey()), fields{
				"memberPubkey": p.bob.who.PublicKey(), "displayName": p.bob.name, "status": wire.StatusIdle, "groups": nil, "sessionId": p.name(p.bob.name),
				"connectedAt": nil, "cwd": "/check", "summary": nil, "visible": true,
			})
			return same()
		}},
		{wire.TypeSetStatus, "a status is set and shown", func(p *play) finding {
			p.b.quietly(wire.TypeSetStatus, fields{"status": wire.StatusDND})
			need(p.a.peer(p.bob.who.PublicKey()), fields{"status": wire.StatusDND})
			return same()
		}},
		{wire.TypeSetStatus, "a status that does not exist is refused", func(p *play) finding {
			if r := p.b.ask(wire.TypeSetStatus, fields{"status": "asleep"}); r.frame["type"] != wire.TypeError {
				return defective(19, "no answer")
			}
			return corrected(19)
		}},
		{wire.TypeSetStatus, "mail that was held back comes when the status becomes idle", func(p *play) finding {
			body := p.name("held")
			p.b.quietly(wire.TypeSetStatus, fields{"status": wire.StatusDND})
			p.a.mustSend(body, message(p.bob.who.PublicKey(), body))
			p.b.fence()
			if p.b.pushed(body) != nil {
				return differs("it is pushed to a peer that does not want to be disturbed")
			}
			p.b.quietly(wire.TypeSetStatus, fields{"status": wire.StatusIdle})
			if p.b.pushed(body) == nil {
				return defective(13, "it is still held")
			}
			return corrected(13)
		}},
		{wire.TypeSetStatus, "a message with priority now reaches a peer that is busy", func(p *play) finding {
			body := p.name("now")
			p.b.quietly(wire.TypeSetStatus, fields{"status": wire.StatusWorking})
			m := message(p.bob.who.PublicKey(), body)
			m["priority"] = wire.PriorityNow
			p.a.mustSend(body, m)
			p.b.mustPushed(body)
			return same()
		}},
		{wire.TypeSetSummary, "a summary is set and shown", func(p *play) finding {
			p.b.quietly(wire.TypeSetSummary, fields{"summary": "checking"})
			need(p.a.peer(p.bob.who.PublicKey()), fields{"summary": "checking"})
			return same()
		}},
		{wire.TypeSetVisible, "who hides is not listed, gets no broadcasts, and the others are told", func(p *play) finding {
			f := p.b.must(wire.TypeSetVisible, fields{"visible": false}, wire.TypeAck)
			need(f, fields{"queued": false})
			defer p.b.ask(wire.TypeSetVisible, fields{"visible": true})
			need(p.a.event("peer_hidden"), fields{"eventData": fields{"name": p.bob.name, "pubkey": p.bob.who.PublicKey()}})
			list := p.a.must(wire.TypeListPeers, nil, wire.TypePeersList)
			if row(rows(list, "peers"), "pubkey", p.bob.who.PublicKey()) != nil {
				return differs("it is listed")
			}
			body := p.name("hidden")
			p.a.mustSend(body, message("*", body))
			p.c.mustPushed(body)
			p.b.fence()
			if p.b.pushed(body) != nil {
				return differs("it gets a broadcast")
			}
			return same()
		}},
		{"set_profile", "a profile is set and shown", func(p *play) finding {
			p.b.must("set_profile", fields{"title": "checker", "capabilities": []string{"go"}}, wire.TypeAck)
			need(p.a.peer(p.bob.who.PublicKey()), fields{"profile": fields{"title": "checker", "capabilities": []string{"go"}}})
			return same()
		}},
		{wire.TypeSetStats, "counters are taken and shown", func(p *play) finding {
			p.b.quietly(wire.TypeSetStats, fields{"stats": fields{"messagesIn": 1, "messagesOut": 2, "toolCalls": 3, "errors": 0}})
			r := p.a.peer(p.bob.who.PublicKey())
			stats, _ := r["stats"].(map[string]any)
			need(stats, fields{"messagesIn": 1, "messagesOut": 2, "toolCalls": 3})
			return same()
		}},
		{wire.TypeJoinGroup, "a group is joined with a role, shown, and left", func(p *play) finding {
			group := p.name("crew")
			p.b.quietly(wire.TypeJoinGroup, fields{"name": group, "role": "lead"})
			if g := row(rows(p.a.peer(p.bob.who.PublicKey()), "groups"), "name", group); g == nil || g["role"] != "lead" {
				return differs("groups: %s", show(g))
			}
			p.b.quietly(wire.TypeLeaveGroup, fields{"name": group})
			if g := row(rows(p.a.peer(p.bob.who.PublicKey()), "groups"), "name", group); g != nil {
				return differs("still in %s", show(g))
			}
			return same()
		}},
		{"mesh_info", "the mesh is described", func(p *play) finding {
			need(p.a.must("mesh_info", nil, "mesh_info_result"), fields{"mesh": nil, "peers": nil, "groups": nil, "stateKeys": nil, "memoryCount": nil, "fileCount": nil, "yourName": p.alice.name})
			return same()
		}},
	}
}

func recordChecks() []check {
	return []check{
		{"set_state", "a value is stored, read, listed and told to the others", func(p *play) finding {
			key := p.name("key")
			p.a.quietly("set_state", fields{"key": key, "value": fields{"n": 1}})
			change := p.b.take(func(f fields) bool { return f["type"] == "state_change" && f["key"] == key })
			if change == nil {
				return differs("no state_change")
			}
			need(change, fields{"value": fields{"n": 1}, "updatedBy": nil})
			need(p.b.must("get_state", fields{"key": key}, "state_result"), fields{"key": key, "value": fields{"n": 1}, "updatedBy": nil, "updatedAt": nil})
			r := row(rows(p.b.must("list_state", nil, "state_list"), "entries"), "key", key)
			need(r, fields{"value": fields{"n": 1}})
			return same()
		}},
		{"get_state", "a key that is not set has the value null", func(p *play) finding {
			need(p.a.must("get_state", fields{"key": p.name("unset")}, "state_result"), fields{"value": nil, "updatedBy": "", "updatedAt": ""})
			return same()
		}},
		{"set_state", "the value null is refused with an answer", func(p *play) finding {
			if r := p.a.ask("set_state", fields{"key": p.name("null"), "value": nil}); r.frame["type"] != wire.TypeError {
				return defective(76, "silence")
			}
			return corrected(76)
		}},
		{"remember", "a memory is stored, found by its words, and forgotten", func(p *play) finding {
			stored := p.a.must("remember", fields{"content": "the deployment of " + p.tag + " needs a running database", "tags": []string{"ops"}}, "memory_stored")
			need(stored, fields{"id": nil})
			found := row(rows(p.b.must("recall", fields{"query": "databases deployments"}, "memory_results"), "memories"), "id", stored["id"])
			if found == nil {
				return differs("not found by other forms of its words")
			}
			need(found, fields{"content": nil, "tags": []string{"ops"}, "rememberedBy": nil, "rememberedAt": nil})
			p.a.must("forget", fields{"memoryId": stored["id"]}, wire.TypeAck)
			if row(rows(p.b.must("recall", fields{"query": p.tag}, "memory_results"), "memories"), "id", stored["id"]) != nil {
				return differs("found after it was forgotten")
			}
			return same()
		}},
		{"forget", "a member does not forget what another remembers", func(p *play) finding {
			stored := p.a.must("remember", fields{"content": "kept " + p.tag}, "memory_stored")
			defer p.a.ask("forget", fields{"memoryId": stored["id"]})
			p.b.ask("forget", fields{"memoryId": stored["id"]})
			if row(rows(p.a.must("recall", fields{"query": "kept"}, "memory_results"), "memories"), "id", stored["id"]) == nil {
				return defective(43, "it is gone")
			}
			return corrected(43)
		}},
		{"share_skill", "a skill is shared, listed, fetched and removed", func(p *play) finding {
			name := p.name("skill")
			need(p.a.must("share_skill", fields{"name": name, "description": "checks", "instructions": "check it", "tags": []string{"t"}}, "skill_ack"), fields{"name": name, "action": "shared"})
			if r := row(rows(p.b.must("list_skills", fields{"query": "CHECKS"}, "skill_list"), "skills"), "name", name); r == nil {
				return differs("not listed")
			}
			got := p.b.must("get_skill", fields{"name": name}, "skill_data")
			skill, _ := got["skill"].(map[string]any)
			need(skill, fields{"name": name, "instructions": "check it", "author": nil, "createdAt": nil})
			need(p.a.must("remove_skill", fields{"name": name}, "skill_ack"), fields{"action": "removed"})
			need(p.a.must("remove_skill", fields{"name": name}, "skill_ack"), fields{"action": "not_found"})
			return same()
		}},
		{"share_skill", "a member does not overwrite another's skill", func(p *play) finding {
			name := p.name("owned")
			p.a.must("share_skill", fields{"name": name, "description": "a", "instructions": "a"}, "skill_ack")
			defer p.a.ask("remove_skill", fields{"name": name})
			if r := p.b.ask("share_skill", fields{"name": name, "description": "b", "instructions": "b"}); r.frame["type"] != wire.TypeError {
				return defective(43, "it is overwritten")
			}
			return corrected(43)
		}},
		{"vault_set", "a secret is stored, listed, fetched and deleted, by its member only", func(p *play) finding {
			key := p.name("secret")
			box := base64.StdEncoding.EncodeToString(make([]byte, 32))
			need(p.a.must("vault_set", fields{"key": key, "ciphertext": box, "nonce": nonce(), "sealed_key": base64.StdEncoding.EncodeToString(make([]byte, 80)), "entry_type": "env"}, "vault_ack"), fields{"key": key, "action": "stored"})
			if r := row(rows(p.a.must("vault_list", nil, "vault_list_result"), "entries"), "key", key); r == nil {
				return differs("not listed")
			}
			got := rows(p.a.must("vault_get", fields{"keys": []string{key, "other"}}, "vault_get_result"), "entries")
			if len(got) != 1 {
				return differs("%s", show(got))
			}
			need(got[0], fields{"key": key, "ciphertext": box, "nonce": nonce(), "entry_type": "env"})
			if others := rows(p.b.must("vault_get", fields{"keys": []string{key}}, "vault_get_result"), "entries"); len(others) != 0 {
				return differs("another member gets it")
			}
			need(p.a.must("vault_delete", fields{"key": key}, "vault_ack"), fields{"action": "deleted"})
			need(p.a.must("vault_delete", fields{"key": key}, "vault_ack"), fields{"action": "not_found"})
			return same()
		}},
	}
}
