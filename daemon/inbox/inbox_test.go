package inbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"claudemesh/daemon/groupcommit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.UnixMilli(1_800_000_000_000)

func openTest(t testing.TB) (*Store, *clockwork.FakeClock) {
	t.Helper()
	clock := clockwork.NewFakeClockAt(start)
	s, err := Open(filepath.Join(t.TempDir(), "inbox.db"), clock)
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

func message(cmid, kind string) Message {
	return Message{
		Mesh: "team", Sender: "alice-key", ClientMessageID: cmid, BrokerMessageID: "B" + cmid, SenderKey: "alice-session-key",
		SenderMemberKey: "alice-key", SenderName: "alice", RecipientKey: "our-key", TargetSpec: "our-key", ToKind: kind,
		Priority: "next", ReplyTo: "r1", Body: "text of " + cmid, CreatedAt: start.Add(-time.Second),
	}
}

func insert(t testing.TB, s *Store, m Message, sessions ...string) Message {
	t.Helper()
	stored, inserted, err := insertOne(s, t.Context(), m, sessions)
	if err != nil || !inserted {
		t.Fatal(inserted, err)
	}
	return stored
}

func ids(all []Message) string {
	var out []string
	for _, m := range all {
		out = append(out, m.ClientMessageID)
	}
	return strings.Join(out, " ")
}

func itemIDs(all []Item) string {
	var out []string
	for _, m := range all {
		out = append(out, m.ClientMessageID)
	}
	return strings.Join(out, " ")
}

func pending(t testing.TB, s *Store, session string) string {
	t.Helper()
	all, err := s.Waiting(t.Context(), session, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, w := range all {
		out = append(out, w.ClientMessageID)
	}
	return strings.Join(out, " ")
}

func list(t testing.TB, s *Store, q Query) []Item {
	t.Helper()
	items, err := s.List(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return items
}

func TestAStoredMessageReadsBackAsItWasGiven(t *testing.T) {
	s, _ := openTest(t)
	open := message("m1", ToSession)
	open.Nonce, open.Ciphertext = []byte("n"), []byte("c")
	sealed := message("m2", ToMember)
	sealed.Body, sealed.Undecryptable, sealed.Reason = "garbage", true, "no key opens it"
	sealed.Nonce, sealed.Ciphertext = []byte("n"), []byte("c")
	for _, m := range []Message{open, sealed} {
		stored := insert(t, s, m)
		got, err := s.Get(t.Context(), stored.ID)
		if err != nil || !reflect.DeepEqual(got, stored) {
			t.Fatalf("%v\nreturned %+v\nstored   %+v", err, stored, got)
		}
		if m.Undecryptable && (got.Body != "" || string(got.Ciphertext) != "c") {
			t.Fatalf("text that was never opened is shown, or its box is lost: %+v", got)
		}
		if !m.Undecryptable && (got.Ciphertext != nil || got.Body != m.Body) {
			t.Fatalf("%+v", got)
		}
		if !got.ReceivedAt.Equal(start) || !got.CreatedAt.Equal(m.CreatedAt) {
			t.Fatalf("%+v", got)
		}
	}
	if _, err := s.Get(t.Context(), "nobody"); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
}

func TestDuplicatesAreRecognisedPerMeshAndSender(t *testing.T) {
	s, _ := openTest(t)
	first := insert(t, s, message("m1", ToMember), "s1")
	again := message("m1", ToMember)
	again.Body = "something else"
	stored, inserted, err := insertOne(s, t.Context(), again, []string{"s2"})
	if err != nil || inserted || !reflect.DeepEqual(stored, first) {
		t.Fatalf("%v %v\n%+v\n%+v", inserted, err, stored, first)
	}
	if got := pending(t, s, "s2"); got != "" {
		t.Fatalf("a duplicate made a delivery: %q", got)
	}
	otherSender, otherMesh := message("m1", ToMember), message("m1", ToMember)
	otherSender.Sender = "mallory-key"
	otherMesh.Mesh = "other"
	insert(t, s, otherSender)
	insert(t, s, otherMesh)
}

func TestConcurrentCopiesOfOneMessageMakeOneRow(t *testing.T) {
	s, _ := openTest(t)
	var n atomic.Int32
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			_, inserted, err := insertOne(s, context.Background(), message("m1", ToMember), []string{"s1"})
			if err != nil {
				t.Error(err)
			}
			if inserted {
				n.Add(1)
			}
		})
	}
	wg.Wait()
	if n.Load() != 1 || len(list(t, s, Query{})) != 1 {
		t.Fatalf("%d inserts", n.Load())
	}
}

func TestAMessageStaysPendingUntilItsSessionSurfacedIt(t *testing.T) {
	s, clock := openTest(t)
	a, b := insert(t, s, message("m1", ToMember), "s1", "s2"), insert(t, s, message("m2", ToSession), "s1")
	if got := pending(t, s, "s1"); got != "m1 m2" {
		t.Fatal(got)
	}
	if err := s.Pushed(t.Context(), "s1", []string{a.ID, b.ID}, "wake"); err != nil {
		t.Fatal(err)
	}
	if got := pending(t, s, "s1"); got != "m1 m2" {
		t.Fatalf("pushed is not surfaced: %q", got)
	}
	clock.Advance(time.Second)
	news, err := s.Surfaced(t.Context(), "s1", []string{b.ID, a.ID, "unknown"}, "channel", EvidenceTranscript)
	if err != nil || ids(news) != "m2 m1" {
		t.Fatal(ids(news), err)
	}
	if news, err := s.Surfaced(t.Context(), "s1", []string{a.ID}, "hook", EvidenceTurn); err != nil || len(news) != 0 {
		t.Fatal("surfaced twice", err)
	}
	if err := s.Pushed(t.Context(), "s1", []string{a.ID}, "hook"); err != nil {
		t.Fatal(err)
	}
	if got := pending(t, s, "s1"); got != "" {
		t.Fatalf("a late push reopened %q", got)
	}
	deliveries, err := s.Deliveries(t.Context(), a.ID)
	if err != nil || len(deliveries) != 2 {
		t.Fatal(deliveries, err)
	}
	want := Delivery{MessageID: a.ID, SessionID: "s1", State: "surfaced", PushedVia: "wake", Tries: 1, Via: "channel", Evidence: EvidenceTranscript, PushedAt: start, SurfacedAt: start.Add(time.Second)}
	if deliveries[0] != want || deliveries[1].State != "open" {
		t.Fatalf("%+v", deliveries)
	}
}

func TestASessionCanOnlyMoveItsOwnDeliveries(t *testing.T) {
	s, _ := openTest(t)
	m := insert(t, s, message("m1", ToSession), "s1")
	if err := s.Pushed(t.Context(), "s2", []string{m.ID}, "hook"); err != nil {
		t.Fatal(err)
	}
	if news, err := s.Surfaced(t.Context(), "s2", []string{m.ID}, "channel", EvidenceTranscript); err != nil || len(news) != 0 {
		t.Fatal("a stranger surfaced it", err)
	}
	if err := s.MarkSeen(t.Context(), "s2", []string{m.ID}); err != nil {
		t.Fatal(err)
	}
	if items := list(t, s, Query{Session: "s2"}); len(items) != 0 {
		t.Fatal("a stranger sees it")
	}
	if d, err := s.Deliveries(t.Context(), m.ID); err != nil || len(d) != 1 || d[0] != (Delivery{MessageID: m.ID, SessionID: "s1", State: "open"}) {
		t.Fatalf("%+v %v", d, err)
	}
}

func TestOrphansAreAdoptedOnceByASessionTheyConcern(t *testing.T) {
	s, _ := openTest(t)
	group := func(cmid, name string) Message {
		m := message(cmid, ToGroup)
		m.TargetSpec = "@" + name
		return m
	}
	insert(t, s, message("member", ToMember))
	insert(t, s, message("all", ToAll))
	insert(t, s, group("reviewers", "reviewers"))
	insert(t, s, group("others", "others"))
	insert(t, s, message("topic", ToTopic))
	insert(t, s, message("session", ToSession))
	insert(t, s, message("has", ToMember), "s0")
	seen := insert(t, s, message("seen", ToMember))
	if err := s.MarkSeen(t.Context(), "", []string{seen.ID}); err != nil {
		t.Fatal(err)
	}
	elsewhere := message("elsewhere", ToMember)
	elsewhere.Mesh = "other"
	insert(t, s, elsewhere)

	got, err := s.AdoptOrphans(t.Context(), "team", "s1", []string{"@reviewers:lead"})
	if err != nil || ids(got) != "member all reviewers topic" || pending(t, s, "s1") != "member all reviewers topic" {
		t.Fatal(ids(got), err)
	}
	if got, err := s.AdoptOrphans(t.Context(), "team", "s2", []string{"reviewers", "others"}); err != nil || ids(got) != "others" {
		t.Fatal(ids(got), err)
	}
	if got, err := s.Inherit(t.Context(), "team", "s3", "our-key"); err != nil || ids(got) != "session" {
		t.Fatal(ids(got), err)
	}
	if got, err := s.Inherit(t.Context(), "team", "s4", "our-key"); err != nil || len(got) != 0 {
		t.Fatal(ids(got), err)
	}
}

func TestWhatAnEndedSessionWasNotShownCanBeAdopted(t *testing.T) {
	s, _ := openTest(t)
	shown, direct := insert(t, s, message("shown", ToMember), "s1"), insert(t, s, message("direct", ToSession), "s1")
	insert(t, s, message("shared", ToMember), "s1", "s2")
	insert(t, s, message("left", ToMember), "s1")
	if _, err := s.Surfaced(t.Context(), "s1", []string{shown.ID}, "hook", EvidenceTurn); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Abandon(t.Context(), "s1"); err != nil || n != 3 {
		t.Fatal(n, err)
	}
	if got, err := s.AdoptOrphans(t.Context(), "team", "s3", nil); err != nil || ids(got) != "left" {
		t.Fatal(ids(got), err)
	}
	if got, err := s.Inherit(t.Context(), "team", "s3", direct.RecipientKey); err != nil || ids(got) != "direct" {
		t.Fatal(ids(got), err)
	}
	if got := pending(t, s, "s2"); got != "shared" {
		t.Fatal(got)
	}
}

func TestListFiltersAndMarksPerReader(t *testing.T) {
	s, clock := openTest(t)
	insert(t, s, message("m1", ToMember), "s1")
	clock.Advance(time.Minute)
	surfaced := insert(t, s, message("m2", ToSession), "s1")
	broken := message("m3", ToMember)
	broken.Undecryptable = true
	insert(t, s, broken, "s1", "s2")
	elsewhere := message("m4", ToAll)
	elsewhere.Mesh = "other"
	insert(t, s, elsewhere)
	if _, err := s.Surfaced(t.Context(), "s1", []string{surfaced.ID}, "channel", EvidenceTranscript); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		q    Query
		want string
	}{
		{"the user sees everything, newest first", Query{}, "m4 m3 m2 m1"},
		{"oldest first", Query{OldestFirst: true}, "m1 m2 m3 m4"},
		{"a mesh", Query{Mesh: "team"}, "m3 m2 m1"},
		{"a limit", Query{Limit: 2}, "m4 m3"},
		{"since", Query{Since: start.Add(time.Second)}, "m4 m3 m2"},
		{"a session sees what it has", Query{Session: "s2"}, "m3"},
		{"a session on a mesh it has nothing on", Query{Session: "s1", Mesh: "other"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := itemIDs(list(t, s, c.q)); got != c.want {
				t.Fatalf("got %q, want %q", got, c.want)
			}
		})
	}
	states := map[string]string{}
	for _, it := range list(t, s, Query{Session: "s1"}) {
		states[it.ClientMessageID] = it.State + " " + it.Via
	}
	if want := map[string]string{"m1": "delivered ", "m2": "surfaced channel", "m3": "undecryptable "}; !reflect.DeepEqual(states, want) {
		t.Fatalf("states %v", states)
	}

	if got := itemIDs(list(t, s, Query{Session: "s1", Unread: true, Limit: 2, MarkSeen: true})); got != "m3 m2" {
		t.Fatal(got)
	}
	if got := itemIDs(list(t, s, Query{Session: "s1", Unread: true})); got != "m1" {
		t.Fatal(got)
	}
	for _, c := range []struct {
		session, mesh string
		want          int64
	}{{"", "", 4}, {"", "team", 3}, {"s1", "", 1}, {"s1", "other", 0}, {"s2", "team", 1}} {
		if n, err := s.CountUnread(t.Context(), c.session, c.mesh); err != nil || n != c.want {
			t.Errorf("unread of %q on %q: %d %v, want %d", c.session, c.mesh, n, err, c.want)
		}
	}
	list(t, s, Query{MarkSeen: true})
	if n, err := s.CountUnread(t.Context(), "", ""); err != nil || n != 0 {
		t.Fatal(n, err)
	}
	if n, err := s.CountUnread(t.Context(), "s2", ""); err != nil || n != 1 {
		t.Fatal("the user's reading marked a session's mail", n, err)
	}
}

func TestSearchFindsWordsAndNothingElse(t *testing.T) {
	s, _ := openTest(t)
	for cmid, body := range map[string]string{"m1": "the parser is green", "m2": "Parsing fails: NEAR(a b)", "m3": "naïve café"} {
		m := message(cmid, ToMember)
		m.Body = body
		insert(t, s, m, "s1")
	}
	sealed := message("m4", ToMember)
	sealed.Body, sealed.Undecryptable, sealed.SenderName = "parser", true, "bob"
	insert(t, s, sealed)
	for _, c := range []struct{ text, want string }{
		{"parser", "m1"},
		{"pars", "m1 m2"},
		{"GREEN parser", "m1"},
		{"parser missing", ""},
		{"cafe", "m3"},
		{"bob", "m4"},
		{"NEAR(a", "m2"},
		{`body: OR "`, ""},
		{"  ", ""},
		{"*", ""},
	} {
		t.Run(c.text, func(t *testing.T) {
			items, err := s.Search(t.Context(), SearchQuery{Text: c.text})
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]bool{}
			for _, it := range items {
				got[it.ClientMessageID] = true
			}
			want := map[string]bool{}
			for _, id := range strings.Fields(c.want) {
				want[id] = true
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("got %v, want %v", got, want)
			}
		})
	}
	if items, err := s.Search(t.Context(), SearchQuery{Text: "parser", Session: "s2"}); err != nil || len(items) != 0 {
		t.Fatal("a session found what is not its own", err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		if _, err := s.Search(context.Background(), SearchQuery{Text: rapid.String().Draw(rt, "text")}); err != nil {
			rt.Fatal(err)
		}
	})
}

func TestSearchCoversEverythingStoredSoFar(t *testing.T) {
	s, _ := openTest(t)
	stored := 0
	for _, more := range []int{1, 0, indexChunk - 1, indexChunk + 1, 2} {
		var wg sync.WaitGroup
		for i := range more {
			wg.Go(func() {
				m := message(fmt.Sprint("m", stored+i), ToMember)
				m.Body = fmt.Sprint("common word", stored+i)
				if _, _, err := insertOne(s, context.Background(), m, nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		stored += more
		var searches sync.WaitGroup
		for range 4 { // concurrent catching up indexes nothing twice
			searches.Go(func() {
				items, err := s.Search(context.Background(), SearchQuery{Text: "common", Limit: 10_000})
				if err != nil || len(items) != stored {
					t.Errorf("found %d of %d: %v", len(items), stored, err)
				}
			})
		}
		searches.Wait()
		if items, err := s.Search(t.Context(), SearchQuery{Text: fmt.Sprint("word", stored-1)}); err != nil || len(items) != 1 {
			t.Fatalf("the last of %d: %d found, %v", stored, len(items), err)
		}
	}
	err := s.write(t.Context(), "check", func(tx *groupcommit.Tx) error {
		_, err := tx.Exec("INSERT INTO messages_fts(messages_fts, rank) VALUES('integrity-check', 1)")
		return err
	})
	if err != nil {
		t.Fatalf("the index does not match the messages: %v", err)
	}
}

func TestACorruptInboxIsSetAsideAndAnEmptyOneStarted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inbox.db")
	clock := clockwork.NewFakeClockAt(start)
	s, aside, err := OpenOrQuarantine(path, clock)
	if err != nil || aside != "" {
		t.Fatal(aside, err)
	}
	insert(t, s, message("m1", ToMember))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	junk := bytes.Repeat([]byte("not a database "), 1000)
	if err := os.WriteFile(path, junk, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, clock); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
	s, aside, err = OpenOrQuarantine(path, clock)
	if err != nil || aside != fmt.Sprintf("%s.corrupt-%d", path, start.UnixMilli()) {
		t.Fatal(aside, err)
	}
	defer s.Close()
	if kept, err := os.ReadFile(aside); err != nil || !bytes.Equal(kept, junk) {
		t.Fatal("the damaged file was changed", err)
	}
	if len(list(t, s, Query{})) != 0 {
		t.Fatal("not empty")
	}
	insert(t, s, message("m1", ToMember))
}

func BenchmarkInsert64(b *testing.B) {
	s, _ := openTest(b)
	var wg sync.WaitGroup
	b.ResetTimer()
	for c := range 64 {
		wg.Go(func() {
			for i := c; i < b.N; i += 64 {
				if _, _, err := insertOne(s, context.Background(), message(fmt.Sprint("m", i), ToMember), []string{"s1"}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "inserts/s")
}

// BenchmarkOpen100000 opens an inbox with 100,000 messages, whole-file check included.
func BenchmarkOpen100000(b *testing.B) {
	path := filepath.Join(b.TempDir(), "inbox.db")
	s, err := Open(path, clockwork.NewRealClock())
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	for c := range 64 {
		wg.Go(func() {
			for i := c; i < 100_000; i += 64 {
				if _, _, err := insertOne(s, context.Background(), message(fmt.Sprint("m", i), ToMember), []string{"s1"}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := Open(path, clockwork.NewRealClock())
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// insertOne stores one message.
func insertOne(s *Store, ctx context.Context, m Message, sessions []string) (Message, bool, error) {
	stored, err := s.Insert(ctx, Arrival{Message: m, Sessions: sessions})
	if err != nil {
		return Message{}, false, err
	}
	return stored[0].Message, stored[0].Inserted, nil
}

func TestInsertOfABatchStoresAllInOrderOrNone(t *testing.T) {
	s, _ := openTest(t)
	got, err := s.Insert(t.Context(), Arrival{Message: message("m1", ToMember), Sessions: []string{"s1"}}, Arrival{Message: message("m2", ToMember), Sessions: []string{"s1"}},
		Arrival{Message: message("m1", ToMember), Sessions: []string{"s1"}})
	if err != nil {
		t.Fatal(err)
	}
	if !got[0].Inserted || !got[1].Inserted || got[2].Inserted || got[2].Message.ID != got[0].Message.ID || got[1].Message.Seq <= got[0].Message.Seq {
		t.Errorf("stored %+v", got)
	}
	bad := message("m4", ToMember)
	bad.ID = got[0].Message.ID // taken
	if _, err := s.Insert(t.Context(), Arrival{Message: message("m3", ToMember)}, Arrival{Message: bad}); err == nil {
		t.Error("a message with a taken id was stored")
	}
	items, err := s.List(t.Context(), Query{})
	if err != nil || len(items) != 2 {
		t.Errorf("%d messages, %v: want the two of the first batch only", len(items), err)
	}
}
