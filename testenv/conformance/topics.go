package conformance

import "claudemesh/wire"

// topic makes one and returns its id.
func (p *play) topic(name string) string {
	f := p.a.must("topic_create", fields{"name": name, "description": "for checks"}, "topic_created")
	t, _ := f["topic"].(map[string]any)
	need(t, fields{"id": nil, "name": name, "visibility": "public"})
	return text(t, "id")
}

func topicChecks() []check {
	return []check{
		{"topic_create", "a topic is made once, listed, and its maker leads it", func(p *play) finding {
			name := p.name("t1")
			p.topic(name)
			need(p.b.must("topic_create", fields{"name": name}, "topic_created"), fields{"created": false})
			r := row(rows(p.b.must("topic_list", nil, "topic_list_response"), "topics"), "name", name)
			need(r, fields{"id": nil, "memberCount": nil, "createdAt": nil, "visibility": "public"})
			m := row(rows(p.a.must("topic_members", fields{"topic": name}, "topic_members_response"), "members"), "pubkey", p.alice.who.PublicKey())
			need(m, fields{"role": "lead", "displayName": p.alice.name, "memberId": p.alice.memberID})
			return same()
		}},
		{"topic_create", "naming an existing topic makes nobody its lead", func(p *play) finding {
			name := p.name("t2")
			p.topic(name)
			p.b.ask("topic_create", fields{"name": name})
			m := row(rows(p.a.must("topic_members", fields{"topic": name}, "topic_members_response"), "members"), "pubkey", p.bob.who.PublicKey())
			if m["role"] == "lead" {
				return defective(44, "it does")
			}
			return corrected(44)
		}},
		{"topic_join", "who joins is a member, who leaves is not", func(p *play) finding {
			name := p.name("t3")
			p.topic(name)
			in := func() fields {
				return row(rows(p.a.must("topic_members", fields{"topic": name}, "topic_members_response"), "members"), "pubkey", p.bob.who.PublicKey())
			}
			p.b.quietly("topic_join", fields{"topic": name})
			if m := in(); m == nil || m["role"] != "member" {
				return differs("%s", show(m))
			}
			p.b.quietly("topic_leave", fields{"topic": name})
			if in() != nil {
				return differs("still a member")
			}
			return same()
		}},
		{"topic_join", "a topic that does not exist is refused, with the request's id", func(p *play) finding {
			r := p.b.ask("topic_join", fields{"topic": p.name("none")})
			need(r.frame, fields{"type": wire.TypeError, "code": "topic_not_found"})
			if r.frame["_reqId"] != r.reqID {
				return defective(68, "in id only")
			}
			return corrected(68)
		}},
		{wire.TypeSend, "a message to a topic is pushed to its members at once, not to its sender, and kept", func(p *play) finding {
			name, body := p.name("t4"), p.name("post")
			id := p.topic(name)
			p.b.quietly("topic_join", fields{"topic": id})
			ack := p.a.mustSend(body, message("#"+id, body))
			f := p.b.pushed(body)
			history := rows(p.b.must("topic_history", fields{"topic": name, "limit": 10}, "topic_history_response"), "messages")
			if len(history) != 1 {
				return differs("history: %s", show(history))
			}
			need(history[0], fields{"id": nil, "senderName": p.alice.name, "ciphertext": base64Of(body), "nonce": nonce(), "createdAt": nil, "bodyVersion": 1})
			if f == nil {
				return defective(5, "not pushed")
			}
			need(f, fields{"messageId": ack["messageId"], "topic": name, "senderName": p.alice.name, "client_message_id": body})
			p.a.fence()
			if p.a.pushed(body) != nil {
				return defective(9, "the sender gets it back")
			}
			return corrected(5)
		}},
		{wire.TypeSend, "somebody who is not in the topic cannot post, nor read it", func(p *play) finding {
			name, body := p.name("t5"), p.name("outsider")
			id := p.topic(name)
			ack := p.c.send(body, message("#"+id, body))
			if ack["queued"] == true {
				return defective(45, "the post is taken")
			}
			return corrected(45)
		}},
		{"topic_mark_read", "reading is noted", func(p *play) finding {
			name := p.name("t6")
			p.topic(name)
			p.a.quietly("topic_mark_read", fields{"topic": name})
			m := row(rows(p.a.must("topic_members", fields{"topic": name}, "topic_members_response"), "members"), "pubkey", p.alice.who.PublicKey())
			if m["lastReadAt"] == nil {
				return differs("%s", show(m))
			}
			return same()
		}},
	}
}
