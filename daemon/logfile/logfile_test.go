package logfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
)

func openLog(t *testing.T, path string, opened func(*os.File) error) *Writer {
	t.Helper()
	w, err := Open(path, 100, 2, opened)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func say(t *testing.T, w *Writer, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if _, err := fmt.Fprintf(w, "line %04d\n", i); err != nil {
			t.Fatal(err)
		}
	}
}

func numbered(from, to int) []string {
	var out []string
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprintf("line %04d", i))
	}
	return out
}

func TestALogStaysWithinItsBounds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemon.log")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	begun := 0
	w := openLog(t, path, func(*os.File) error { begun++; return errors.New("no matter") })
	say(t, w, 0, 1000)
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 3 {
		t.Errorf("%d files, want 3", len(files))
	}
	for _, f := range files {
		st, err := f.Info()
		if err != nil || st.Mode().Perm() != 0o600 || st.Size() > 100 {
			t.Errorf("%s: %v, %d bytes, %v", f.Name(), st.Mode(), st.Size(), err)
		}
	}
	if begun != 99 {
		t.Errorf("%d new files were told, want 99", begun)
	}
	got, err := Last(path, 1000, 2)
	if err != nil || !slices.Equal(got, numbered(970, 1000)) {
		t.Errorf("%v %q", err, got)
	}
}

func TestALogThatIsFullIsTurnedWhenItIsOpened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemon.log")
	if err := os.WriteFile(path, []byte(strings.Repeat("x", 100)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	say(t, openLog(t, path, nil), 0, 1)
	if b, err := os.ReadFile(path); err != nil || string(b) != "line 0000\n" {
		t.Errorf("%v %q", err, b)
	}
}

func TestALogThatCannotBeTurnedGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemon.log")
	w := openLog(t, path, nil)
	// A directory that is not empty cannot be replaced by a file.
	if err := os.MkdirAll(filepath.Join(path+".2", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	say(t, w, 0, 30)
	if b, err := os.ReadFile(path); err != nil || len(b) != 200 { // the first page could be turned, no other
		t.Errorf("%v, %d bytes", err, len(b))
	}
}

func TestTheLastLines(t *testing.T) {
	for _, c := range []struct {
		name, content string
		n             int
		want          []string
	}{
		{"of an empty log", "", 3, nil},
		{"fewer than asked for", "a\nb\n", 3, []string{"a", "b"}},
		{"more than asked for", "a\nb\nc\nd\n", 2, []string{"c", "d"}},
		{"none", "a\n", 0, nil},
		{"an empty line counts", "a\n\nb\n", 2, []string{"", "b"}},
		{"a line without its end is not there yet", "a\nb", 3, []string{"a"}},
		{"long lines", strings.Repeat("x", 3*block) + "\n" + strings.Repeat("y", 2*block) + "\n", 1, []string{strings.Repeat("y", 2*block)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := Last(path, c.n, 2); err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%v %.60q, want %.60q", err, got, c.want)
			}
		})
	}
	if got, err := Last(filepath.Join(t.TempDir(), "none"), 3, 2); err != nil || len(got) > 0 {
		t.Errorf("a log that is not there: %v %q", err, got)
	}
}

func TestWhoFollowsMissesNothingOverTurnedPages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemon.log")
	w := openLog(t, path, nil)
	say(t, w, 0, 5)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	clock := clockwork.NewFakeClock()
	var got []string
	done := make(chan error, 1)
	go func() {
		done <- Follow(ctx, path, 2, 2, clock, time.Second, func(line string) error {
			if got = append(got, line); line == "line 0099" {
				cancel()
			}
			return nil
		})
	}()
	// Each look finds at most two pages turned, which is what is kept.
	for at := 5; at < 100; at += 5 {
		if clock.BlockUntilContext(ctx, 1) != nil {
			break
		}
		say(t, w, at, min(at+5, 100))
		if at%20 == 0 {
			if _, err := w.Write([]byte("half ")); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write([]byte("a line\n")); err != nil {
				t.Fatal(err)
			}
		}
		clock.Advance(time.Second)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got = slices.DeleteFunc(got, func(l string) bool { return strings.HasSuffix(l, "a line") || l == "half " })
	if !slices.Equal(got, numbered(3, 100)) {
		t.Errorf("%q", got)
	}
}

func TestWhoFollowsALogThatIsNotThereSeesItBegin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemon.log")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	clock := clockwork.NewFakeClock()
	seen := make(chan string, 10)
	done := make(chan error, 1)
	go func() {
		done <- Follow(ctx, path, 10, 2, clock, time.Second, func(line string) error { seen <- line; return nil })
	}()
	if err := clock.BlockUntilContext(ctx, 1); err != nil {
		t.Fatal(err)
	}
	say(t, openLog(t, path, nil), 0, 1)
	clock.Advance(time.Second)
	select {
	case line := <-seen:
		if line != "line 0000" {
			t.Errorf("%q", line)
		}
	case <-ctx.Done():
		t.Error("nothing was shown")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
