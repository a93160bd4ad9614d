package broker

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// do makes a signed HTTP request.
func (r *rig) do(who mesh.Identity, method, path string, body any) (int, map[string]any) {
	r.t.Helper()
	data := []byte{}
	if body != nil {
		data = mustJSON(r.t, body)
	}
	return r.doRaw(who, method, path, data)
}

func (r *rig) doRaw(who mesh.Identity, method, path string, data []byte) (int, map[string]any) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.http.URL+path, strings.NewReader(string(data)))
	if err != nil {
		r.t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	req.Header.Set("Authorization", mesh.SignHTTP(who, method, path, r.mesh.ID, hex.EncodeToString(sum[:]), r.now()))
	return r.answerTo(req)
}

func (r *rig) answerTo(req *http.Request) (int, map[string]any) {
	r.t.Helper()
	res, err := r.http.Client().Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	var out map[string]any
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, out
}

func (c *client) grants(change wire.Grants) wire.Grants {
	c.t.Helper()
	got := into[wire.GrantsResult](c, c.call(wire.TypeGrantsSet, map[string]any{"grants": change}))
	if got.Type != wire.TypeGrantsResult {
		c.t.Fatalf("%+v", got)
	}
	return got.Grants
}

func TestGrants(t *testing.T) {
	r := newRig(t)
	bob, carol := r.addMember("bob"), r.addMember("carol")
	a, b, c := r.member(r.owner), r.member(bob), r.member(carol)
	key := newIdentity(t)
	s := r.session(bob, key)
	me := r.owner.PublicKey()
	blocked := wire.Ack{Type: wire.TypeAck, ID: "", Error: "blocked by recipient grants (sender lacks dm capability)", Code: wire.AckBlocked}

	before := a.mustSend(sendFrame("before", bob.PublicKey(), "accepted before the block"))
	b.grants(wire.Grants{me: {}})
	t.Run("an empty list blocks direct messages to the member and its sessions", func(t *testing.T) {
		for id, to := range map[string]string{"m": bob.PublicKey(), "s": key.PublicKey()} {
			want := blocked
			want.ID = id
			if got := a.send(sendFrame(id, to, "x")); got != want {
				t.Errorf("%+v", got)
			}
		}
	})
	t.Run("from sessions of the member, too", func(t *testing.T) {
		mine := newIdentity(t)
		if got := r.session(r.owner, mine).send(sendFrame("from-session", bob.PublicKey(), "x")); got.Code != wire.AckBlocked {
			t.Errorf("%+v", got)
		}
	})
	t.Run("a retry of what was accepted gets its first answer", func(t *testing.T) {
		got := a.send(sendFrame("before", bob.PublicKey(), "accepted before the block"))
		if !got.Queued || !got.Duplicate || got.MessageID != before.MessageID {
			t.Errorf("%+v", got)
		}
		if p := b.message(); p.ClientMessageID != "before" {
			t.Errorf("%+v", p)
		}
	})
	t.Run("broadcasts pass the blocking member by without a word", func(t *testing.T) {
		if got := a.send(sendFrame("all", "*", "x")); !got.Queued {
			t.Errorf("%+v", got)
		}
		if p := c.message(); p.ClientMessageID != "all" {
			t.Errorf("%+v", p)
		}
		b.settle()
		b.quiet()
		s.settle()
		s.quiet()
	})
	t.Run("so do posts to a topic", func(t *testing.T) {
		a.mustSend(sendFrame("post", "#general", "x"))
		if p := c.message(); p.ClientMessageID != "post" {
			t.Errorf("%+v", p)
		}
		b.settle()
		b.quiet()
	})
	t.Run("each capability stands for itself", func(t *testing.T) {
		b.grants(wire.Grants{me: {"dm"}})
		a.mustSend(sendFrame("dm", bob.PublicKey(), "x"))
		if p := b.message(); p.ClientMessageID != "dm" {
			t.Errorf("%+v", p)
		}
		b.grants(wire.Grants{me: {"broadcast"}})
		if got := a.send(sendFrame("dm2", bob.PublicKey(), "x")); got.Code != wire.AckBlocked {
			t.Errorf("%+v", got)
		}
		a.mustSend(sendFrame("all2", "@all", "x"))
		if p := b.message(); p.ClientMessageID != "all2" {
			t.Errorf("%+v", p)
		}
	})
	t.Run("others are not concerned, nor is the member itself", func(t *testing.T) {
		b.grants(wire.Grants{bob.PublicKey(): {}})
		c.mustSend(sendFrame("c", bob.PublicKey(), "x"))
		s.mustSend(sendFrame("own", bob.PublicKey(), "x"))
	})
	t.Run("outlive the broker, and null ends them", func(t *testing.T) {
		r.restart()
		a, b := r.member(r.owner), r.member(bob)
		if got := a.send(sendFrame("dm3", bob.PublicKey(), "x")); got.Code != wire.AckBlocked {
			t.Errorf("%+v", got)
		}
		if got := b.grants(wire.Grants{me: nil, bob.PublicKey(): nil}); len(got) != 0 {
			t.Errorf("%+v", got)
		}
		a.mustSend(sendFrame("dm4", bob.PublicKey(), "x"))
	})
	t.Run("a session's key stands for its member", func(t *testing.T) {
		a := r.member(r.owner)
		r.session(bob, key)
		got := a.grants(wire.Grants{key.PublicKey(): {"read"}})
		if !slices.Equal(slices.Collect(maps.Keys(got)), []string{bob.PublicKey()}) {
			t.Errorf("%+v", got)
		}
	})
	t.Run("over HTTP as the reference has it", func(t *testing.T) {
		path := "/cli/mesh/" + r.mesh.Slug + "/grants"
		status, got := r.do(bob, http.MethodPost, path, map[string]any{"grants": map[string]any{me: []string{"dm", "read"}}})
		if status != 200 || got["ok"] != true || len(got["grants"].(map[string]any)) != 1 {
			t.Errorf("%d %v", status, got)
		}
		got2 := into[wire.GrantsResult](a, r.member(bob).call(wire.TypeGrantsGet, nil))
		if !slices.Equal(got2.Grants[me], []string{"dm", "read"}) || len(got2.Default) != 4 {
			t.Errorf("%+v", got2)
		}
		for _, tc := range []struct {
			name, path string
			body       any
			want       int
		}{
			{"another mesh", "/cli/mesh/other/grants", map[string]any{"grants": map[string]any{}}, http.StatusNotFound},
			{"nothing", path, map[string]any{}, http.StatusBadRequest},
			{"an unknown capability", path, map[string]any{"grants": map[string]any{me: []string{"fly"}}}, http.StatusBadRequest},
			{"what is no key", path, map[string]any{"grants": map[string]any{"me": []string{"dm"}}}, http.StatusBadRequest},
		} {
			if status, got := r.do(bob, http.MethodPost, tc.path, tc.body); status != tc.want || got["error"] == nil {
				t.Errorf("%s: %d %v", tc.name, status, got)
			}
		}
	})
	t.Run("no more than a member may keep", func(t *testing.T) {
		many := wire.Grants{}
		for range wire.MaxGrants {
			many[newIdentity(t).PublicKey()] = []string{}
		}
		b := r.member(bob)
		if e := into[wire.Error](b, b.call(wire.TypeGrantsSet, map[string]any{"grants": many})); e.Code != wire.CodeLimit {
			t.Errorf("%+v", e)
		}
	})
}

func TestGrantsHoldForWhatTheBrokerSendsForAMember(t *testing.T) {
	clock, useClock := fakeClock(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))
	r := newRig(t, useClock)
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	b.grants(wire.Grants{r.owner.PublicKey(): {}})
	for _, to := range []string{bob.PublicKey(), "*"} {
		if got := into[wire.Head](a, a.call(wire.TypeSchedule, map[string]any{"to": to, "message": "x", "deliverAt": clock.Now().Add(time.Minute).UnixMilli()})); got.Type == wire.TypeError {
			t.Fatalf("%+v", got)
		}
	}
	clock.Advance(2 * time.Minute)
	p := a.event(wire.EventScheduleFailed)
	if !strings.Contains(string(p.EventData), "blocked by recipient grants") {
		t.Errorf("%s", p.EventData)
	}
	b.settle()
	b.quiet()
}
