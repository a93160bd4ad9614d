package broker

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"claudemesh/wire"
)

func (c *client) remember(text string, tags ...string) string {
	c.t.Helper()
	return into[wire.MemoryStored](c, c.call(wire.TypeRemember, map[string]any{"content": text, "tags": tags})).ID
}

// recalled are the contents found.
func (c *client) recalled(query string) (texts []string) {
	c.t.Helper()
	for _, m := range into[wire.MemoryResults](c, c.call(wire.TypeRecall, map[string]any{"query": query})).Memories {
		texts = append(texts, m.Content)
	}
	return texts
}

func TestMemory(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Limits.MemoriesPerMesh = 30 })
	bob, carol := r.addMember("bob"), r.addMember("carol")
	a, b, c := r.member(r.owner), r.member(bob), r.member(carol)
	id := b.remember("The staging database lives in Frankfurt", "infra", "db")

	t.Run("what one remembers, all recall, at once", func(t *testing.T) {
		got := into[wire.MemoryResults](c, c.call(wire.TypeRecall, map[string]any{"query": "where are the databases of staging?"}))
		if len(got.Memories) != 1 || got.Memories[0].ID != id || got.Memories[0].RememberedBy != "bob" || fmt.Sprint(got.Memories[0].Tags) != "[infra db]" {
			t.Errorf("%+v", got)
		}
		for _, query := range []string{"", "zebra", "staging zebra", `"`, "infra"} {
			if got := c.recalled(query); got != nil {
				t.Errorf("%q finds %q", query, got)
			}
		}
	})
	t.Run("at most 20 are recalled, the best first", func(t *testing.T) {
		for i := range 24 {
			a.remember(fmt.Sprintf("apple number %d%s", i, strings.Repeat(" filler", i)))
		}
		got := c.recalled("apples")
		if len(got) != 20 || got[0] != "apple number 0" {
			t.Errorf("%d: %q", len(got), got)
		}
	})
	t.Run("forget is for the author and for admins, and is answered when there is nothing", func(t *testing.T) {
		forget := func(c *client, id string) wire.Ack {
			return into[wire.Ack](c, c.call(wire.TypeForget, map[string]any{"memoryId": id}))
		}
		if e := into[wire.Error](c, c.call(wire.TypeForget, map[string]any{"memoryId": id})); e.Code != wire.CodeForbidden {
			t.Errorf("%+v", e)
		}
		if len(c.recalled("frankfurt")) != 1 {
			t.Error("forgotten all the same")
		}
		if got := forget(b, id); got.Type != wire.TypeAck || got.ID != id || got.MessageID != id || got.Queued || got.Code != "" {
			t.Errorf("%+v", got)
		}
		if got := c.recalled("frankfurt"); got != nil {
			t.Errorf("%q", got)
		}
		for _, none := range []string{id, "nothing", "*", "a.b"} {
			if got := forget(c, none); got.Type != wire.TypeAck || got.ID != none || got.Code != wire.CodeNotFound {
				t.Errorf("%+v", got)
			}
		}
		if got := forget(a, b.remember("of bob")); got.Code != "" {
			t.Errorf("the owner: %+v", got)
		}
	})
	t.Run("sizes are bounded, and so is the number", func(t *testing.T) {
		for _, f := range []map[string]any{
			{"content": ""},
			{"content": strings.Repeat("x", wire.MaxMemory+1)},
			{"content": "x", "tags": make([]string, wire.MaxTags+1)},
			{"content": "x", "tags": []string{strings.Repeat("t", wire.MaxTag+1)}},
		} {
			if e := into[wire.Error](a, a.call(wire.TypeRemember, f)); e.Code != wire.CodeInvalid {
				t.Errorf("%+v", e)
			}
		}
		for range 6 {
			a.remember("more")
		}
		if e := into[wire.Error](a, a.call(wire.TypeRemember, map[string]any{"content": "one more"})); e.Code != wire.CodeLimit {
			t.Errorf("%+v", e)
		}
	})
	t.Run("large memories fill an answer, which says that there are more", func(t *testing.T) {
		r := newRig(t)
		a := r.member(r.owner)
		for range 12 {
			a.remember("pears " + strings.Repeat("x", 60_000))
		}
		got := into[wire.MemoryResults](a, a.call(wire.TypeRecall, map[string]any{"query": "pears"}))
		if len(got.Memories) != 8 || !got.More {
			t.Errorf("%d, more %v", len(got.Memories), got.More)
		}
	})
}

func TestTheSearchViewMayBeLost(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, searchFile)
	r := newRig(t, func(c *Config) { c.Dir = dir })
	a := r.member(r.owner)
	for i := range 300 { // more than one batch
		a.remember(fmt.Sprintf("apple %d", i))
	}
	gone := a.remember("an apple that is forgotten soon")
	check := func(t *testing.T, more ...string) {
		t.Helper()
		a := r.member(r.owner)
		for _, n := range append([]string{"0", "150", "299"}, more...) {
			if got := a.recalled("apples " + n); len(got) != 1 {
				t.Errorf("apple %s: %q", n, got)
			}
		}
		if got := a.recalled("forgotten apple"); got != nil {
			t.Errorf("%q", got)
		}
	}
	position := func() uint64 {
		t.Helper()
		pos, err := r.broker.view.Position(t.Context(), r.broker.memories.name)
		if err != nil {
			t.Fatal(err)
		}
		return pos
	}
	if got := a.recalled("forgotten"); len(got) != 1 {
		t.Fatalf("%q", got)
	}
	a.call(wire.TypeForget, map[string]any{"memoryId": gone})
	check(t)

	t.Run("it does not keep what was forgotten", func(t *testing.T) {
		if hits, err := r.broker.view.Search(t.Context(), r.mesh.ID, memoryKind, "forgotten", 5); err != nil || len(hits) != 0 {
			t.Error(hits, err)
		}
	})
	t.Run("it is filled again when another index has made it anew, and made anew once only", func(t *testing.T) {
		for range 2 {
			if err := r.broker.view.renew(0); err != nil {
				t.Fatal(err)
			}
		}
		check(t)
		if r.broker.view.age != 1 {
			t.Errorf("age %d", r.broker.view.age)
		}
	})

	t.Run("a restart goes on where it was", func(t *testing.T) {
		before := position()
		r.restart()
		if got := position(); got != before || before == 0 {
			t.Errorf("position %d, was %d", got, before)
		}
		a := r.member(r.owner)
		a.remember("apple 300")
		check(t, "300")
		if got := position(); got != before+1 {
			t.Errorf("position %d after one more, was %d", got, before)
		}
	})
	for _, tc := range []struct {
		name   string
		damage func() error
	}{
		{"a file that is gone", func() error { return os.Remove(file) }},
		{"a file that is no database", func() error { return os.WriteFile(file, []byte(strings.Repeat("rubbish ", 10_000)), 0o600) }},
		{"a file whose pages are overwritten", func() error {
			data, err := os.ReadFile(file)
			for i := 4096; i < len(data); i++ {
				data[i] = 0xA5
			}
			if err != nil {
				return err
			}
			return os.WriteFile(file, data, 0o600)
		}},
		{"a position beyond the end of the stream", func() error {
			v, err := openSearch(dir, nil)
			if err != nil {
				return err
			}
			if err := v.SetPosition(t.Context(), r.broker.memories.name, 1<<40); err != nil {
				return err
			}
			return v.Close()
		}},
	} {
		t.Run(tc.name+" is made again", func(t *testing.T) {
			name := r.broker.memories.name
			r.stop()
			r.broker = &Broker{memories: &index{name: name}}
			if err := tc.damage(); err != nil {
				t.Fatal(err)
			}
			r.start()
			check(t, "300")
		})
	}
	t.Run("a file that is damaged while it is in use is made again", func(t *testing.T) {
		a := r.member(r.owner)
		if err := os.Truncate(file, 4096); err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(file + "-wal")
		for i := range 300 { // until SQLite has to look at the file
			a.remember(fmt.Sprintf("pear %d", i))
		}
		if got := a.recalled("pear 299"); len(got) != 1 {
			t.Errorf("%q", got)
		}
		check(t, "300")
	})
}
