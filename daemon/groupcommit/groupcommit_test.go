package groupcommit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var notes = []string{`CREATE TABLE note(id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)`}

func open(t testing.TB, path string, opts Options) *DB {
	t.Helper()
	db, err := Open(path, notes, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func add(text string) func(*Tx) error {
	return func(tx *Tx) error {
		_, err := tx.Exec(`INSERT INTO note(text) VALUES(?)`, text)
		return err
	}
}

func texts(t testing.TB, db *DB) string {
	t.Helper()
	rows, err := db.Query(t.Context(), `SELECT text FROM note ORDER BY text`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

// hold keeps the writer busy until the returned function is called, so that a test decides what shares a commit.
func hold(t testing.TB, db *DB, fn func(*Tx) error) (release func() error) {
	t.Helper()
	started, gate, result := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		result <- db.Write(context.Background(), func(tx *Tx) error {
			close(started)
			<-gate
			return fn(tx)
		})
	}()
	<-started
	return func() error { close(gate); return <-result }
}

// queue hands functions to the held writer and returns their results in order once it is released.
func queue(t testing.TB, db *DB, fns ...func(*Tx) error) func() []error {
	t.Helper()
	results := make([]chan error, len(fns))
	for i, fn := range fns {
		ch := make(chan error, 1)
		results[i] = ch
		go func() { ch <- db.Write(context.Background(), fn) }()
		for len(db.queue) < i+1 {
			runtime.Gosched()
		}
	}
	return func() []error {
		errs := make([]error, len(results))
		for i, ch := range results {
			errs[i] = <-ch
		}
		return errs
	}
}

func TestFunctionsQueuedTogetherShareOneCommitAndStandAlone(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "n.db"), Options{})
	before := db.Stats()
	release := hold(t, db, add("a"))
	own := errors.New("own error")
	results := queue(t, db,
		add("b"),
		func(tx *Tx) error { _ = add("never")(tx); return own },
		func(tx *Tx) error { _ = add("neither")(tx); panic("boom") },
		add("a"), // violates UNIQUE with an uncommitted row of the same commit
		add("c"),
	)
	if err := release(); err != nil {
		t.Fatal(err)
	}
	errs := results()
	if errs[0] != nil || errs[1] != own || !errors.Is(errs[2], ErrPanic) || !isUnique(errs[3]) || errs[4] != nil {
		t.Fatalf("results %v", errs)
	}
	if got := texts(t, db); got != "a b c" {
		t.Fatalf("stored %q", got)
	}
	if after := db.Stats(); after.Commits-before.Commits != 1 || after.Writes-before.Writes != 6 {
		t.Fatalf("stats %+v after %+v", after, before)
	}
}

func TestAFailingFirstFunctionLeavesNothingAndOthersGoOn(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "n.db"), Options{})
	own := errors.New("own error")
	release := hold(t, db, func(tx *Tx) error { _ = add("never")(tx); return own })
	results := queue(t, db, add("b"))
	if err := release(); err != own {
		t.Fatal(err)
	}
	if errs := results(); errs[0] != nil {
		t.Fatal(errs)
	}
	if got := texts(t, db); got != "b" {
		t.Fatalf("stored %q", got)
	}
}

func TestAFailedCommitFailsEveryFunctionOfIt(t *testing.T) {
	script := `CREATE TABLE parent(id INTEGER PRIMARY KEY);
CREATE TABLE child(id INTEGER PRIMARY KEY, p INTEGER REFERENCES parent(id) DEFERRABLE INITIALLY DEFERRED)`
	db, err := Open(filepath.Join(t.TempDir(), "n.db"), append(notes[:1:1], script), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	release := hold(t, db, add("a"))
	own := errors.New("own error")
	results := queue(t, db,
		func(tx *Tx) error { _, err := tx.Exec(`INSERT INTO child(p) VALUES(77)`); return err },
		func(*Tx) error { return own },
		add("b"),
	)
	if err := release(); err == nil {
		t.Fatal("the first function of a failed commit was told it succeeded")
	}
	for i, err := range results() {
		if err == nil || err == own {
			t.Fatalf("function %d was told %v although the commit failed", i, err)
		}
	}
	if got := texts(t, db); got != "" {
		t.Fatalf("stored %q", got)
	}
	if err := db.Write(t.Context(), add("later")); err != nil {
		t.Fatalf("the writer did not recover: %v", err)
	}
}

func TestAFullDiskRefusesAndLeavesNothingHalfWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n.db")
	db := open(t, path, Options{MaxPages: 16})
	if err := db.Write(t.Context(), add("small")); err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("x", 4000)
	for _, swallowed := range []bool{false, true} {
		release := hold(t, db, add(fmt.Sprint("first", swallowed)))
		results := queue(t, db, func(tx *Tx) error {
			for i := range 100 {
				if _, err := tx.Exec(`INSERT INTO note(text) VALUES(?)`, fmt.Sprint(i, big)); err != nil && !swallowed {
					return err
				}
			}
			return nil
		}, add(fmt.Sprint("after", swallowed)))
		first, errs := release(), results()
		if !errors.Is(first, ErrFull) || !errors.Is(errs[0], ErrFull) {
			t.Fatalf("swallowed=%v: %v, %v", swallowed, first, errs)
		}
		// The third one was in the doomed batch or, as here, still queued: then it runs in the next one.
		if errs[1] != nil {
			t.Fatal(errs[1])
		}
	}
	if got := texts(t, db); got != "afterfalse aftertrue small" {
		t.Fatalf("stored %.80q", got)
	}
}

func TestManyCallersNeedFewCommits(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "n.db"), Options{})
	const callers, each = 64, 50
	before := db.Stats()
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				if err := db.Write(context.Background(), add(fmt.Sprintf("%d-%d", c, i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	after := db.Stats()
	if w, c := after.Writes-before.Writes, after.Commits-before.Commits; w != callers*each || c > w/8 {
		t.Fatalf("%d writes took %d commits", w, c)
	}
}

func TestACallerThatGivesUpInTheQueueIsNeverRun(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "n.db"), Options{})
	release := hold(t, db, add("a"))
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- db.Write(ctx, add("withdrawn")) }()
	for len(db.queue) < 1 {
		runtime.Gosched()
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if err := db.Write(t.Context(), add("z")); err != nil {
		t.Fatal(err)
	}
	if got := texts(t, db); got != "a z" {
		t.Fatalf("stored %q", got)
	}
}

func TestACallerThatGivesUpTooLateHearsTheTruth(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "n.db"), Options{})
	ctx, cancel := context.WithCancel(t.Context())
	if err := db.Write(ctx, func(tx *Tx) error { cancel(); return add("a")(tx) }); err != nil {
		t.Fatalf("committed, but the caller was told %v", err)
	}
	if err := db.Write(ctx, add("b")); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestCloseRunsWhatIsQueuedAndRefusesTheRest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n.db")
	db := open(t, path, Options{})
	release := hold(t, db, add("a"))
	results := queue(t, db, add("b"))
	closed := make(chan error, 1)
	go func() { closed <- db.Close() }()
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if errs := results(); errs[0] != nil {
		t.Fatal(errs)
	}
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if err := db.Write(t.Context(), add("c")); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if got := texts(t, open(t, path, Options{})); got != "a b" {
		t.Fatalf("stored %q", got)
	}
}

func TestFilesArePrivate(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no mode bits")
	}
	path := filepath.Join(t.TempDir(), "odd ?#%41 name.db")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	db := open(t, path, Options{})
	if err := db.Write(t.Context(), add("a")); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, path + "-wal", path + "-shm"} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", p, info.Mode().Perm())
		}
	}
}

func TestMigrationsGoForwardInOneTransaction(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n.db")
	db, err := Open(path, notes, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Write(t.Context(), add("kept")); err != nil {
		t.Fatal(err)
	}
	db.Close()

	if db, err := Open(path, append(notes[:1:1], `ALTER TABLE note ADD COLUMN at INTEGER`, `this is not SQL`), Options{}); err == nil {
		db.Close()
		t.Fatal("a broken migration was accepted")
	}
	v2 := append(notes[:1:1], `ALTER TABLE note ADD COLUMN at INTEGER;
CREATE TABLE log(text TEXT); CREATE TRIGGER note_log AFTER INSERT ON note BEGIN INSERT INTO log VALUES(new.text); END`)
	db, err = Open(path, v2, Options{})
	if err != nil {
		t.Fatalf("the failed migration left something behind: %v", err)
	}
	if got := texts(t, db); got != "kept" {
		t.Fatalf("stored %q", got)
	}
	db.Close()

	if db, err := Open(path, notes, Options{}); !errors.Is(err, ErrNewer) {
		if err == nil {
			db.Close()
		}
		t.Fatalf("a newer file was opened: %v", err)
	}
}

func TestACorruptFileIsReportedAndLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n.db")
	db, err := Open(path, notes, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		if err := db.Write(t.Context(), add(strings.Repeat("text ", 50)+fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	db.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func([]byte){
		"its header is overwritten":  func(b []byte) { copy(b, "this is not a database at all") },
		"pages in it are zero":       func(b []byte) { clear(b[3*4096 : 6*4096]) },
		"pages in it are scribbled":  func(b []byte) { copy(b[2*4096:], bytes.Repeat([]byte{0xa5}, 4*4096)) },
		"its schema page is damaged": func(b []byte) { copy(b[100:], bytes.Repeat([]byte{0x5a}, 64)) },
	} {
		t.Run(name, func(t *testing.T) {
			broken := bytes.Clone(whole)
			damage(broken)
			if err := os.WriteFile(path, broken, 0o600); err != nil {
				t.Fatal(err)
			}
			db, err := Open(path, notes, Options{})
			if err == nil {
				db.Close()
			}
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("opened with %v", err)
			}
			after, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(after, broken) {
				t.Fatalf("the damaged file was touched (%v)", err)
			}
		})
	}
}

func TestReadersCannotWrite(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "n.db"), Options{})
	if _, err := db.Read().Exec(`INSERT INTO note(text) VALUES('x')`); err == nil {
		t.Fatal("the read pool wrote")
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, callers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("%d callers", callers), func(b *testing.B) {
			db := open(b, filepath.Join(b.TempDir(), "n.db"), Options{})
			var wg sync.WaitGroup
			before := db.Stats()
			b.ResetTimer()
			for c := range callers {
				wg.Go(func() {
					for i := c; i < b.N; i += callers {
						if err := db.Write(context.Background(), add(fmt.Sprint("note number ", i))); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
			b.ReportMetric(float64(b.N)/float64(db.Stats().Commits-before.Commits), "writes/commit")
		})
	}
}

func TestOnlyCommitsThatHoldAWriteWaitForTheDisk(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "notes.db"), Options{})
	level := func(do func(context.Context, func(*Tx) error) error) (level int) {
		t.Helper()
		err := do(t.Context(), func(tx *Tx) error {
			_, err := tx.One("PRAGMA synchronous", nil, &level)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return level
	}
	const normal, full = 1, 2
	for _, step := range []struct {
		name string
		do   func(context.Context, func(*Tx) error) error
		want int
	}{{"write", db.Write, full}, {"note", db.Note, normal}, {"note", db.Note, normal}, {"write", db.Write, full}} {
		if got := level(step.do); got != step.want {
			t.Errorf("synchronous is %d during a %s, want %d", got, step.name, step.want)
		}
	}

	// Queued behind a note, a write is not drawn into the commit that does not wait.
	started, queue := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = db.Note(t.Context(), func(*Tx) error { close(started); <-queue; return nil })
	})
	<-started
	got := make(chan int, 1)
	wg.Go(func() { got <- level(db.Write) })
	for len(db.queue) == 0 {
		runtime.Gosched()
	}
	close(queue)
	wg.Wait()
	if l := <-got; l != full {
		t.Errorf("synchronous is %d during a write queued behind a note, want %d", l, full)
	}
}

// isUnique reports whether err is a violated UNIQUE or PRIMARY KEY constraint.
func isUnique(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
}
