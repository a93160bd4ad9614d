package broker

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"claudemesh/wire"
)

// logInto is a logger that a test can read.
func logInto(mu *sync.Mutex, out *strings.Builder) *slog.Logger {
	return slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return out.Write(p)
	}), nil))
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func (c *client) webhook(name string) wire.WebhookAck {
	c.t.Helper()
	ack := into[wire.WebhookAck](c, c.call(wire.TypeCreateWebhook, map[string]any{"name": name}))
	if ack.Type != wire.TypeWebhookAck || len(ack.Secret) != 64 || !strings.HasSuffix(ack.URL, "/"+ack.Secret) {
		c.t.Fatalf("%+v", ack)
	}
	return ack
}

func (r *rig) postTo(ack wire.WebhookAck, key string, body []byte) (int, string) {
	r.t.Helper()
	u, err := url.Parse(ack.URL)
	if err != nil {
		r.t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, r.http.URL+u.Path, bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := r.http.Client().Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, string(out)
}

func TestAWebhooksEventReachesEveryMember(t *testing.T) {
	r := newRig(t)
	bob, carol := r.addMember("bob"), r.addMember("carol")
	a, b := r.member(r.owner), r.member(bob)
	ci := a.webhook("ci")
	if status, body := r.postTo(ci, "", []byte(" {\n \"build\": 7, \"n\": 1.50 }")); status != 200 || body != `{"ok":true,"delivered":2}` {
		t.Fatal(status, body)
	}
	for _, c := range []*client{a, b, r.member(carol)} { // carol was not there
		p := c.message()
		if string(p.EventData) != `{"build":7,"n":1.50}` || p.Subtype != wire.SubtypeWebhook || p.Event != "ci" || p.SenderPubkey != "webhook:ci" || p.Priority != wire.PriorityNext || p.Ciphertext != "" {
			t.Errorf("%+v", p)
		}
		c.clientAck(p, "")
	}
	t.Run("once for one idempotency key", func(t *testing.T) {
		for range 3 {
			if status, body := r.postTo(ci, "k1", []byte(`{"x":1}`)); status != 200 {
				t.Fatal(status, body)
			}
		}
		r.postTo(ci, "k2", []byte(`{"x":2}`))
		if p, q := b.message(), b.message(); string(p.EventData) != `{"x":1}` || string(q.EventData) != `{"x":2}` {
			t.Errorf("%s %s", p.EventData, q.EventData)
		}
	})
	t.Run("survives a restart of the broker", func(t *testing.T) {
		r.restart()
		if status, body := r.postTo(ci, "", []byte(`[1]`)); status != 200 || body != `{"ok":true,"delivered":0}` {
			t.Error(status, body)
		}
	})
}

func TestWhatAWebhookRefuses(t *testing.T) {
	clock, useClock := fakeClock(noon)
	r := newRig(t, useClock, func(c *Config) { c.Limits.HookEvents = 20 })
	a := r.member(r.owner)
	ci := a.webhook("ci")
	wrong := ci
	wrong.URL = ci.URL[:len(ci.URL)-4] + "dead"
	elsewhere := ci
	elsewhere.URL = strings.Replace(ci.URL, r.mesh.ID, mustID(t), 1)
	for _, c := range []struct {
		name   string
		hook   wire.WebhookAck
		key    string
		body   string
		status int
		answer string
	}{
		{"another secret", wrong, "", `{}`, 401, "unauthorized"},
		{"another mesh", elsewhere, "", `{}`, 401, "unauthorized"},
		{"no JSON", ci, "", `not json`, 400, "invalid JSON"},
		{"nothing", ci, "", ``, 400, "invalid JSON"},
		{"two values", ci, "", `{}{}`, 400, "invalid JSON"},
		{"a number", ci, "", `1`, 400, "invalid JSON body"},
		{"null", ci, "", `null`, 400, "invalid JSON body"},
		{"what is not UTF-8", ci, "", "{\"a\":\"\xff\"}", 400, "invalid JSON"},
		{"too much", ci, "", `["` + strings.Repeat("x", wire.MaxHookBody) + `"]`, 413, "body too large"},
		{"a long key", ci, strings.Repeat("k", 201), `{}`, 400, "idempotency key too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if status, body := r.postTo(c.hook, c.key, []byte(c.body)); status != c.status || body != fmt.Sprintf(`{"ok":false,"error":%q}`, c.answer) {
				t.Error(status, body)
			}
		})
	}
	t.Run("too many a minute", func(t *testing.T) {
		last := 0
		for range 30 {
			last, _ = r.postTo(ci, "", []byte(`{}`))
		}
		if last != http.StatusTooManyRequests {
			t.Error(last)
		}
		clock.Advance(time.Minute)
		if status, _ := r.postTo(ci, "", []byte(`{}`)); status != 200 {
			t.Error(status)
		}
	})
}

func TestManagingWebhooks(t *testing.T) {
	var log strings.Builder
	var mu sync.Mutex
	r := newRig(t, func(c *Config) { c.Limits.WebhooksPerMesh = 3; c.Log = logInto(&mu, &log) })
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	ci := a.webhook("ci")
	b.webhook("bob's")
	create := func(c *client, name string) string {
		return into[wire.Error](c, c.call(wire.TypeCreateWebhook, map[string]any{"name": name})).Code
	}
	remove := func(c *client, name string) []byte {
		return c.call(wire.TypeDeleteWebhook, map[string]any{"name": name})
	}
	names := func(c *client) (all []string) {
		raw := c.call(wire.TypeListWebhooks, nil)
		if bytes.Contains(raw, []byte(ci.Secret)) {
			t.Errorf("%s", raw)
		}
		for _, h := range into[wire.WebhookList](c, raw).Webhooks {
			if !h.Active || !strings.HasSuffix(h.URL, "/hook/"+r.mesh.ID+"/********") {
				t.Errorf("%+v", h)
			}
			all = append(all, h.Name)
		}
		return all
	}
	if code := create(b, "ci"); code != wire.CodeWebhookExists {
		t.Errorf("a name twice: %s", code)
	}
	if code := create(a, " "); code != wire.CodeInvalidWebhook {
		t.Errorf("no name: %s", code)
	}
	if got := fmt.Sprint(names(a), names(b)); got != "[bob's ci] [bob's]" {
		t.Errorf("listed: %s", got)
	}
	if e := into[wire.Error](b, remove(b, "ci")); e.Code != wire.CodeForbidden {
		t.Errorf("another member's: %+v", e)
	}
	if ack := into[wire.WebhookAck](a, remove(a, "ci")); ack.Type != wire.TypeWebhookAck || !*ack.Deleted || ack.URL != "" {
		t.Errorf("%+v", ack)
	}
	if ack := into[wire.WebhookAck](a, remove(a, "ci")); *ack.Deleted {
		t.Errorf("twice: %+v", ack)
	}
	if status, _ := r.postTo(ci, "", []byte(`{}`)); status != 401 {
		t.Errorf("the deleted one answers %d", status)
	}
	t.Run("a name can be had again, with another secret", func(t *testing.T) {
		again := a.webhook("ci")
		if status, _ := r.postTo(again, "", []byte(`{}`)); again.Secret == ci.Secret || status != 200 {
			t.Error(status)
		}
	})
	a.webhook("third")
	if code := create(a, "fourth"); code != wire.CodeLimit {
		t.Errorf("over the limit: %s", code)
	}
	t.Run("one of a member who was removed is closed", func(t *testing.T) {
		r.broker.mu.Lock()
		r.broker.meshes[r.mesh.ID].members[bob.PublicKey()].RevokedAt = 1
		r.broker.mu.Unlock()
		if _, err := r.broker.postEvent(t.Context(), r.mesh.ID, hookRecord{MemberPubkey: bob.PublicKey()}, "", []byte(`{}`)); err != errNobodyLeft {
			t.Error(err)
		}
	})
	mu.Lock()
	defer mu.Unlock()
	if strings.Contains(log.String(), ci.Secret) {
		t.Error(log.String())
	}
}
