package session

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		_, _ = os.Stdin.Read(make([]byte, 1)) // until the parent closes it
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

const childEnv = "SESSION_TEST_CHILD"

var start = time.UnixMilli(1_800_000_000_000)

func openAt(t testing.TB, path string) (*Store, *clockwork.FakeClock) {
	t.Helper()
	clock := clockwork.NewFakeClockAt(start)
	s, err := Open(path, clock, rand.Reader)
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

func openTest(t testing.TB) (*Store, *clockwork.FakeClock) {
	return openAt(t, filepath.Join(t.TempDir(), "sessions.db"))
}

func registration(id, name string, token byte) Registration {
	return Registration{ID: id, Mesh: "team", Name: name, PID: 100 + int(token), StartTime: "then", TokenHash: [32]byte{token}}
}

func register(t testing.TB, s *Store, r Registration) Session {
	t.Helper()
	got, _, err := s.Register(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func names(all []Session) string {
	var out []string
	for _, s := range all {
		out = append(out, s.ID)
	}
	return strings.Join(out, " ")
}

func live(t testing.TB, s *Store) string {
	t.Helper()
	all, err := s.Live(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return names(all)
}

func TestARegistrationReadsBackAndSurvivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	s, _ := openAt(t, path)
	r := registration("", "bob", 1)
	r.Cwd, r.Role, r.Groups, r.Caps, r.OnlyMesh = "/src", "reviewer", []string{"g", "h"}, []string{}, true
	full := register(t, s, r)
	bare := register(t, s, registration("s2", "carol", 2))
	if full.ID == "" || full.Caps == nil || bare.Caps != nil {
		t.Fatalf("%+v %+v", full, bare)
	}
	secret, err := hex.DecodeString(full.KeySecret.Reveal())
	if err != nil || hex.EncodeToString(ed25519.NewKeyFromSeed(secret[:32])) != full.KeySecret.Reveal() || full.KeySecret.Reveal()[64:] != full.PublicKey {
		t.Fatal("the key pair does not fit", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, _ = openAt(t, path)
	for _, want := range []Session{full, bare} {
		if got, err := s.Get(t.Context(), want.ID); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%v\n%+v\n%+v", err, got, want)
		}
		if got, ok, err := s.ByTokenHash(t.Context(), want.TokenHash); err != nil || !ok || got.ID != want.ID {
			t.Fatal(got.ID, ok, err)
		}
	}
	if _, ok, err := s.ByTokenHash(t.Context(), [32]byte{9}); err != nil || ok {
		t.Fatal("an unknown token was accepted", err)
	}
}

func TestARegistrationReplacesTheLiveOneOfItsID(t *testing.T) {
	s, clock := openTest(t)
	old := register(t, s, registration("s1", "bob", 1))
	clock.Advance(time.Second)
	fresh, replaced, err := s.Register(t.Context(), registration("s1", "bob", 2))
	if err != nil || replaced == nil || !reflect.DeepEqual(*replaced, old) {
		t.Fatalf("%v %+v", err, replaced)
	}
	if fresh.PublicKey != old.PublicKey {
		t.Fatal("the session lost its key")
	}
	if _, ok, err := s.ByTokenHash(t.Context(), old.TokenHash); err != nil || ok {
		t.Fatal("the old token still opens the door", err)
	}
	if got := live(t, s); got != "s1" {
		t.Fatal(got)
	}
	if _, err := s.End(t.Context(), "s1"); err != nil {
		t.Fatal(err)
	}
	if _, replaced, err := s.Register(t.Context(), registration("s1", "bob", 3)); err != nil || replaced != nil {
		t.Fatalf("an ended session was reported as replaced: %v", err)
	}
}

func TestARefusedRegistrationChangesNothing(t *testing.T) {
	s, _ := openTest(t)
	register(t, s, registration("s1", "bob", 1))
	before := register(t, s, registration("s2", "carol", 2))
	if _, _, err := s.Register(t.Context(), registration("s2", "carol", 1)); !errors.Is(err, ErrTokenInUse) {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), "s2"); err != nil || !reflect.DeepEqual(got, before) {
		t.Fatalf("%+v %v", got, err)
	}
	for name, spoil := range map[string]func(*Registration){
		"no mesh": func(r *Registration) { r.Mesh = "" }, "no name": func(r *Registration) { r.Name = "" },
		"no token": func(r *Registration) { r.TokenHash = [32]byte{} }, "a negative pid": func(r *Registration) { r.PID = -1 },
	} {
		r := registration("s3", "dave", 3)
		spoil(&r)
		if _, _, err := s.Register(t.Context(), r); !errors.Is(err, ErrBadRegistration) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheNextSessionOfANameGetsItsKey(t *testing.T) {
	s, clock := openTest(t)
	key := func(id, name string, token byte) string {
		clock.Advance(time.Second)
		return register(t, s, registration(id, name, token)).PublicKey
	}
	end := func(id string) {
		t.Helper()
		if _, err := s.End(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	bob1 := key("s1", "bob", 1)
	bob2 := key("s2", "bob", 2)
	carol := key("s3", "carol", 3)
	if bob1 == bob2 || bob1 == carol || bob2 == carol {
		t.Fatal("two live sessions share a key")
	}
	end("s1")
	if got := key("s4", "bob", 4); got != bob1 {
		t.Fatal("mail kept for bob can't be opened by the next bob")
	}
	end("s2")
	end("s4")
	if got := key("s2", "bob", 5); got != bob2 {
		t.Fatal("a resumed session did not get its own key back")
	}
	elsewhere := registration("s6", "bob", 6)
	elsewhere.Mesh = "other"
	if got := register(t, s, elsewhere).PublicKey; got == bob1 || got == bob2 {
		t.Fatal("one key on two meshes")
	}
}

func TestEndAndTouchOnlyWorkOnLiveSessions(t *testing.T) {
	s, clock := openTest(t)
	register(t, s, registration("s1", "bob", 1))
	clock.Advance(time.Minute)
	if err := s.Touch(t.Context(), "s1"); err != nil {
		t.Fatal(err)
	}
	clock.Advance(time.Minute)
	ended, err := s.End(t.Context(), "s1")
	if err != nil || !ended.EndedAt.Equal(start.Add(2*time.Minute)) || !ended.LastSeenAt.Equal(start.Add(time.Minute)) {
		t.Fatalf("%+v %v", ended, err)
	}
	if _, err := s.End(t.Context(), "s1"); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	if err := s.Touch(t.Context(), "s1"); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), "nobody"); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	if got := live(t, s); got != "" {
		t.Fatal(got)
	}
}

func TestGroupsAndPresenceOfALiveSessionCanChange(t *testing.T) {
	s, _ := openTest(t)
	register(t, s, registration("s1", "bob", 1))
	for _, groups := range [][]string{{"dev", "ops:lead"}, nil} {
		if err := s.SetGroups(t.Context(), "s1", groups); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Get(t.Context(), "s1"); err != nil || len(got.Groups) != len(groups) || got.Presence != nil {
			t.Fatalf("%+v %v", got, err)
		}
	}
	if err := s.SetPresence(t.Context(), "s1", []byte("busy")); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), "s1"); err != nil || string(got.Presence) != "busy" {
		t.Fatalf("%+v %v", got, err)
	}
	if _, err := s.End(t.Context(), "s1"); err != nil {
		t.Fatal(err)
	}
	if err := s.SetGroups(t.Context(), "s1", nil); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	if err := s.SetPresence(t.Context(), "s1", nil); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
}

// table is a process table the test writes.
type table map[int]struct {
	start string
	alive bool
	err   error
}

func (t table) Start(pid int) (string, bool, error) { p := t[pid]; return p.start, p.alive, p.err }

func TestTheReaperEndsOnlyWhatIsSurelyGone(t *testing.T) {
	s, _ := openTest(t)
	for i, id := range []string{"gone", "recycled", "same", "unreadable", "unknown-now"} {
		register(t, s, registration(id, id, byte(i+1)))
	}
	noStart, noPID := registration("unknown-then", "x", 6), registration("no-pid", "y", 7)
	noStart.StartTime, noPID.PID = "", 0
	register(t, s, noStart)
	register(t, s, noPID)
	processes := table{
		101: {"", false, nil}, 102: {"later", true, nil}, 103: {"then", true, nil},
		104: {"", false, errors.New("permission denied")}, 105: {"", true, nil}, 106: {"later", true, nil},
	}
	ended, err := s.Reap(t.Context(), processes)
	if err != nil || names(ended) != "gone recycled" || ended[0].EndedAt.IsZero() {
		t.Fatal(names(ended), err)
	}
	if got := live(t, s); got != "no-pid same unknown-now unknown-then unreadable" {
		t.Fatal(got)
	}
	if ended, err := s.Reap(t.Context(), processes); err != nil || len(ended) != 0 {
		t.Fatal("ended twice", err)
	}
}

// takenOver registers the judged id again while the reaper looks at its dead process.
type takenOver struct{ again func() }

func (p takenOver) Start(int) (string, bool, error) { p.again(); return "", false, nil }

func TestTheReaperSparesARegistrationThatCameMeanwhile(t *testing.T) {
	s, _ := openTest(t)
	register(t, s, registration("s1", "bob", 1))
	ended, err := s.Reap(t.Context(), takenOver{func() { register(t, s, registration("s1", "bob", 2)) }})
	if err != nil || len(ended) != 0 || live(t, s) != "s1" {
		t.Fatal(names(ended), err)
	}
}

func TestHostProcessesKnowsAProcessFromItsSuccessor(t *testing.T) {
	var host HostProcesses
	own, alive, err := host.Start(os.Getpid())
	if err != nil || !alive || own == "" {
		t.Fatal(own, alive, err)
	}
	if again, _, _ := host.Start(os.Getpid()); again != own {
		t.Fatalf("%q became %q", own, again)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child, alive, err := host.Start(cmd.Process.Pid)
	if err != nil || !alive || child == "" || child == own {
		t.Fatalf("child %q, own %q, %v %v", child, own, alive, err)
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if start, alive, err := host.Start(cmd.Process.Pid); err != nil || alive {
		t.Fatal("a dead process is alive", start, err)
	}
}

func TestSecretsPrintAsNothing(t *testing.T) {
	s, _ := openTest(t)
	got := register(t, s, registration("s1", "bob", 1))
	secret := got.KeySecret.Reveal()
	var shown strings.Builder
	for _, v := range []any{got, &got, got.KeySecret, []Session{got}, map[string]any{"s": got}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&shown, verb+"\n", v)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		shown.Write(b)
	}
	slog.New(slog.NewJSONHandler(&shown, nil)).Info("x", "session", got, "key", got.KeySecret)
	slog.New(slog.NewTextHandler(&shown, nil)).Info("x", "session", got, "key", got.KeySecret)
	seed := secret[:64]
	for _, form := range []string{seed, strings.ToUpper(seed), hex.EncodeToString([]byte(seed)), strings.ToUpper(hex.EncodeToString([]byte(seed)))} {
		if strings.Contains(shown.String(), form) {
			t.Fatalf("the secret key is shown as %.16s...", form)
		}
	}
}

func TestTheDirectoryKeepsTheLatestPeers(t *testing.T) {
	s, clock := openTest(t)
	put := func(mesh string, peers ...Peer) {
		t.Helper()
		if err := s.UpsertPeers(t.Context(), mesh, peers); err != nil {
			t.Fatal(err)
		}
	}
	many := make([]Peer, MaxPeers)
	for i := range many {
		many[i] = Peer{Key: fmt.Sprintf("k%05d", i), Name: "x", LastSeenAt: start.Add(time.Duration(i) * time.Millisecond)}
	}
	put("team", many...)
	put("other", Peer{Key: "k00000", Name: "elsewhere"})
	clock.Advance(time.Hour)
	put("team", Peer{Key: "bob", MemberKey: "m", Name: "bob", PeerRole: "dev", Groups: []string{"g"}}, Peer{Key: "k00001", Name: "renamed"})
	got, err := s.Peers(t.Context(), "team")
	if err != nil || len(got) != MaxPeers {
		t.Fatal(len(got), err)
	}
	want := Peer{Mesh: "team", Key: "bob", MemberKey: "m", Name: "bob", PeerRole: "dev", Groups: []string{"g"}, LastSeenAt: clock.Now()}
	if got[0].LastSeenAt = got[0].LastSeenAt.UTC(); !reflect.DeepEqual(got[0].LastSeenAt.UnixMilli(), want.LastSeenAt.UnixMilli()) || got[0].Name != "bob" ||
		got[0].PeerRole != "dev" || !reflect.DeepEqual(got[0].Groups, want.Groups) || got[1].Name != "renamed" {
		t.Fatalf("%+v %+v", got[0], got[1])
	}
	if last := got[len(got)-1].Key; last != "k00002" {
		t.Fatalf("the oldest kept is %s: the wrong ones were dropped", last)
	}
	put("team", Peer{Key: "bob", Name: "bob", LastSeenAt: start}) // news from the past
	if got, err := s.Peers(t.Context(), "team"); err != nil || got[0].Key != "bob" || got[0].LastSeenAt.Before(start.Add(time.Minute)) {
		t.Fatalf("%+v %v", got[0], err)
	}
	if got, err := s.Peers(t.Context(), "other"); err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
}

func TestNoTwoLiveSessionsShareAnIDATokenOrAKey(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		path := filepath.Join(dir, fmt.Sprintf("%d.db", n))
		s, err := Open(path, clockwork.NewFakeClockAt(start), rand.Reader)
		if err != nil {
			rt.Fatal(err)
		}
		defer s.Close()
		keys := map[string]map[string]bool{} // name → public keys it ever had
		rt.Repeat(map[string]func(*rapid.T){
			"register": func(t *rapid.T) {
				id, name := rapid.SampledFrom([]string{"s1", "s2", "s3"}).Draw(t, "id"), rapid.SampledFrom([]string{"bob", "carol"}).Draw(t, "name")
				got, _, err := s.Register(context.Background(), registration(id, name, rapid.ByteRange(1, 4).Draw(t, "token")))
				if errors.Is(err, ErrTokenInUse) {
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if keys[name] == nil {
					keys[name] = map[string]bool{}
				}
				keys[name][got.PublicKey] = true
				if len(keys[name]) > 3 {
					t.Fatalf("%s has %d keys although never more than 3 sessions live: a new key was made while one was free", name, len(keys[name]))
				}
			},
			"end": func(t *rapid.T) {
				_, err := s.End(context.Background(), rapid.SampledFrom([]string{"s1", "s2", "s3"}).Draw(t, "id"))
				if err != nil && !errors.Is(err, ErrNotFound) {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				all, err := s.Live(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				taken := map[string]bool{}
				for _, l := range all {
					for _, k := range []string{"id " + l.ID, fmt.Sprint("token ", l.TokenHash), "key " + l.PublicKey} {
						if taken[k] {
							t.Fatalf("%s is held twice", k)
						}
						taken[k] = true
					}
				}
			},
		})
	})
}

func TestConcurrentRegistrationsOfOneIDLeaveOneSession(t *testing.T) {
	s, _ := openTest(t)
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			if _, _, err := s.Register(context.Background(), registration("s1", "bob", byte(i+1))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := live(t, s); got != "s1" {
		t.Fatal(got)
	}
	var keys int
	if err := s.db.Read().QueryRow("SELECT count(*) FROM identities").Scan(&keys); err != nil || keys != 1 {
		t.Fatal(keys, err)
	}
}

func TestACorruptRegistryIsRefusedAndKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	junk := bytes.Repeat([]byte("not a database "), 1000)
	if err := os.WriteFile(path, junk, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, clockwork.NewRealClock(), rand.Reader); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, junk) {
		t.Fatal("the file was touched", err)
	}
}

// The list of live sessions is kept between commits. What a write has done when it returns must be in it, however many read meanwhile.
func TestALiveSessionIsListedFromItsRegistrationToItsEnd(t *testing.T) {
	s, _ := openTest(t)
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				if _, err := s.Live(ctx); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 100 {
		r := registration(fmt.Sprintf("s-%d", i), "worker", byte(i+1))
		made, _, err := s.Register(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if _, live, err := s.ByKey(t.Context(), "team", made.PublicKey); err != nil || !live {
			t.Fatalf("registration %d is not listed: %v", i, err)
		}
		if _, err := s.End(t.Context(), r.ID); err != nil {
			t.Fatal(err)
		}
		if _, live, err := s.ByTokenHash(t.Context(), r.TokenHash); err != nil || live {
			t.Fatalf("session %d has ended and is listed: %v", i, err)
		}
	}
	stop()
	readers.Wait()
}
