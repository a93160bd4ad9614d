package broker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"claudemesh/mesh"
	"claudemesh/wire"
)

func TestSharedState(t *testing.T) {
	var logged syncBuffer
	r := newRig(t, func(c *Config) {
		c.Limits.StateKeys = 5
		c.Log = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	s := r.session(bob, newIdentity(t))
	set := func(c *client, key, value string) string {
		return string(c.call(wire.TypeSetState, map[string]any{"key": key, "value": json.RawMessage(value)}))
	}
	change := func(c *client) string { return string(c.wait(wire.TypeStateChange)) }

	t.Run("a value is stored, acknowledged and told to the others, sessions too", func(t *testing.T) {
		if got := set(a, "k", `{"a":[1,null]}`); !strings.Contains(got, `"type":"ack"`) {
			t.Fatal(got)
		}
		want := `{"type":"state_change","key":"k","value":{"a":[1,null]},"updatedBy":"alice"}`
		if got := change(b); got != want {
			t.Errorf("bob hears %s", got)
		}
		if got := change(s); got != want {
			t.Errorf("bob's session hears %s", got)
		}
		a.settle()
		if len(a.held) != 0 {
			for _, f := range a.held {
				if h, _ := wire.Peek(f); h.Type == wire.TypeStateChange {
					t.Errorf("the writer hears %s", f)
				}
			}
		}
		got := into[wire.StateResult](b, b.call(wire.TypeGetState, map[string]any{"key": "k"}))
		if string(got.Value) != `{"a":[1,null]}` || got.UpdatedBy != "alice" || got.UpdatedAt == "" {
			t.Errorf("%+v", got)
		}
	})
	t.Run("the last writer wins", func(t *testing.T) {
		set(b, "k", `"second"`)
		change(a)
		if got := into[wire.StateResult](a, a.call(wire.TypeGetState, map[string]any{"key": "k"})); string(got.Value) != `"second"` || got.UpdatedBy != "bob" {
			t.Errorf("%+v", got)
		}
	})
	for _, tc := range []struct{ name, key, value, code string }{
		{"null is refused, not passed over (defect 76)", "k", `null`, wire.CodeInvalid},
		{"a key that is missing is refused", "", `1`, wire.CodeInvalid},
		{"a long key is refused", strings.Repeat("k", wire.MaxStateKey+1), `1`, wire.CodeInvalid},
		{"a large value is refused", "k", `"` + strings.Repeat("v", wire.MaxStateValue) + `"`, wire.CodeInvalid},
		{"a value that grows on its way out is refused", "k", `"` + strings.Repeat("<", wire.MaxStateValue/3) + `"`, wire.CodeInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if e := into[wire.Error](a, []byte(set(a, tc.key, tc.value))); e.Type != wire.TypeError || e.Code != tc.code {
				t.Errorf("%+v", e)
			}
		})
	}
	t.Run("any key can be one, and lists are in their order", func(t *testing.T) {
		for _, key := range []string{"ä b", "*", "a.>", strings.Repeat("z", wire.MaxStateKey)} {
			if got := set(a, key, `1`); !strings.Contains(got, `"ack"`) {
				t.Fatal(got)
			}
		}
		list := into[wire.StateList](b, b.call(wire.TypeListState, nil))
		var keys []string
		for _, e := range list.Entries {
			keys = append(keys, e.Key)
		}
		if want := []string{"*", "a.>", "k", strings.Repeat("z", wire.MaxStateKey), "ä b"}; fmt.Sprint(keys) != fmt.Sprint(want) || list.More {
			t.Errorf("%q", keys)
		}
	})
	t.Run("a mesh holds so many keys and no more; those it has can be written", func(t *testing.T) {
		if e := into[wire.Error](a, []byte(set(a, "one more", `1`))); e.Code != wire.CodeLimit {
			t.Errorf("%+v", e)
		}
		if got := set(a, "*", `2`); !strings.Contains(got, `"ack"`) {
			t.Error(got)
		}
	})
	t.Run("a key is deleted, which the others hear, and counts no more", func(t *testing.T) {
		for _, want := range []string{wire.ActionDeleted, wire.ActionNotFound} {
			if got := into[wire.StateAck](b, b.call(wire.TypeDeleteState, map[string]any{"key": "*"})); got.Action != want || got.Key != "*" {
				t.Errorf("%+v, want %s", got, want)
			}
		}
		for {
			got := change(s)
			if strings.Contains(got, `"deleted":true`) {
				if got != `{"type":"state_change","key":"*","value":null,"updatedBy":"bob","deleted":true}` {
					t.Error(got)
				}
				break
			}
		}
		if got := set(a, "one more", `1`); !strings.Contains(got, `"ack"`) {
			t.Error(got)
		}
	})
	t.Run("it survives the broker, and the count with it", func(t *testing.T) {
		r.restart()
		a := r.member(r.owner)
		if got := into[wire.StateResult](a, a.call(wire.TypeGetState, map[string]any{"key": "k"})); string(got.Value) != `"second"` {
			t.Errorf("%+v", got)
		}
		if e := into[wire.Error](a, []byte(set(a, "yet one", `"topsecret"`))); e.Code != wire.CodeLimit {
			t.Errorf("%+v", e)
		}
	})
	t.Run("another mesh has none of it", func(t *testing.T) {
		owner := newIdentity(t)
		other, err := r.broker.CreateMesh(t.Context(), "Other", owner.PublicKey(), "eve")
		if err != nil {
			t.Fatal(err)
		}
		e := r.memberOf(other, owner)
		if got := into[wire.StateList](e, e.call(wire.TypeListState, nil)); len(got.Entries) != 0 {
			t.Errorf("%+v", got)
		}
	})
	if strings.Contains(logged.String(), "topsecret") || strings.Contains(logged.String(), "second") {
		t.Errorf("a value is in the log: %s", logged.String())
	}
}

// memberOf connects a member of another mesh than the rig's.
func (r *rig) memberOf(m Mesh, who mesh.Identity) *client {
	r.t.Helper()
	r.broker.mu.RLock()
	id := r.broker.meshes[m.ID].members[who.PublicKey()].ID
	r.broker.mu.RUnlock()
	c := r.dial()
	c.write(wire.SignHello(wire.Hello{MeshID: m.ID, MemberID: id, SessionID: "s", PID: 1, Cwd: "/"}, who, r.now()))
	c.wait(wire.TypeHelloAck)
	return c
}

// syncBuffer is a bytes.Buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestALongListOfStateComesInPages(t *testing.T) {
	r := newRig(t)
	a := r.member(r.owner)
	big := json.RawMessage(`"` + strings.Repeat("v", 200_000) + `"`)
	for i := range 5 {
		a.call(wire.TypeSetState, map[string]any{"key": fmt.Sprint("k", i), "value": big})
	}
	if e := into[wire.Error](a, a.call(wire.TypeListState, nil)); e.Code != wire.CodeLimit || !strings.Contains(e.Message, "paged:true") {
		t.Errorf("%+v", e)
	}
	var keys []string
	pages := 0
	for after, more := "", true; more; pages++ {
		list := into[wire.StateList](a, a.call(wire.TypeListState, map[string]any{"paged": true, "after": after}))
		for _, e := range list.Entries {
			keys = append(keys, e.Key)
			after = e.Key
		}
		more = list.More
	}
	if fmt.Sprint(keys) != "[k0 k1 k2 k3 k4]" || pages != 3 {
		t.Errorf("%q in %d pages", keys, pages)
	}
}

func TestConcurrentWritersLeaveTheCountRight(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Limits.StateKeys = 10 })
	var wg sync.WaitGroup
	var mu sync.Mutex
	acks := 0
	for i := range 4 {
		c := r.member(r.addMember(fmt.Sprint("m", i)))
		wg.Go(func() {
			for k := range 6 {
				answer := c.call(wire.TypeSetState, map[string]any{"key": fmt.Sprint(i, "-", k), "value": 1})
				mu.Lock()
				if bytes.Contains(answer, []byte(`"type":"ack"`)) {
					acks++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	keys, err := r.broker.store.recordKeys(t.Context(), familyState, r.mesh.ID)
	if err != nil || acks != 10 || len(keys) != 10 {
		t.Errorf("%d accepted, %d stored, %v", acks, len(keys), err)
	}
}
