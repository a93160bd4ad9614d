package broker

import (
	"net/http"
	"testing"

	"github.com/gorilla/websocket"

	"claudemesh/wire"
)

// FuzzDispatch sends any bytes as a frame, before and after hello. Whatever they are, the broker lives, the connection that sent them is still answered
// or was closed for a reason, and nobody else's is touched.
func FuzzDispatch(f *testing.F) {
	r := newRig(f)
	// An administrator, so that moderation is tried too; the witness is the owner, whom nobody moderates.
	eve := newIdentity(f)
	r.addMemberAs(memberRecord{ID: mustID(f), Pubkey: eve.PublicKey(), Name: "eve", Role: "admin"})
	witness := r.member(r.owner)
	for _, s := range []string{
		`{"type":"send","id":"1","targetSpec":"*","priority":"next","nonce":"","ciphertext":""}`,
		`{"type":"send","id":"1","client_message_id":"x","targetSpec":"#","priority":"next"}`,
		`{"type":"client_ack","brokerMessageId":"r1"}`, `{"type":"client_ack","clientMessageId":"x","state":"surfaced"}`,
		`{"type":"join_group","name":"\u0000"}`, `{"type":"set_stats","stats":{"messagesIn":1e99}}`, `{"type":"invite_create","invite_token":"AAAA","max_uses":1}`,
		`{"type":"kick","all":true}`, `{"type":"disconnect","stale":-1}`, `{"type":"ban","target":"00000000"}`, `{"type":"unban","target":""}`,
		`{"type":"grants_set","grants":{"x":["dm"]}}`, `{"type":"grants_set","grants":{"` + eve.PublicKey() + `":null}}`,
		`{"type":"member_edit","memberId":"x","roleTag":7}`, `{"type":"member_edit","memberId":"x","groups":[{}]}`, `{"type":"mesh_settings","selfEditable":{}}`,
		`{"type":"apikey_create","label":"x","capabilities":["read","read"],"expiresAt":"never"}`, `{"type":"apikey_revoke","id":"A"}`,
		`{"type":"vault_set","key":"k","ciphertext":"c","nonce":"n","sealed_key":"s","entry_type":"env"}`, `{"type":"vault_get","keys":["k",""]}`, `{"type":"vault_delete","key":"*"}`,
		`{"type":"get_file","fileId":">"}`, `{"type":"list_files","query":"\u0000","from":"*"}`, `{"type":"grant_file_access","fileId":"x","peerPubkey":"*","sealedKey":""}`,
		`{"type":"delete_file","fileId":"00000000000000000000000000000000"}`, `{"type":"file_status","fileId":7}`,
		`{"type":"topic_create","name":"x","key":{"encryptedKey":"AA","nonce":""}}`, `{"type":"topic_join","topic":"general","memberId":"x"}`, `{"type":"topic_list"}`,
		`{"type":"topic_history","topic":"general","limit":-1,"beforeId":"x"}`, `{"type":"topic_rotate","topic":"general","generation":1,"keys":[{}]}`,
		`{"type":"topic_seal","topic":"general","memberId":"x","encryptedKey":"","nonce":""}`, `{"type":"send","id":"1","targetSpec":"#general","priority":"next","bodyVersion":9}`,
		`{"type":"set_state","key":"\u0000.*>","value":{"a":[]}}`, `{"type":"get_state","key":"."}`, `{"type":"list_state","paged":true,"after":"x"}`, `{"type":"delete_state","key":"k"}`,
		`{"type":"remember","content":"\ud800","tags":["t"]}`, `{"type":"recall","query":"\"(NEAR OR *"}`, `{"type":"forget","memoryId":">"}`,
		`{"type":"share_skill","name":"n","description":"d","instructions":"i","manifest":[1e400]}`, `{"type":"get_skill","name":"n"}`, `{"type":"list_skills","query":"%"}`,
		`{"type":"remove_skill","name":"n"}`, `{"type":"mesh_info"}`,
		`{"type":"schedule","to":"*","message":"x","deliverAt":9e15}`, `{"type":"schedule","to":"*","message":"x","cron":"*/5 * * * *","tz":"UTC"}`,
		`{"type":"cancel_scheduled","scheduledId":"x"}`, `{"type":"watch","url":"http://8.8.8.8","headers":{"a":"b"}}`, `{"type":"unwatch","watchId":"w_1"}`,
		`{"type":"create_webhook","name":"x"}`, `{"type":"delete_webhook","name":"x"}`, `{"type":"list_webhooks"}`, `{"type":"list_scheduled"}`, `{"type":"watch_list"}`,
		`{"type":"list_peers","_reqId":{}}`, `{"type":"hello","groups":[{}]}`, `{"type":"session_hello","parentAttestation":null,"timestamp":-1}`, `{`, ``, "\xff\xfe", `[]`, `{"type":"send"`,
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, hello bool) {
		r.t, witness.t = t, t
		ws, _, err := websocket.DefaultDialer.Dial(r.wsURL(), nil)
		if err != nil {
			t.Fatal(err)
		}
		c := adopt(t, ws)
		defer c.close()
		if hello {
			c.write(r.helloFrame(eve, withoutAcks))
			c.wait(wire.TypeHelloAck)
		}
		c.write(data)
		if hello {
			c.settle()
		}
		witness.settle()
		for _, held := range witness.held {
			if _, err := wire.Peek(held); err != nil {
				t.Errorf("the witness got %q", held)
			}
		}
		witness.held = nil
	})
}

// FuzzRequests sends any bytes as the body of the HTTP requests that members and their API keys make. Whatever they are, there is an answer, and nothing is
// wrong with the broker itself.
func FuzzRequests(f *testing.F) {
	r := newRig(f)
	bob := r.addMember("bob")
	key := r.member(bob).newKey("send").Secret
	self := "/mesh/" + r.mesh.ID + "/member/" + r.memberID(bob)
	for _, s := range []string{
		`{"topic":"general","ciphertext":"aGk=","nonce":""}`, `{"topic":"#","ciphertext":"x","bodyVersion":-1,"mentions":[""]}`, `{"topic":"general","priority":7}`,
		`{"displayName":"b","groups":[{"name":"a"}],"roleTag":null}`, `{"grants":{"x":null}}`, `{"selfEditable":{}}`, `{`, ``, "null", "[]", "\xff",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r.t = t
		if status, got := r.post("/api/v1/messages", key, data); status >= http.StatusInternalServerError && status != http.StatusServiceUnavailable {
			t.Errorf("%d %v to %q", status, got, data)
		}
		for _, route := range [][2]string{{http.MethodPatch, self}, {http.MethodPost, "/cli/mesh/" + r.mesh.Slug + "/grants"}} {
			if status, got := r.doRaw(bob, route[0], route[1], data); status >= http.StatusInternalServerError {
				t.Errorf("%s: %d %v to %q", route[1], status, got, data)
			}
		}
	})
}
