package fts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, path string) *View {
	t.Helper()
	v, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

func put(t testing.TB, v *View, docs ...Doc) {
	t.Helper()
	if err := v.Put(t.Context(), docs...); err != nil {
		t.Fatal(err)
	}
}

func find(t testing.TB, v *View, mesh, kind, query string) []string {
	t.Helper()
	hits, err := v.Search(t.Context(), mesh, kind, query, 20)
	if err != nil {
		t.Fatalf("search %q: %v", query, err)
	}
	ids := []string{}
	for _, h := range hits {
		ids = append(ids, h.ID)
	}
	return ids
}

func TestSearch(t *testing.T) {
	v := open(t, "")
	put(t, v,
		Doc{"m1", "memory", "staging", "The staging database lives in Frankfurt"},
		Doc{"m1", "memory", "prod", "The production database lives in Dublin, behind the staging proxy; nobody may touch it without asking first"},
		Doc{"m1", "memory", "cafe", "Café Müller, Köln, order 4711"},
		Doc{"m1", "memory", "flags", `deploy with --dry-run "twice" AND never on Friday`},
		Doc{"m1", "topic:a", "t1", "staging is red"},
		Doc{"m2", "memory", "other", "staging of another mesh"},
	)
	tests := []struct {
		name, query string
		want        []string
	}{
		{"a word by its stem", "databases lived", []string{"staging", "prod"}},
		{"all words must be there", "database dublin", []string{"prod"}},
		{"the shorter text about it ranks first", "staging", []string{"staging", "prod"}},
		{"words that every text is full of are passed over", "where does the staging database live?", []string{"staging", "prod"}},
		{"a query of only such words looks for them", "the in", []string{"staging", "prod"}},
		{"accents and case do not matter", "CAFE muller koln", []string{"cafe"}},
		{"a mark that stands for itself is part of the word", "Cafe\u0301", []string{"cafe"}},
		{"digits are words", "4711", []string{"cafe"}},
		{"operators are words", `"dry" AND friday`, []string{"flags"}},
		{"punctuation splits", "--dry-run", []string{"flags"}},
		{"a word that is nowhere finds nothing", "zebra", []string{}},
		{"one word that is nowhere spoils the others", "staging zebra", []string{}},
		{"no words find nothing", `  "" ( * ^ : ) -- `, []string{}},
		{"nothing finds nothing", "", []string{}},
		{"the name of a column is a word", "text:staging", []string{}},
		{"the scope is not found as a word", scope("m1", "memory"), []string{}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if got := find(t, v, "m1", "memory", tc.query); !slices.Equal(got, tc.want) {
				t.Errorf("%q finds %v, want %v", tc.query, got, tc.want)
			}
		})
	}
	t.Run("a search stays in its kind and mesh", func(t *testing.T) {
		if got := find(t, v, "m1", "topic:a", "staging"); !slices.Equal(got, []string{"t1"}) {
			t.Error(got)
		}
		if got := find(t, v, "m2", "memory", "staging"); !slices.Equal(got, []string{"other"}) {
			t.Error(got)
		}
		if got := find(t, v, "m2", "topic:a", "staging"); len(got) != 0 {
			t.Error(got)
		}
	})
	t.Run("a limit is kept, and 0 is none at all", func(t *testing.T) {
		for limit, want := range map[int]int{0: 0, 1: 1, 2: 2, 5: 2} {
			if hits, err := v.Search(t.Context(), "m1", "memory", "staging", limit); err != nil || len(hits) != want {
				t.Error(limit, hits, err)
			}
		}
	})
}

func TestChanges(t *testing.T) {
	v := open(t, filepath.Join(t.TempDir(), "view ?#%.db"))
	put(t, v, Doc{"m", "memory", "1", "apples"}, Doc{"m", "memory", "2", "apples and pears"}, Doc{"m", "topic:x", "1", "apples"}, Doc{"n", "memory", "1", "apples"})
	t.Run("put replaces", func(t *testing.T) {
		for range 3 {
			put(t, v, Doc{"m", "memory", "1", "oranges"})
		}
		if got := find(t, v, "m", "memory", "apples"); !slices.Equal(got, []string{"2"}) {
			t.Error(got)
		}
		if got := find(t, v, "m", "memory", "orange"); !slices.Equal(got, []string{"1"}) {
			t.Error(got)
		}
	})
	t.Run("delete removes that document only, and may be repeated", func(t *testing.T) {
		for range 2 {
			if err := v.Delete(t.Context(), "m", "memory", "2", "nowhere"); err != nil {
				t.Fatal(err)
			}
		}
		if got := find(t, v, "m", "memory", "pears"); len(got) != 0 {
			t.Error(got)
		}
		if got := find(t, v, "m", "topic:x", "apples"); len(got) != 1 {
			t.Error(got)
		}
	})
	t.Run("a kind, then a mesh, is removed whole", func(t *testing.T) {
		if err := v.DeleteKind(t.Context(), "m", "memory"); err != nil {
			t.Fatal(err)
		}
		if got := find(t, v, "m", "memory", "oranges"); len(got) != 0 {
			t.Error(got)
		}
		if got := find(t, v, "m", "topic:x", "apples"); len(got) != 1 {
			t.Error(got)
		}
		if err := v.DeleteMesh(t.Context(), "m"); err != nil {
			t.Fatal(err)
		}
		if got := find(t, v, "m", "topic:x", "apples"); len(got) != 0 {
			t.Error(got)
		}
		if got := find(t, v, "n", "memory", "apples"); len(got) != 1 {
			t.Error(got)
		}
	})
	t.Run("the index of the words is sound", func(t *testing.T) {
		if _, err := v.db.Exec(`INSERT INTO words(words) VALUES('integrity-check')`); err != nil {
			t.Error(err)
		}
	})
	t.Run("nothing works after close", func(t *testing.T) {
		if err := errors.Join(v.Close(), v.Close()); err != nil {
			t.Fatal(err)
		}
		_, searched := v.Search(t.Context(), "m", "memory", "x", 1)
		_, position := v.Position(t.Context(), "s")
		for _, err := range []error{v.Put(t.Context(), Doc{}), searched, position, v.Reset()} {
			if !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		}
	})
}

func TestTheFile(t *testing.T) {
	newView := func(t *testing.T) string {
		path := filepath.Join(t.TempDir(), "search.db")
		v := open(t, path)
		for i := range 300 {
			put(t, v, Doc{"m", "memory", fmt.Sprint(i), fmt.Sprintf("apples number%d %s", i, strings.Repeat("filler", i))})
		}
		if err := errors.Join(v.SetPosition(t.Context(), "memory", 41), v.SetPosition(t.Context(), "memory", 42), v.Close()); err != nil {
			t.Fatal(err)
		}
		return path
	}
	state := func(t *testing.T, v *View) (found int, pos uint64) {
		t.Helper()
		pos, err := v.Position(t.Context(), "memory")
		if err != nil {
			t.Fatal(err)
		}
		return len(find(t, v, "m", "memory", "apples")), pos
	}
	t.Run("keeps documents and positions, and is private", func(t *testing.T) {
		path := newView(t)
		if n, pos := state(t, open(t, path)); n != 20 || pos != 42 {
			t.Error(n, pos)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Error(info.Mode(), err)
		}
	})
	t.Run("that is not a database is replaced by an empty view", func(t *testing.T) {
		path := newView(t)
		if err := os.WriteFile(path, []byte(strings.Repeat("this is not a database\n", 1000)), 0o600); err != nil {
			t.Fatal(err)
		}
		if n, pos := state(t, open(t, path)); n != 0 || pos != 0 {
			t.Error(n, pos)
		}
	})
	t.Run("of another version is replaced by an empty view", func(t *testing.T) {
		path := newView(t)
		v := open(t, path)
		if _, err := v.db.Exec(`PRAGMA user_version = 99`); err != nil {
			t.Fatal(err)
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		if n, pos := state(t, open(t, path)); n != 0 || pos != 0 {
			t.Error(n, pos)
		}
	})
	t.Run("whose inside is damaged says so at its use, and is whole again after a reset", func(t *testing.T) {
		path := newView(t)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := 4096; i < len(data); i++ { // all but the first page
			data[i] = 0xA5
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := Open(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		if err = v.Put(t.Context(), Doc{"m", "memory", "new", "apples"}); err == nil {
			_, err = v.Search(t.Context(), "m", "memory", "apples", 20)
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
		if err := v.Reset(); err != nil {
			t.Fatal(err)
		}
		put(t, v, Doc{"m", "memory", "new", "apples"})
		if n, pos := state(t, v); n != 1 || pos != 0 {
			t.Error(n, pos)
		}
	})
	t.Run("in memory can be reset too", func(t *testing.T) {
		v := open(t, "")
		put(t, v, Doc{"m", "memory", "new", "apples"})
		if err := v.Reset(); err != nil {
			t.Fatal(err)
		}
		if n, pos := state(t, v); n != 0 || pos != 0 {
			t.Error(n, pos)
		}
	})
	t.Run("that cannot be made anew is damaged until it can", func(t *testing.T) {
		path := newView(t)
		v := open(t, path)
		dir := filepath.Dir(path)
		if err := os.Rename(dir, dir+".away"); err != nil {
			t.Fatal(err)
		}
		if err := v.Reset(); err == nil {
			t.Fatal("reset without a directory")
		}
		if err := v.Put(t.Context(), Doc{"m", "memory", "new", "apples"}); !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
		if err := os.Rename(dir+".away", dir); err != nil {
			t.Fatal(err)
		}
		if err := v.Reset(); err != nil {
			t.Fatal(err)
		}
		if n, pos := state(t, v); n != 0 || pos != 0 {
			t.Error(n, pos)
		}
	})
	t.Run("in a directory that is not there is an error", func(t *testing.T) {
		if _, err := Open(filepath.Join(t.TempDir(), "no", "search.db"), nil); !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
}

func TestEveryLetterIsAWordOrNothing(t *testing.T) {
	v := open(t, "")
	put(t, v, Doc{"m", "memory", "1", "apples"})
	var letters []rune                              // Go's tables of letters are newer than the tokenizer's: what one takes for a word may be nothing to the other
	for r := rune(0); r < unicode.MaxRune; r += 7 { // a few of every script
		if partOfWord(r) && !(r >= 0x4E00 && r < 0xD800 || r >= 0x20000) {
			letters = append(letters, r)
		}
	}
	for chunk := range slices.Chunk(letters, maxWords-1) {
		query := "apples"
		for _, r := range chunk {
			query += " " + string(r)
		}
		if _, err := v.Search(t.Context(), "m", "memory", query, 1); err != nil {
			t.Fatalf("%q: %v", query, err)
		}
	}
}

func FuzzSearch(f *testing.F) {
	v := open(f, "")
	put(f, v, Doc{"m", "memory", "1", "the quick brown fox"}, Doc{"m", "memory", "2", "jumps over the lazy dog"})
	for _, s := range []string{"fox", `"`, `a" OR "b`, "NEAR(a b, 2)", "text : fox", "^fox*", "-fox", "\x00", "\xff\xfe", "a\x00b", "e\u0301", strings.Repeat("a b ", 100), "{scope} : x", "fox AND NOT dog", "𝒻𝑜𝓍 ٣"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		hits, err := v.Search(t.Context(), "m", "memory", query, 5)
		if err != nil {
			t.Fatalf("%q: %v", query, err)
		}
		if len(hits) > 0 && len(terms(query)) == 0 {
			t.Errorf("%q without words finds %v", query, hits)
		}
	})
}
