package conformance

import (
	"encoding/base64"
	"strings"
	"time"

	"claudemesh/wire"
)

func base64Of(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func nonce() string { return base64Of(strings.Repeat("n", 24)) }

// message is a send frame without its id.
func message(target, body string) fields {
	return fields{"targetSpec": target, "priority": "next", "nonce": nonce(), "ciphertext": base64Of(body)}
}

// send sends a message and returns its ack.
func (s *socket) send(id string, m fields) fields {
	f := fields{"type": wire.TypeSend, "id": id, "client_message_id": id}
	for k, v := range m {
		f[k] = v
	}
	s.write(f)
	ack := s.take(func(f fields) bool { return f["type"] == wire.TypeAck && f["id"] == id })
	if ack == nil {
		panic(stop{differs("no ack")})
	}
	return ack
}

func (s *socket) mustSend(id string, m fields) fields {
	ack := s.send(id, m)
	if ack["queued"] != true {
		panic(stop{differs("refused: %s", show(ack))})
	}
	return ack
}

// pushed waits for the push of a message.
func (s *socket) pushed(body string) fields {
	want := base64Of(body)
	return s.take(func(f fields) bool { return f["type"] == wire.TypePush && f["ciphertext"] == want })
}

func (s *socket) mustPushed(body string) fields {
	f := s.pushed(body)
	if f == nil {
		panic(stop{differs("no push")})
	}
	return f
}

func (s *socket) event(name string) fields {
	f := s.take(func(f fields) bool { return f["type"] == wire.TypePush && f["event"] == name })
	if f == nil {
		panic(stop{differs("no system push %s", name)})
	}
	return f
}

func messageChecks() []check {
	return []check{
		{wire.TypeSend, "a message to a member's key is acknowledged and pushed", func(p *play) finding {
			body := p.name("direct")
			ack := p.a.mustSend(body, message(p.bob.who.PublicKey(), body))
			need(ack, fields{"messageId": nil})
			f := p.b.mustPushed(body)
			need(f, fields{"messageId": ack["messageId"], "meshId": p.meshID, "senderPubkey": p.alice.who.PublicKey(), "priority": "next", "nonce": nonce(), "createdAt": nil, "client_message_id": body})
			return same()
		}},
		{wire.TypeSend, "a direct message names its sender", func(p *play) finding {
			body := p.name("named")
			p.a.mustSend(body, message(p.bob.who.PublicKey(), body))
			if f := p.b.mustPushed(body); f["senderName"] != p.alice.name || f["senderMemberPubkey"] != p.alice.who.PublicKey() {
				return defective(10, "senderName %v", f["senderName"])
			}
			return corrected(10)
		}},
		{wire.TypeSend, "the same client message id is one message", func(p *play) finding {
			body := p.name("twice")
			first := p.a.mustSend(body, message(p.bob.who.PublicKey(), body))
			again := p.a.mustSend(body, message(p.bob.who.PublicKey(), body))
			p.b.mustPushed(body)
			if again["messageId"] != first["messageId"] || p.b.pushed(body) != nil {
				return defective(11, "it is delivered twice")
			}
			return corrected(11)
		}},
		{wire.TypeSend, "a message to a member that is offline waits for it", func(p *play) finding {
			body := p.name("offline")
			p.b.close()
			p.a.fence()
			ack := p.a.send(body, message(p.bob.who.PublicKey(), body))
			if ack["queued"] != true {
				return defective(2, "refused: %v", ack["error"])
			}
			s := p.connect(p.bob)
			p.extra = append(p.extra, s)
			s.mustPushed(body)
			return corrected(2)
		}},
		{wire.TypeSend, "a key that nobody has is refused with the reference's text", func(p *play) finding {
			need(p.a.send(p.name("nobody"), message(newKey().PublicKey(), "x")), fields{
				"queued": false, "error": "no connected peer for target (not online, or targetSpec is your own key without another session)",
			})
			return same()
		}},
		{wire.TypeSend, "a message over 65536 bytes is refused and the socket stays", func(p *play) finding {
			ack := p.a.send(p.name("large"), message(p.bob.who.PublicKey(), strings.Repeat("x", 50_000)))
			if ack["queued"] != false || !strings.HasPrefix(text(ack, "error"), "payload too large: ") {
				return differs("%s", show(ack))
			}
			p.a.fence()
			return same()
		}},
		{wire.TypeSend, "a send without a target is answered", func(p *play) finding {
			p.a.write(fields{"type": wire.TypeSend, "id": p.name("no-target"), "priority": "next", "nonce": "", "ciphertext": ""})
			if p.a.take(func(f fields) bool { return f["id"] == p.name("no-target") }) == nil {
				return defective(19, "no answer")
			}
			return corrected(19)
		}},
		{wire.TypeSend, "a broadcast reaches the others, not the sender, and carries its id and the sender's name", func(p *play) finding {
			body := p.name("broadcast")
			p.a.mustSend(body, message("*", body))
			for _, s := range []*socket{p.b, p.c} {
				f := s.mustPushed(body)
				need(f, fields{"senderName": p.alice.name, "senderMemberPubkey": p.alice.who.PublicKey()})
				if f["client_message_id"] != body {
					return defective(10, "no client_message_id")
				}
			}
			p.a.fence()
			if p.a.pushed(body) != nil {
				return differs("the sender gets it back")
			}
			return corrected(10)
		}},
		{wire.TypeSend, "a member that is offline gets a broadcast later", func(p *play) finding {
			body := p.name("broadcast-offline")
			p.c.close()
			p.a.fence()
			p.a.mustSend(body, message("*", body))
			s := p.connect(p.carol)
			p.extra = append(p.extra, s)
			if s.pushed(body) == nil {
				return defective(2, "it is lost")
			}
			return corrected(2)
		}},
		{wire.TypeSend, "a group message reaches the group and nobody else", func(p *play) finding {
			group, body := p.name("g"), p.name("to-group")
			p.b.quietly(wire.TypeJoinGroup, fields{"name": group})
			p.a.mustSend(body, message("@"+group, body))
			p.b.mustPushed(body)
			p.c.fence()
			if p.c.pushed(body) != nil {
				return differs("somebody outside gets it")
			}
			return same()
		}},
		{wire.TypeSend, "a message to @a reaches the group a/b", func(p *play) finding {
			group, body := p.name("h"), p.name("to-parent")
			p.b.quietly(wire.TypeJoinGroup, fields{"name": group + "/sub"})
			p.a.mustSend(body, message("@"+group, body))
			if p.b.pushed(body) == nil {
				return defective(7, "it does not")
			}
			return corrected(7)
		}},
		{wire.TypeClientAck, "what was pushed and not acknowledged is pushed again", func(p *play) finding {
			body := p.name("unacked")
			p.b.close()
			h := p.hello(p.bob)
			h.Capabilities = []string{wire.CapClientAck}
			connect := func() *socket {
				s := p.dialExtra()
				s.write(wire.SignHello(h, p.bob.who, time.Now()))
				s.take(func(f fields) bool { return f["type"] == wire.TypeHelloAck })
				return s
			}
			s := connect()
			p.a.mustSend(body, message(p.bob.who.PublicKey(), body))
			s.mustPushed(body)
			s.close()
			s = connect()
			f := s.pushed(body)
			if f == nil {
				return defective(1, "it is lost")
			}
			s.write(fields{"type": wire.TypeClientAck, "clientMessageId": body, "brokerMessageId": f["messageId"]})
			s.fence()
			s.close()
			if connect().pushed(body) != nil {
				return differs("it comes again after the acknowledgement")
			}
			return corrected(1)
		}},
		{"message_status", "the state of a message can be asked for", func(p *play) finding {
			body := p.name("status")
			ack := p.a.mustSend(body, message(p.bob.who.PublicKey(), body))
			p.b.mustPushed(body)
			f := p.a.must("message_status", fields{"messageId": ack["messageId"]}, "message_status_result")
			need(f, fields{"messageId": ack["messageId"], "targetSpec": p.bob.who.PublicKey(), "delivered": nil, "deliveredAt": nil, "recipients": nil})
			return same()
		}},
		{"message_status", "an id of another shape, and one that is unknown, are refused", func(p *play) finding {
			need(p.a.ask("message_status", fields{"messageId": "abc"}).frame, fields{"type": wire.TypeError, "code": "invalid_argument"})
			need(p.a.ask("message_status", fields{"messageId": strings.Repeat("z", 32)}).frame, fields{"type": wire.TypeError, "code": wire.CodeNotFound})
			return same()
		}},
		{"unknown types", "a type that does not exist is answered", func(p *play) finding {
			r := fields{"type": "check_no_such_type", "_reqId": "none"}
			p.a.write(r)
			e := p.a.take(func(f fields) bool { return f["_reqId"] == "none" })
			if e == nil {
				return defective(33, "silence")
			}
			need(e, fields{"type": wire.TypeError, "code": wire.CodeUnknownType})
			return corrected(33)
		}},
	}
}
