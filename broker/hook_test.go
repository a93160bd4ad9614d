package broker

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// hook posts a status report, signed by who unless that is nil.
func (r *rig) hook(who *mesh.Identity, body map[string]any, header ...string) (int, hookReply) {
	r.t.Helper()
	data := mustJSON(r.t, body)
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.http.URL+"/hook/set-status", bytes.NewReader(data))
	if err != nil {
		r.t.Fatal(err)
	}
	if who != nil {
		sum := sha256.Sum256(data)
		req.Header.Set("Authorization", mesh.SignHTTP(*who, http.MethodPost, "/hook/set-status", r.mesh.ID, hex.EncodeToString(sum[:]), r.now()))
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	var out hookReply
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, out
}

func (c *client) statusOf(key string) string {
	c.t.Helper()
	for _, p := range into[wire.PeersList](c, c.call(wire.TypeListPeers, nil)).Peers {
		if p.Pubkey == key {
			return p.Status
		}
	}
	c.t.Fatal("not listed")
	return ""
}

func TestTheStatusHook(t *testing.T) {
	clock, withClock := fakeClock(time.Now())
	r := newRig(t, withClock)
	bob := r.addMember("bob")
	a := r.member(r.owner)
	key := newIdentity(t)
	s := r.session(bob, key, func(h *wire.SessionHello) { h.Cwd, h.PID, h.SessionID = "/src", 7, "s7"; h.Capabilities = nil })
	report := func(who *mesh.Identity, body map[string]any) (int, hookReply) {
		t.Helper()
		clock.Advance(10 * time.Second) // a new signature, and a token for it
		return r.hook(who, body)
	}
	t.Run("is refused unsigned", func(t *testing.T) {
		if code, got := report(nil, map[string]any{"cwd": "/src", "pid": 7, "status": "working"}); code != http.StatusUnauthorized || got.OK || got.Error != "missing_authorization" || got.Message == "" {
			t.Errorf("%d %+v", code, got)
		}
	})
	t.Run("finds the member's session by process and directory, and by its id", func(t *testing.T) {
		if code, got := report(&bob, map[string]any{"cwd": "/src", "pid": 7, "status": "working"}); code != 200 || !got.OK || got.PresenceID == "" {
			t.Errorf("%d %+v", code, got)
		}
		a.mustSend(sendFrame("m1", key.PublicKey(), "held"))
		if got := a.statusOf(key.PublicKey()); got != wire.StatusWorking {
			t.Error(got)
		}
		if code, got := report(&bob, map[string]any{"cwd": "/elsewhere", "session_id": "s7", "status": "idle"}); code != 200 || !got.OK || got.PresenceID == "" {
			t.Errorf("%d %+v", code, got)
		}
		s.expect("held")
	})
	t.Run("of another member changes nothing", func(t *testing.T) {
		if _, got := report(&r.owner, map[string]any{"cwd": "/src", "pid": 7, "session_id": "s7", "status": "working"}); !got.Pending {
			t.Errorf("%+v", got)
		}
		if got := a.statusOf(key.PublicKey()); got != wire.StatusIdle {
			t.Error(got)
		}
	})
	t.Run("leaves dnd alone", func(t *testing.T) {
		s.setStatus(wire.StatusDND)
		report(&bob, map[string]any{"cwd": "/src", "pid": 7, "status": "idle"})
		if got := a.statusOf(key.PublicKey()); got != wire.StatusDND {
			t.Error(got)
		}
	})
	t.Run("waits ten seconds for the session it means", func(t *testing.T) {
		early := func(pid int64, wait time.Duration) string {
			if _, got := report(&bob, map[string]any{"cwd": "/new", "pid": pid, "status": "working"}); !got.Pending {
				t.Errorf("%+v", got)
			}
			clock.Advance(wait)
			key := newIdentity(t)
			c := r.session(bob, key, func(h *wire.SessionHello) { h.Cwd, h.PID = "/new", pid })
			defer c.close()
			return a.statusOf(key.PublicKey())
		}
		if got := early(8, hookPending); got != wire.StatusWorking {
			t.Error(got)
		}
		a.event(wire.EventPeerLeft)
		if got := early(9, hookPending+time.Millisecond); got != wire.StatusIdle {
			t.Error(got)
		}
	})
	t.Run("answers what is no report", func(t *testing.T) {
		if code, got := report(&bob, map[string]any{"cwd": "/src"}); code != 200 || got.OK || got.Error != "cwd and status required" {
			t.Errorf("%d %+v", code, got)
		}
		if code, got := report(&bob, map[string]any{"cwd": "/src", "status": "asleep"}); code != http.StatusBadRequest || got.OK {
			t.Errorf("%d %+v", code, got)
		}
	})
	t.Run("is limited per member", func(t *testing.T) {
		for i := range hookRate {
			r.hook(&bob, map[string]any{"cwd": fmt.Sprint("/", i), "status": "idle"})
		}
		if code, got := r.hook(&bob, map[string]any{"cwd": "/one-more", "status": "idle"}); code != http.StatusTooManyRequests || got.Error != "rate limited" {
			t.Errorf("%d %+v", code, got)
		}
		if code, _ := r.hook(&r.owner, map[string]any{"cwd": "/src", "status": "idle"}); code != 200 {
			t.Error(code)
		}
	})
	t.Run("keeps a bounded number of those that wait", func(t *testing.T) {
		r.broker.mu.RLock()
		defer r.broker.mu.RUnlock()
		if n := len(r.broker.meshes[r.mesh.ID].hooks); n > hooksPerMesh {
			t.Error(n)
		}
	})
}

func TestTheUnsignedHookIsForThisMachineOnly(t *testing.T) {
	r := newRig(t, func(c *Config) { c.AllowHook = true })
	bob := r.addMember("bob")
	r.member(bob)
	body := map[string]any{"cwd": "/", "pid": 1, "status": "working"}
	if code, got := r.hook(nil, body); code != 200 || got.PresenceID == "" {
		t.Errorf("%d %+v", code, got)
	}
	if code, _ := r.hook(nil, body, "X-Forwarded-For", "192.0.2.1"); code != http.StatusUnauthorized {
		t.Error(code)
	}
}
