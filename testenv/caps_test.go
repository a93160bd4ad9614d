package testenv_test

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/testenv"
	"claudemesh/wire"
)

// A change that a limited session makes goes to the broker by another link than the user's: each is told once all the same, whoever makes it.
func TestAChangeByALimitedSessionIsToldOnce(t *testing.T) {
	m := testenv.NewMachine(t)
	slug := m.Create("team")
	m.WaitLink(slug)
	s := m.SessionWith(bus.SessionStart{Mesh: slug, Name: "writer", PID: os.Getpid(), Caps: []string{mesh.CapStateWrite}})
	told := make(chan bus.StateChange, 16)
	_, err := m.User().Subscribe(bus.EventSubject(slug, wire.TypeStateChange), func(msg *nats.Msg) {
		var c bus.StateChange
		if json.Unmarshal(msg.Data, &c) == nil {
			told <- c
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, by := range []struct {
		c     *bus.Client
		actor string
		key   string
	}{{s.Client, s.Info.ID, "one"}, {m.User(), bus.User, "two"}, {s.Client, s.Info.ID, "three"}, {m.User(), bus.User, "four"}} {
		if err := testenv.Try(by.c, bus.CallSubject(slug, by.actor, wire.TypeSetState), map[string]any{"key": by.key, "value": 1}, nil); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]int{}
	for len(seen) < 4 {
		select {
		case c := <-told:
			if seen[c.Key]++; seen[c.Key] > 1 {
				t.Errorf("%s is told twice", c.Key)
			}
		case <-time.After(testenv.Patience):
			t.Fatalf("told were %v", seen)
		}
	}
}
