package conformance

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"claudemesh/bridge"
	"claudemesh/wire"
)

func fileChecks() []check {
	return []check{
		{"list_files", "files are listed", func(p *play) finding {
			rows(p.a.must("list_files", fields{"query": p.tag}, "file_list"), "files")
			return same()
		}},
		{"get_file", "a file that does not exist is refused", func(p *play) finding {
			need(p.a.ask("get_file", fields{"fileId": strings.Repeat("z", 32)}).frame, fields{"type": wire.TypeError, "code": wire.CodeNotFound})
			return same()
		}},
		{"grant_file_access", "access to a file that does not exist cannot be granted", func(p *play) finding {
			need(p.a.ask("grant_file_access", fields{"fileId": strings.Repeat("z", 32), "peerPubkey": p.bob.who.PublicKey(), "sealedKey": nonce()}).frame, fields{"type": wire.TypeError, "code": wire.CodeNotFound})
			return same()
		}},
		{"delete_file", "deleting a file that does not exist is answered", func(p *play) finding {
			if r := p.a.ask("delete_file", fields{"fileId": strings.Repeat("z", 32)}); r.frame == nil {
				return differs("silence")
			}
			return same()
		}},
		{"file_status", "the accesses of a file are answered", func(p *play) finding {
			if r := p.a.ask("file_status", fields{"fileId": strings.Repeat("z", 32)}); r.frame == nil {
				return differs("silence")
			}
			return same()
		}},
	}
}

func timerChecks() []check {
	return []check{
		{"watch", "a watch is made, listed and removed", func(p *play) finding {
			made := p.a.must("watch", fields{"url": "https://example.invalid/" + p.tag, "mode": "status", "interval": 3600, "label": p.tag}, "watch_ack")
			need(made, fields{"watchId": nil, "mode": "status", "interval": 3600})
			r := row(rows(p.a.must("watch_list", nil, "watch_list_result"), "watches"), "id", made["watchId"])
			need(r, fields{"url": "https://example.invalid/" + p.tag, "label": p.tag, "createdAt": nil})
			p.a.must("unwatch", fields{"watchId": made["watchId"]}, "watch_ack")
			return same()
		}},
		{"watch", "a watch outlives the connection that made it", func(p *play) finding {
			made := p.a.must("watch", fields{"url": "https://example.invalid/" + p.tag, "interval": 3600}, "watch_ack")
			p.a.close()
			s := p.connect(p.alice)
			p.extra = append(p.extra, s)
			r := row(rows(s.must("watch_list", nil, "watch_list_result"), "watches"), "id", made["watchId"])
			s.ask("unwatch", fields{"watchId": made["watchId"]})
			if r == nil {
				return defective(71, "it is gone")
			}
			return corrected(71)
		}},
		{"create_webhook", "what is posted to a webhook reaches the mesh, and its name can be used again", func(p *play) finding {
			name := p.name("hook")
			made := p.a.must("create_webhook", fields{"name": name}, "webhook_ack")
			need(made, fields{"name": name, "url": nil, "secret": nil})
			base, err := bridge.HTTPBase(p.cfg.URL)
			if err != nil {
				return differs("%v", err)
			}
			res, err := http.Post(base+"/hook/"+p.meshID+"/"+text(made, "secret"), "application/json", strings.NewReader(`{"build":"red"}`))
			if err != nil {
				return differs("post: %v", err)
			}
			_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20))
			res.Body.Close()
			if res.StatusCode != http.StatusOK {
				return differs("post: HTTP %d", res.StatusCode)
			}
			need(p.b.event(name), fields{"subtype": "webhook", "senderPubkey": "webhook:" + name, "eventData": fields{"build": "red"}, "priority": "next"})
			if r := row(rows(p.a.must("list_webhooks", nil, "webhook_list"), "webhooks"), "name", name); r == nil {
				return differs("not listed")
			}
			if r := p.a.ask("create_webhook", fields{"name": name}); r.frame["code"] != "webhook_exists" {
				return defective(73, "a second one of the name: %s", show(r.frame))
			}
			p.a.must("delete_webhook", fields{"name": name}, "webhook_ack")
			again := p.a.ask("create_webhook", fields{"name": name})
			p.a.ask("delete_webhook", fields{"name": name})
			if again.frame["type"] != "webhook_ack" {
				return defective(73, "the name cannot be used again")
			}
			return corrected(73)
		}},
		{"schedule", "a reminder outlives the connection that made it, and fires", func(p *play) finding {
			body := p.name("remind")
			made := p.a.must("schedule", fields{"to": p.bob.who.PublicKey(), "message": body, "deliverAt": time.Now().Add(p.cfg.Quiet / 2).UnixMilli(), "subtype": "reminder"}, "scheduled_ack")
			need(made, fields{"scheduledId": nil, "deliverAt": nil})
			p.a.close()
			f := p.b.pushed(body)
			if f == nil {
				f = p.b.pushed(body) // it had half the time only
			}
			if f == nil {
				return defective(69, "it does not fire")
			}
			if f["subtype"] != "reminder" {
				return defective(10, "subtype %v", f["subtype"])
			}
			return corrected(69)
		}},
		{"schedule", "a reminder is listed and cancelled, and a bad cron line is refused", func(p *play) finding {
			made := p.a.must("schedule", fields{"to": p.bob.who.PublicKey(), "message": p.tag, "cron": "0 4 1 1 *"}, "scheduled_ack")
			r := row(rows(p.a.must("list_scheduled", nil, "scheduled_list"), "messages"), "id", made["scheduledId"])
			need(r, fields{"to": p.bob.who.PublicKey(), "cron": "0 4 1 1 *", "deliverAt": nil, "createdAt": nil})
			need(p.a.must("cancel_scheduled", fields{"scheduledId": made["scheduledId"]}, "cancel_scheduled_ack"), fields{"ok": true})
			need(p.a.must("cancel_scheduled", fields{"scheduledId": made["scheduledId"]}, "cancel_scheduled_ack"), fields{"ok": false})
			need(p.a.ask("schedule", fields{"to": "*", "message": "x", "cron": "never"}).frame, fields{"type": wire.TypeError, "code": "invalid_cron"})
			return same()
		}},
	}
}

func adminChecks() []check {
	return []check{
		{"apikey_create", "a key is made, listed without its secret, and revoked", func(p *play) finding {
			made := p.a.must("apikey_create", fields{"label": p.tag, "capabilities": []string{"read"}}, "apikey_created")
			need(made, fields{"id": nil, "secret": nil, "prefix": nil, "label": p.tag, "capabilities": []string{"read"}})
			if s := text(made, "secret"); !strings.HasPrefix(s, "cm_") || len(s) != 46 || text(made, "prefix") != s[:11] {
				return differs("secret of another form")
			}
			r := row(rows(p.a.must("apikey_list", nil, "apikey_list_response"), "keys"), "id", made["id"])
			need(r, fields{"label": p.tag, "prefix": made["prefix"]})
			if _, leaked := r["secret"]; leaked {
				return differs("the list holds the secret")
			}
			need(p.a.must("apikey_revoke", fields{"id": made["id"]}, "apikey_revoke_response"), fields{"status": "revoked"})
			return same()
		}},
		{"apikey_create", "a member makes no admin key", func(p *play) finding {
			r := p.b.ask("apikey_create", fields{"label": p.tag, "capabilities": []string{"admin"}})
			if id, ok := r.frame["id"].(string); ok && r.frame["type"] == "apikey_created" {
				p.a.ask("apikey_revoke", fields{"id": id})
				return defective(43, "it does")
			}
			return corrected(43)
		}},
		{"kick", "a member that is no admin kicks nobody", func(p *play) finding {
			need(p.b.ask("kick", fields{"target": p.carol.name}).frame, fields{"type": wire.TypeError, "code": wire.CodeForbidden})
			return same()
		}},
		{"list_bans", "the bans are listed", func(p *play) finding {
			r := p.a.ask("list_bans", nil)
			if r.frame["code"] == wire.CodeForbidden { // of a member that is no admin
				return corrected(43)
			}
			need(r.frame, fields{"type": "list_bans_result"})
			rows(r.frame, "bans")
			return same()
		}},
		{"ban", "who is banned is closed with 4002 and stays out, until unbanned", func(p *play) finding {
			r := p.a.ask("ban", fields{"target": p.carol.who.PublicKey()})
			if r.frame["code"] == wire.CodeForbidden {
				return finding{verdict: Same, detail: "not tried further: the checks' members are no admins of this mesh"}
			}
			need(r.frame, fields{"type": "ban_ack", "banned": p.carol.name})
			defer p.a.must("unban", fields{"target": p.carol.who.PublicKey()}, "unban_ack")
			if code, reason, _ := p.c.closed(); code != wire.CloseBanned || reason != "banned" {
				return differs("closed with %d %q", code, reason)
			}
			p.turnedAway(wire.SignHello(p.hello(p.carol), p.carol.who, time.Now()), wire.CodeRevoked, wire.CloseBanned)
			if row(rows(p.a.must("list_bans", nil, "list_bans_result"), "bans"), "pubkey", p.carol.who.PublicKey()) == nil {
				return differs("not listed")
			}
			return same()
		}},
	}
}

func serviceChecks() []check {
	return []check{
		{wire.TypeMCPRegister, "a service is offered, listed, called and withdrawn", func(p *play) finding {
			name := p.name("svc")
			need(p.a.must(wire.TypeMCPRegister, fields{"serverName": name, "description": "d", "tools": []fields{{"name": "add", "description": "adds", "inputSchema": fields{"type": "object"}}}}, wire.TypeMCPRegisterAck), fields{"serverName": name, "toolCount": 1})
			r := row(rows(p.b.must(wire.TypeMCPList, nil, wire.TypeMCPListResult), "servers"), "name", name)
			need(r, fields{"hostedBy": p.alice.name, "online": true})
			p.b.seq++
			id := fmt.Sprintf("call-%d", p.b.seq)
			p.b.write(fields{"type": wire.TypeMCPCall, "_reqId": id, "serverName": name, "toolName": "add", "args": fields{"a": 1}})
			f := p.a.take(func(f fields) bool { return f["type"] == wire.TypeMCPCallForward })
			need(f, fields{"serverName": name, "toolName": "add", "args": fields{"a": 1}, "callerName": p.bob.name})
			p.a.write(fields{"type": wire.TypeMCPCallResponse, "callId": f["callId"], "result": 3})
			need(p.b.take(func(f fields) bool { return f["_reqId"] == id }), fields{"type": wire.TypeMCPCallResult, "result": 3})
			p.a.quietly(wire.TypeMCPUnregister, fields{"serverName": name})
			return same()
		}},
		{wire.TypeMCPRegister, "nobody replaces another's service", func(p *play) finding {
			name := p.name("svc2")
			offer := fields{"serverName": name, "description": "d", "tools": []fields{}}
			p.a.must(wire.TypeMCPRegister, offer, wire.TypeMCPRegisterAck)
			if r := p.b.ask(wire.TypeMCPRegister, offer); r.frame["type"] != wire.TypeError {
				return defective(56, "it is replaced")
			}
			return corrected(56)
		}},
		{wire.TypeMCPCall, "a service that does not exist is an error of the call", func(p *play) finding {
			need(p.a.must(wire.TypeMCPCall, fields{"serverName": p.name("none"), "toolName": "x", "args": fields{}}, wire.TypeMCPCallResult), fields{"error": fmt.Sprintf("MCP server %q not found in mesh", p.name("none"))})
			return same()
		}},
		{wire.TypeMCPCatalog, "the catalogue is answered", func(p *play) finding {
			rows(p.a.must(wire.TypeMCPCatalog, nil, wire.TypeMCPCatalogResult), "services")
			return same()
		}},
		{wire.TypeMCPSchema, "the tools of an unknown service are none", func(p *play) finding {
			if got := rows(p.a.must(wire.TypeMCPSchema, fields{"server_name": p.name("none")}, wire.TypeMCPSchemaResult), "tools"); len(got) != 0 {
				return differs("%s", show(got))
			}
			return same()
		}},
		{wire.TypeMCPUndeploy, "ending what was never deployed is answered", func(p *play) finding {
			if r := p.b.ask(wire.TypeMCPUndeploy, fields{"server_name": p.name("dep")}); r.frame == nil {
				return differs("silence")
			}
			return same()
		}},
		{wire.TypeMCPDeploy, "a deployment is answered", func(p *play) finding {
			r := p.b.ask(wire.TypeMCPDeploy, fields{"server_name": p.name("dep"), "source": fields{"type": "npx", "package": "no-such-package-" + p.tag}})
			if r.frame == nil {
				return differs("silence")
			}
			if r.frame["type"] == wire.TypeError {
				return finding{verdict: Unsupported, detail: text(r.frame, "message")}
			}
			return same()
		}},
	}
}
