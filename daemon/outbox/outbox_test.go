package outbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"go.uber.org/goleak"

	"claudemesh/daemon/groupcommit"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDirEnv); dir != "" {
		crashingWriter(dir)
	}
	goleak.VerifyTestMain(m)
}

var start = time.UnixMilli(1_800_000_000_000)

func openTest(t testing.TB) (*Store, *clockwork.FakeClock) {
	t.Helper()
	clock := clockwork.NewFakeClockAt(start)
	s, err := Open(filepath.Join(t.TempDir(), "outbox.db"), clock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, clock
}

func message(cmid, target string) NewRow {
	return NewRow{
		ClientMessageID: cmid, Mesh: "team", Actor: "user", SenderKey: strings.Repeat("ab", 32), Kind: "dm", Target: target,
		Priority: "next", ReplyTo: "r1", Meta: json.RawMessage(`{"a":1}`), Payload: []byte("text of " + cmid),
		Fingerprint: [32]byte{1, 2, 3},
	}
}

func accept(t testing.TB, s *Store, n NewRow) Row {
	t.Helper()
	v, err := s.Accept(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	if v.Existing {
		t.Fatalf("%s was there already", n.ClientMessageID)
	}
	return v.Row
}

func claim(t testing.TB, s *Store, limit int) []Row {
	t.Helper()
	rows, err := s.Claim(t.Context(), "team", limit)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func cmids(rows []Row) string {
	var ids []string
	for _, r := range rows {
		ids = append(ids, r.ClientMessageID)
	}
	return strings.Join(ids, " ")
}

func TestDecideIsTheElevenCaseTable(t *testing.T) {
	for _, c := range []struct {
		status Status
		match  bool
		want   Answer
	}{
		{"", false, Answer{Code: 202, Status: "queued"}},
		{Pending, true, Answer{Code: 202, Status: "queued"}},
		{Pending, false, Answer{Code: 409, Conflict: "outbox_pending_fingerprint_mismatch"}},
		{Inflight, true, Answer{Code: 202, Status: "inflight"}},
		{Inflight, false, Answer{Code: 409, Conflict: "outbox_inflight_fingerprint_mismatch"}},
		{Done, true, Answer{Code: 200, Status: "done", Duplicate: true}},
		{Done, false, Answer{Code: 409, Conflict: "outbox_done_fingerprint_mismatch"}},
		{Dead, true, Answer{Code: 409, Conflict: "outbox_dead_fingerprint_match"}},
		{Dead, false, Answer{Code: 409, Conflict: "outbox_dead_fingerprint_mismatch"}},
		{Aborted, true, Answer{Code: 409, Conflict: "outbox_aborted_fingerprint_match"}},
		{Aborted, false, Answer{Code: 409, Conflict: "outbox_aborted_fingerprint_mismatch"}},
	} {
		t.Run(fmt.Sprintf("%q with match %v", c.status, c.match), func(t *testing.T) {
			if got := Decide(c.status, c.match); got != c.want {
				t.Fatalf("got %+v, want %+v", got, c.want)
			}
		})
	}
	if got := Decide("", true); got != Decide("", false) {
		t.Fatalf("no row matches no request: %+v", got)
	}
}

func TestAnAcceptedRowReadsBackAsItWasGiven(t *testing.T) {
	s, _ := openTest(t)
	full := message("m1", "bob")
	full.TargetSpec = strings.Repeat("cd", 32)
	bare := NewRow{ClientMessageID: "m2", Mesh: "team", Actor: "user", Kind: "all", Target: "*"}
	for _, n := range []NewRow{full, bare} {
		row := accept(t, s, n)
		stored, found, err := s.Lookup(t.Context(), "team", n.ClientMessageID)
		if err != nil || !found {
			t.Fatal(found, err)
		}
		if !reflect.DeepEqual(row, stored) {
			t.Fatalf("accepted %+v\nstored   %+v", row, stored)
		}
		if byID, err := s.Get(t.Context(), row.ID); err != nil || byID.Seq != row.Seq {
			t.Fatal(byID, err)
		}
	}
	if rows, err := s.List(t.Context(), Filter{}); err != nil || cmids(rows) != "m2 m1" {
		t.Fatal(cmids(rows), err)
	}
	if rows, err := s.List(t.Context(), Filter{Status: Done}); err != nil || len(rows) != 0 {
		t.Fatal(rows, err)
	}
}

func TestARowThatNamesNothingToSendToIsRefused(t *testing.T) {
	s, _ := openTest(t)
	for name, spoil := range map[string]func(*NewRow){
		"no id":        func(n *NewRow) { n.ClientMessageID = "" },
		"no mesh":      func(n *NewRow) { n.Mesh = "" },
		"no actor":     func(n *NewRow) { n.Actor = "" },
		"no target":    func(n *NewRow) { n.Target = "" },
		"unknown kind": func(n *NewRow) { n.Kind = "queue" },
	} {
		n := message("m", "bob")
		spoil(&n)
		if _, err := s.Accept(t.Context(), n); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if counts, err := s.Counts(t.Context()); err != nil || len(counts) != 0 {
		t.Fatal(counts, err)
	}
}

func TestAnIDIsBoundToOneRequestPerMesh(t *testing.T) {
	s, _ := openTest(t)
	first := accept(t, s, message("m1", "bob"))
	other := message("m1", "bob")
	other.Fingerprint[0]++
	otherSender := message("m1", "bob")
	otherSender.SenderKey = strings.Repeat("ee", 32)
	for _, c := range []struct {
		name  string
		row   NewRow
		match bool
	}{{"the same request", message("m1", "bob"), true}, {"another request", other, false}, {"another sender", otherSender, false}} {
		t.Run(c.name, func(t *testing.T) {
			v, err := s.Accept(t.Context(), c.row)
			if err != nil || !v.Existing || v.Match != c.match || !reflect.DeepEqual(v.Row, first) {
				t.Fatalf("%+v, %v", v, err)
			}
		})
	}
	elsewhere := message("m1", "bob")
	elsewhere.Mesh = "other"
	accept(t, s, elsewhere)
	if _, err := s.Get(t.Context(), "m1"); !errors.Is(err, ErrAmbiguous) {
		t.Fatal(err)
	}
}

func TestConcurrentIdenticalRequestsMakeOneRow(t *testing.T) {
	s, _ := openTest(t)
	var inserted, found sync.Map
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			v, err := s.Accept(context.Background(), message("same", "bob"))
			if err != nil {
				t.Error(err)
			}
			if v.Existing {
				found.Store(i, v.Match)
			} else {
				inserted.Store(i, true)
			}
		})
	}
	wg.Wait()
	n := 0
	inserted.Range(func(_, _ any) bool { n++; return true })
	found.Range(func(_, match any) bool {
		if match != true {
			t.Error("a repetition was taken for another request")
		}
		return true
	})
	rows, err := s.List(t.Context(), Filter{})
	if err != nil || n != 1 || len(rows) != 1 {
		t.Fatalf("%d inserts, %d rows, %v", n, len(rows), err)
	}
}

func TestRowsOfOneRecipientKeepTheirOrder(t *testing.T) {
	s, clock := openTest(t)
	accept(t, s, message("b1", "bob"))
	accept(t, s, message("c1", "carol"))
	accept(t, s, message("b2", "bob"))
	got := claim(t, s, 2)
	if cmids(got) != "b1 c1" {
		t.Fatalf("claimed %q", cmids(got))
	}
	if err := s.Resolved(t.Context(), got[0].ID, "key-of-bob"); err != nil {
		t.Fatal(err)
	}
	later := clock.Now().Add(10 * time.Second)
	if err := s.Release(t.Context(), got[0].ID, later, "offline"); err != nil {
		t.Fatal(err)
	}
	byKey := message("b3", "key-of-bob")
	byKey.TargetSpec = "key-of-bob"
	accept(t, s, byKey)
	accept(t, s, message("c2", "carol"))
	if got := claim(t, s, 10); cmids(got) != "c2" {
		t.Fatalf("bob's later messages overtook one that waits: %q", cmids(got))
	}
	due, ok, err := s.NextDue(t.Context(), "team")
	if err != nil || !ok || !due.Equal(later) {
		t.Fatalf("next due %v %v %v, want %v: a drain would spin", due, ok, err, later)
	}
	clock.Advance(10 * time.Second)
	if got := claim(t, s, 10); cmids(got) != "b1 b2 b3" {
		t.Fatalf("claimed %q", cmids(got))
	}
}

func TestAPostponedAttemptDoesNotCount(t *testing.T) {
	s, clock := openTest(t)
	accept(t, s, message("b1", "bob"))
	for range 3 {
		row := claim(t, s, 1)[0]
		if row.Attempts != 1 {
			t.Fatalf("%d attempts", row.Attempts)
		}
		if err := s.Postpone(t.Context(), row.ID, clock.Now().Add(time.Second), "slow down"); err != nil {
			t.Fatal(err)
		}
		if got := claim(t, s, 1); len(got) != 0 {
			t.Fatalf("claimed %q before its time", cmids(got))
		}
		clock.Advance(time.Second)
	}
}

func TestALaterRowWaitsForAnEarlierOneBehindADueHead(t *testing.T) {
	s, clock := openTest(t)
	for _, target := range []string{"bob", "robert", "b"} {
		n := message("to-"+target, target)
		n.TargetSpec = "key-of-bob"
		accept(t, s, n)
	}
	got := claim(t, s, 2)
	if err := s.Release(t.Context(), got[0].ID, clock.Now(), ""); err != nil {
		t.Fatal(err)
	}
	if err := s.Release(t.Context(), got[1].ID, clock.Now().Add(time.Second), ""); err != nil {
		t.Fatal(err)
	}
	if got := claim(t, s, 10); cmids(got) != "to-bob" {
		t.Fatalf("claimed %q", cmids(got))
	}
}

func TestConcurrentClaimsShareTheRowsOut(t *testing.T) {
	s, _ := openTest(t)
	const rows = 200
	for i := range rows {
		accept(t, s, message(fmt.Sprint("m", i), fmt.Sprint("peer", i%7)))
	}
	var mu sync.Mutex
	owners := map[string]int{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				got, err := s.Claim(context.Background(), "team", 5)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				for _, r := range got {
					owners[r.ID]++
				}
				left := rows - len(owners)
				mu.Unlock()
				if left == 0 || err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	for id, n := range owners {
		if n != 1 {
			t.Fatalf("%s was claimed %d times", id, n)
		}
	}
}

func TestWakeAllMakesWaitingRowsDue(t *testing.T) {
	s, clock := openTest(t)
	accept(t, s, message("b1", "bob"))
	got := claim(t, s, 1)
	if err := s.Release(t.Context(), got[0].ID, clock.Now().Add(time.Hour), "down"); err != nil {
		t.Fatal(err)
	}
	if got := claim(t, s, 1); len(got) != 0 {
		t.Fatal("claimed before it was due")
	}
	if err := s.WakeAll(t.Context(), "other"); err != nil || len(claim(t, s, 1)) != 0 {
		t.Fatal("another mesh woke it", err)
	}
	if err := s.WakeAll(t.Context(), "team"); err != nil {
		t.Fatal(err)
	}
	if got := claim(t, s, 1); len(got) != 1 || got[0].Attempts != 2 {
		t.Fatalf("%+v", got)
	}
}

func TestALateAnswerNeverBringsARowBack(t *testing.T) {
	s, clock := openTest(t)
	accept(t, s, message("m1", "bob"))
	old := claim(t, s, 1)[0]
	fresh, err := s.Requeue(t.Context(), old.ID, "m2", "user")
	if err != nil {
		t.Fatal(err)
	}
	for name, late := range map[string]error{
		"sent":    s.Sent(t.Context(), old.ID, "B1"),
		"release": s.Release(t.Context(), old.ID, clock.Now(), "x"),
		"kill":    s.Kill(t.Context(), old.ID, "x"),
		"resolve": s.Resolved(t.Context(), old.ID, "x"),
	} {
		if !errors.Is(late, ErrState) {
			t.Errorf("%s: %v", name, late)
		}
	}
	row, err := s.Get(t.Context(), old.ID)
	if err != nil || row.Status != Aborted || row.SupersededBy != fresh.ID || row.AbortedBy != "user" || row.BrokerMessageID != "" {
		t.Fatalf("%+v %v", row, err)
	}
	want := old.NewRow
	want.ID, want.ClientMessageID = fresh.ID, "m2"
	if !reflect.DeepEqual(fresh.NewRow, want) || fresh.Status != Pending {
		t.Fatalf("the route or content changed:\n%+v\n%+v", fresh.NewRow, want)
	}
	if err := s.Sent(t.Context(), "nobody", "B1"); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
}

func TestARequeueThatFailsChangesNothing(t *testing.T) {
	s, _ := openTest(t)
	row := accept(t, s, message("m1", "bob"))
	accept(t, s, message("m2", "bob"))
	if _, err := s.Requeue(t.Context(), row.ID, "m2", "user"); !errors.Is(err, ErrIDInUse) {
		t.Fatal(err)
	}
	if _, err := s.Requeue(t.Context(), row.ID, "m1", "user"); !errors.Is(err, ErrIDInUse) {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), row.ID); err != nil || !reflect.DeepEqual(got, row) {
		t.Fatalf("%+v %v", got, err)
	}
	if _, err := s.Requeue(t.Context(), "nobody", "", "user"); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	claimed := claim(t, s, 1)[0]
	if err := s.Sent(t.Context(), claimed.ID, "B1"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Requeue(t.Context(), claimed.ID, "m3", "user"); !errors.Is(err, ErrNotRequeueable) {
		t.Fatal(err)
	}
}

func TestRecoverReturnsWhatWasUnderWay(t *testing.T) {
	s, _ := openTest(t)
	accept(t, s, message("m1", "bob"))
	accept(t, s, message("m2", "carol"))
	claim(t, s, 1)
	if n, err := s.Recover(t.Context()); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	got := claim(t, s, 10)
	if cmids(got) != "m1 m2" || got[0].Attempts != 2 {
		t.Fatalf("%+v", got)
	}
}

func TestReceiptsAdvanceOncePerRecipientAndState(t *testing.T) {
	told := []struct {
		recipient, state string
		advanced         bool
	}{
		{"bob", "delivered", true},
		{"bob", "delivered", false},
		{"carol", "surfaced", true},
		{"carol", "delivered", false}, // reported late: kept, but no news
		{"bob", "surfaced", true},
		{"bob", "answered", true},
		{"bob", "surfaced", false},
	}
	for _, together := range []bool{false, true} {
		t.Run(fmt.Sprintf("together=%v", together), func(t *testing.T) {
			s, clock := openTest(t)
			row := accept(t, s, message("m1", "@all"))
			var steps []Step
			for _, c := range told {
				steps = append(steps, Step{Mesh: "team", ClientMessageID: "m1", Recipient: c.recipient, State: c.state, Via: "channel", By: "bob", At: clock.Now()})
			}
			size := 1
			if together {
				size = len(steps)
			}
			var went []Progress
			for some := range slices.Chunk(steps, size) {
				got, err := s.Advance(t.Context(), some...)
				if err != nil {
					t.Fatal(err)
				}
				went = append(went, got...)
			}
			for i, c := range told {
				if went[i].Row.ID != row.ID || went[i].Advanced != c.advanced {
					t.Errorf("step %d %+v: %v %v", i, c, went[i].Row.ID, went[i].Advanced)
				}
			}
			if all, err := s.Receipts(t.Context(), row.ID); err != nil || len(all) != 5 {
				t.Fatal(all, err)
			}
		})
	}
}

func TestAReceiptOfNoMessageDoesNotStopOthers(t *testing.T) {
	s, clock := openTest(t)
	accept(t, s, message("m1", "bob"))
	step := func(mesh, state string) Step {
		return Step{Mesh: mesh, ClientMessageID: "m1", Recipient: "bob", State: state, At: clock.Now()}
	}
	went, err := s.Advance(t.Context(), step("other", "delivered"), step("team", "delivered"))
	if err != nil || went[0].Advanced || went[0].Row.ID != "" || !went[1].Advanced {
		t.Fatalf("%+v %v", went, err)
	}
	if _, err := s.Advance(t.Context(), step("team", "surfaced"), step("team", "eaten")); !errors.Is(err, ErrBadReceipt) {
		t.Fatal(err)
	}
	if went, err = s.Advance(t.Context(), step("team", "surfaced")); err != nil || !went[0].Advanced {
		t.Fatalf("a refused batch left something: %+v %v", went, err)
	}
}

func TestHasPendingMeansNotYetAtTheBroker(t *testing.T) {
	s, _ := openTest(t)
	has := func() bool {
		t.Helper()
		h, err := s.HasPending(t.Context(), "team", "bob")
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	if has() {
		t.Fatal("an empty outbox holds something")
	}
	accept(t, s, message("m1", "bob"))
	if !has() {
		t.Fatal("pending is not seen")
	}
	row := claim(t, s, 1)[0]
	if !has() {
		t.Fatal("in flight is not seen")
	}
	if err := s.Sent(t.Context(), row.ID, "B"); err != nil || has() {
		t.Fatal("done still counts", err)
	}
	if counts, err := s.Counts(t.Context()); err != nil || len(counts) != 1 || counts[0] != (Count{"team", Done, 1}) {
		t.Fatal(counts, err)
	}
}

func TestBackoffStaysInItsInterval(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for attempt := range 200 {
		ceiling := 30 * time.Second
		if attempt < 6 {
			ceiling = min(ceiling, 500*time.Millisecond<<attempt)
		}
		var longest time.Duration
		for range 200 {
			d := Backoff(attempt, r)
			if d < 0 || d > ceiling {
				t.Fatalf("attempt %d: %v is outside [0, %v]", attempt, d, ceiling)
			}
			longest = max(longest, d)
		}
		if longest < ceiling/2 {
			t.Fatalf("attempt %d: jitter never passed half of %v", attempt, ceiling)
		}
	}
}

func TestAFullDiskRefusesTheMessageAndKeepsTheOthers(t *testing.T) {
	clock := clockwork.NewFakeClockAt(start)
	s, err := open(filepath.Join(t.TempDir(), "outbox.db"), clock, groupcommit.Options{MaxPages: 40})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	kept := 0
	for ; ; kept++ {
		n := message(fmt.Sprint("m", kept), "bob")
		n.Payload = bytes.Repeat([]byte("x"), 2000)
		if _, err = s.Accept(t.Context(), n); err != nil {
			break
		}
	}
	if !errors.Is(err, groupcommit.ErrFull) || kept == 0 {
		t.Fatalf("after %d messages: %v", kept, err)
	}
	if rows, err := s.List(t.Context(), Filter{}); err != nil || len(rows) != kept {
		t.Fatalf("%d rows, %d accepted, %v", len(rows), kept, err)
	}
	if _, found, err := s.Lookup(t.Context(), "team", fmt.Sprint("m", kept)); err != nil || found {
		t.Fatal("a refused message is half there", err)
	}
	for _, r := range claim(t, s, 1) { // what is there can still go out
		if err := s.Sent(t.Context(), r.ID, "B"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestACorruptOutboxIsRefusedAndKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "outbox.db")
	junk := bytes.Repeat([]byte("not a database "), 1000)
	if err := os.WriteFile(path, junk, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, clockwork.NewRealClock()); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, junk) {
		t.Fatal("the file was touched", err)
	}
}
