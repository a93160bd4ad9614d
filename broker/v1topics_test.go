package broker

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"claudemesh/wire"
)

// postWith makes a POST with an API key.
func (r *rig) postWith(secret, path string, body any) (int, map[string]any) {
	r.t.Helper()
	return r.post(path, secret, body)
}

func (c *client) topicKeyFor(scopes []string, caps ...string) string {
	c.t.Helper()
	return into[wire.APIKeyCreated](c, c.call(wire.TypeAPIKeyCreate, map[string]any{"label": "key", "capabilities": caps, "topicScopes": scopes})).Secret
}

func TestTopicsWithAPIKeys(t *testing.T) {
	r := newRig(t)
	bob, carol := r.addMember("bob"), r.addMember("carol")
	a, b, c := r.member(r.owner), r.member(bob), r.member(carol)
	deploys := a.makeTopic("deploys", nil)
	secretTopic := a.makeTopic("secret", map[string]any{"visibility": "private"})
	_ = secretTopic
	b.call(wire.TypeTopicJoin, map[string]any{"topic": "deploys"})
	key := b.topicKeyFor(nil, "send", "read")
	narrow := b.topicKeyFor([]string{"deploys"}, "send", "read")
	reader := a.topicKeyFor(nil, "read")

	var posted string
	t.Run("a post is a message like any other", func(t *testing.T) {
		status, got := r.postWith(key, "/api/v1/messages", map[string]any{"topic": "deploys", "ciphertext": "aGk=", "nonce": "", "mentions": []string{"alice"}})
		posted, _ = got["messageId"].(string)
		if status != 200 || !validID(posted) || got["historyId"] != posted || got["queueId"] != posted || got["topic"] != "deploys" || got["topicId"] != deploys || got["bodyVersion"] != float64(1) {
			t.Fatalf("%d %v", status, got)
		}
		if p := a.message(); p.MessageID != posted || p.Topic != "deploys" || p.SenderMemberPubkey != bob.PublicKey() || p.SenderName != "bob" || p.Ciphertext != "aGk=" {
			t.Errorf("%+v", p)
		}
		c.settle()
		c.quiet()
	})
	t.Run("and the same id is the same post", func(t *testing.T) {
		body := map[string]any{"topic": "deploys", "ciphertext": "b25jZQ==", "nonce": "", "client_message_id": "k1", "replyToId": posted}
		_, first := r.postWith(key, "/api/v1/messages", body)
		_, again := r.postWith(key, "/api/v1/messages", body)
		if first["messageId"] == nil || first["messageId"] != again["messageId"] || first["replyToId"] != posted {
			t.Errorf("%v %v", first, again)
		}
		body["ciphertext"] = "dHdpY2U="
		if status, got := r.postWith(key, "/api/v1/messages", body); status != http.StatusConflict {
			t.Errorf("%d %v", status, got)
		}
		a.message()
	})
	t.Run("the history has them, newest first, with the member's key", func(t *testing.T) {
		status, got := r.withKey(reader, http.MethodGet, "/api/v1/topics/deploys/messages?limit=1")
		messages, _ := got["messages"].([]any)
		if status != 200 || got["topicId"] != deploys || len(messages) != 1 {
			t.Fatalf("%d %v", status, got)
		}
		m := messages[0].(map[string]any)
		if m["ciphertext"] != "b25jZQ==" || m["senderPubkey"] != bob.PublicKey() || m["senderMemberId"] != r.memberID(bob) || m["senderName"] != "bob" || m["replyToId"] != posted {
			t.Errorf("%v", m)
		}
		status, got = r.withKey(reader, http.MethodGet, "/api/v1/topics/deploys/messages?before="+m["id"].(string))
		messages, _ = got["messages"].([]any)
		if status != 200 || len(messages) != 1 || messages[0].(map[string]any)["id"] != posted || messages[0].(map[string]any)["replyToId"] != nil {
			t.Errorf("%d %v", status, got)
		}
	})
	unread := func(key string) (n float64) {
		_, got := r.withKey(key, http.MethodGet, "/api/v1/topics")
		for _, row := range got["topics"].([]any) {
			if row := row.(map[string]any); row["name"] == "deploys" {
				n = row["unread"].(float64)
			}
		}
		return n
	}
	t.Run("unread are those of others since the last reading", func(t *testing.T) {
		if n := unread(reader); n != 2 {
			t.Errorf("%v unread", n)
		}
		if n := unread(key); n != 0 {
			t.Errorf("%v unread of one's own", n)
		}
		if status, got := r.withKey(reader, http.MethodPatch, "/api/v1/topics/deploys/read"); status != 200 || got["topicId"] != deploys || got["readAt"] == "" {
			t.Errorf("%d %v", status, got)
		}
		if n := unread(reader); n != 0 {
			t.Errorf("%v unread", n)
		}
	})
	t.Run("a key reaches its topics only, and those its member may know of", func(t *testing.T) {
		_, got := r.withKey(narrow, http.MethodGet, "/api/v1/topics")
		if rows := got["topics"].([]any); len(rows) != 1 || rows[0].(map[string]any)["name"] != "deploys" {
			t.Errorf("%v", got)
		}
		if status, got := r.withKey(narrow, http.MethodGet, "/api/v1/topics/general/messages"); status != 403 || got["code"] != codeKeyTopic {
			t.Errorf("%d %v", status, got)
		}
		if status, got := r.postWith(narrow, "/api/v1/messages", map[string]any{"topic": "general", "ciphertext": "aGk="}); status != 403 || got["code"] != codeKeyTopic {
			t.Errorf("%d %v", status, got)
		}
		if status, got := r.postWith(narrow, "/api/v1/messages", map[string]any{"topic": deploys, "ciphertext": "aGk="}); status != 403 || got["code"] != codeKeyTopic {
			t.Errorf("by its id: %d %v", status, got)
		}
		for _, path := range []string{"messages", "key", "stream"} {
			if status, got := r.withKey(key, http.MethodGet, "/api/v1/topics/secret/"+path); status != 404 || got["error"] != "topic_not_found" || got["topic"] != "secret" {
				t.Errorf("%d %v", status, got)
			}
		}
	})
	t.Run("who is not in a topic neither reads nor posts", func(t *testing.T) {
		key := c.topicKeyFor(nil, "send", "read")
		for _, path := range []string{"messages", "stream", "key"} {
			if status, got := r.withKey(key, http.MethodGet, "/api/v1/topics/deploys/"+path); status != 403 || got["code"] != "error.forbidden" {
				t.Errorf("%s: %d %v", path, status, got)
			}
		}
		if status, got := r.postWith(key, "/api/v1/messages", map[string]any{"topic": "deploys", "ciphertext": "aGk="}); status != 403 || got["code"] != "error.forbidden" {
			t.Errorf("%d %v", status, got)
		}
	})
	t.Run("keys of topics", func(t *testing.T) {
		if status, got := r.withKey(key, http.MethodGet, "/api/v1/topics/deploys/key"); status != http.StatusConflict || got["error"] != "topic_unencrypted" {
			t.Errorf("%d %v", status, got)
		}
	})
	for _, tc := range []struct {
		name string
		body any
		want int
	}{
		{"no JSON", []byte("{"), 400},
		{"nothing", map[string]any{}, 400},
		{"an unknown topic", map[string]any{"topic": "x", "ciphertext": "aGk="}, 404},
		{"too many mentions", map[string]any{"topic": "deploys", "ciphertext": "aGk=", "mentions": make([]string, 17)}, 400},
		{"an unknown priority", map[string]any{"topic": "deploys", "ciphertext": "aGk=", "priority": "soon"}, 400},
		{"too long a text", map[string]any{"topic": "deploys", "ciphertext": strings.Repeat("A", wire.MaxSendBytes)}, 413},
		{"an endless body", map[string]any{"topic": "deploys", "ciphertext": strings.Repeat("A", 1<<20)}, 413},
	} {
		t.Run("a post of "+tc.name+" is refused", func(t *testing.T) {
			if status, got := r.postWith(key, "/api/v1/messages", tc.body); status != tc.want {
				t.Errorf("%d %v, want %d", status, got, tc.want)
			}
		})
	}
}

// sse reads one event.
func sse(t *testing.T, in *bufio.Reader) (event, id string, data map[string]any) {
	t.Helper()
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "event":
			event = value
		case "id":
			id = value
		case "data":
			if err := json.Unmarshal([]byte(value), &data); err != nil {
				t.Fatal(err)
			}
		case "":
			return event, id, data
		}
	}
}

func TestTopicStream(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	key := b.newKey("read")
	open := func() (*http.Response, *bufio.Reader) {
		req, err := http.NewRequest(http.MethodGet, r.http.URL+"/api/v1/topics/general/stream", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+key.Secret)
		res, err := r.http.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		return res, bufio.NewReader(res.Body)
	}
	res, in := open()
	if event, _, data := sse(t, in); res.StatusCode != 200 || event != "ready" || data["topic"] != "general" || data["topicId"] == "" || data["connectedAt"] == "" {
		t.Fatalf("%d %s %v", res.StatusCode, event, data)
	}
	if typ := res.Header.Get("Content-Type"); typ != "text/event-stream" {
		t.Error(typ)
	}
	t.Run("brings posts as they are made", func(t *testing.T) {
		for _, text := range []string{"one", "two"} {
			ack := a.mustSend(sendFrame(text, "#general", text))
			event, id, data := sse(t, in)
			if event != "message" || id != ack.MessageID || data["id"] != id || data["senderPubkey"] != r.owner.PublicKey() || data["senderName"] != "alice" {
				t.Errorf("%s %s %v", event, id, data)
			}
		}
	})
	t.Run("is not to be had without end", func(t *testing.T) {
		for range streamsPerKey - 1 {
			if res, _ := open(); res.StatusCode != 200 {
				t.Fatalf("%d", res.StatusCode)
			}
		}
		if res, _ := open(); res.StatusCode != http.StatusTooManyRequests {
			t.Errorf("%d", res.StatusCode)
		}
	})
	t.Run("ends with the key", func(t *testing.T) {
		b.call(wire.TypeAPIKeyRevoke, map[string]any{"id": key.ID})
		a.mustSend(sendFrame("three", "#general", "three"))
		if event, _, data := sse(t, in); event != "error" || data["error"] == "" {
			t.Errorf("%s %v", event, data)
		}
	})
	t.Run("ends with the broker", func(t *testing.T) {
		key = b.newKey("read")
		_, in := open()
		sse(t, in)
		r.stop()
		if event, _, data := sse(t, in); event != "error" || data["error"] != reasonShutdown {
			t.Errorf("%s %v", event, data)
		}
	})
}
