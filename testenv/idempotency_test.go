package testenv_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"claudemesh/bus"
	"claudemesh/testenv"
	"claudemesh/testenv/faultproxy"
	"claudemesh/wire"
)

// sender is a machine whose link to the broker of another one can be made to fail, and the recipient there.
type sender struct {
	*testenv.Machine
	host     *testenv.Machine
	team     string
	proxy    *faultproxy.Proxy
	bob      *testenv.Session
	twin     *testenv.Session
	presence string
}

// presences are the states of the recipient under which a repeat must get the same answer.
var presences = []string{"online", "offline", "ambiguous"}

func newSender(t *testing.T) *sender {
	s := &sender{host: testenv.NewMachine(t), Machine: testenv.NewMachine(t)}
	s.team = s.host.Create("team")
	s.proxy = through(t, s.host, s.Machine, s.team, nil)
	s.bob = s.host.Session(s.team, "bob")
	s.WaitPeer(s.team, "bob")
	s.presence = "online"
	return s
}

// waitPeers waits until so many peers of that name are online for this machine.
func waitPeers(m *testenv.Machine, slug, name string, n int) {
	m.T.Helper()
	testenv.Wait(m.T, fmt.Sprintf("%d peers called %s", n, name), nil, func() bool {
		var r bus.PeersReply
		if testenv.Try(m.User(), bus.CallSubject(slug, bus.User, bus.CallListPeers), nil, &r) != nil {
			return false
		}
		found := 0
		for _, p := range r.Peers {
			if p.DisplayName == name {
				found++
			}
		}
		return found == n
	})
}

// recipient makes bob online, offline, or one of two of his name. While the link is down the sender cannot see it, which must not matter either.
func (s *sender) recipient(presence string, linkUp bool) {
	s.T.Helper()
	end := func(id string) { s.host.Do(bus.OpSessionEnd, bus.SessionID{ID: id}, nil) }
	start := func(id string) *testenv.Session {
		return register(s.host, bus.SessionStart{ID: id, Mesh: s.team, Name: "bob"})
	}
	n := map[string]int{"online": 1, "offline": 0, "ambiguous": 2}
	switch {
	case presence == s.presence:
	case presence == "offline":
		if s.twin != nil {
			end(s.twin.Info.ID)
		}
		end(s.bob.Info.ID)
		s.bob, s.twin = nil, nil
	default:
		if s.bob == nil {
			s.bob = start("bob-again")
		}
		if s.twin != nil {
			end(s.twin.Info.ID)
			s.twin = nil
		}
		if presence == "ambiguous" {
			s.twin = start("bobs-twin")
		}
	}
	s.presence = presence
	if linkUp {
		waitPeers(s.Machine, s.team, "bob", n[presence])
	}
}

func (s *sender) row(key string) bus.OutboxItem {
	s.T.Helper()
	var row bus.OutboxItem
	s.Do(bus.OpOutboxGet, bus.OutboxGet{ID: key, Mesh: s.team}, &row)
	return row
}

func (s *sender) waitStatus(key, want string) {
	s.T.Helper()
	testenv.Wait(s.T, "row "+key+" to be "+want, nil, func() bool { return s.row(key).Status == want })
}

// check repeats a request under every presence, matching and not, and holds the answers against the table of daemon.md 3.5.
func (s *sender) check(t *testing.T, first bus.SendRequest, row string, linkUp bool) {
	t.Helper()
	key := first.ClientMessageID
	before := s.row(key)
	if before.Status != row {
		t.Fatalf("the row is %s, want %s", before.Status, row)
	}
	ok := map[string]struct {
		code   int
		status string
	}{"pending": {202, "queued"}, "inflight": {202, "inflight"}, "done": {200, "done"}}
	changes := map[string]func(*bus.SendRequest){
		"another text":     func(r *bus.SendRequest) { r.Body += "!" },
		"another priority": func(r *bus.SendRequest) { r.Priority = "low" },
		"another target":   func(r *bus.SendRequest) { r.To = strings.Repeat("ab", 32) },
		"a reply":          func(r *bus.SendRequest) { r.ReplyTo = "some-id" },
		"metadata":         func(r *bus.SendRequest) { r.Meta = json.RawMessage(`{"a":1}`) },
	}
	conflict := func(t *testing.T, err error, reason string) {
		t.Helper()
		f := refusal(t, err, 409, "idempotency_key_reused")
		prefix, _ := f["daemon_fingerprint_prefix"].(string)
		var wantID any
		if before.BrokerMessageID != "" {
			wantID = before.BrokerMessageID
		}
		if f["conflict"] != reason || len(prefix) != 16 || f["broker_message_id"] != wantID {
			t.Errorf("fields %v, want conflict %s and broker message id %v", f, reason, wantID)
		}
	}
	for _, presence := range presences {
		s.recipient(presence, linkUp)
		t.Run(row+", the same request, recipient "+presence, func(t *testing.T) {
			r, err := s.TrySend(s.team, first)
			want, good := ok[row]
			if !good {
				conflict(t, err, "outbox_"+row+"_fingerprint_match")
				return
			}
			if err != nil || r.Code != want.code || r.Status != want.status || !r.Duplicate || r.ClientMessageID != key || r.BrokerMessageID != before.BrokerMessageID {
				t.Errorf("answer %+v, %v, want %d %s", r, err, want.code, want.status)
			}
		})
		for what, change := range changes {
			t.Run(row+", "+what+", recipient "+presence, func(t *testing.T) {
				other := first
				change(&other)
				_, err := s.TrySend(s.team, other)
				conflict(t, err, "outbox_"+row+"_fingerprint_mismatch")
			})
		}
	}
	after := s.row(key)
	if after.Status != before.Status || after.Attempts != before.Attempts || after.LastError != before.LastError || after.SupersededBy != before.SupersededBy || after.BrokerMessageID != before.BrokerMessageID {
		t.Errorf("the repeats changed the row:\n%+v\n%+v", before, after)
	}
}

func TestARepeatedSendGetsTheSameAnswer(t *testing.T) {
	send := func(s *sender, key string) bus.SendRequest {
		req := bus.SendRequest{To: "bob", Body: "text of " + key, ClientMessageID: key}
		if r := s.Send(s.team, req); r.Code != 202 || r.Status != "queued" || r.Duplicate || r.ClientMessageID != key {
			s.T.Errorf("first answer %+v", r)
		}
		return req
	}
	// refuseAll replaces the broker's answers to sends by a refusal that cannot change.
	refuseAll := func(d faultproxy.Dir, frame []byte) [][]byte {
		var ack wire.Ack
		if d == faultproxy.ToClient && json.Unmarshal(frame, &ack) == nil && ack.Type == wire.TypeAck && ack.Queued {
			frame, _ = json.Marshal(wire.Ack{Type: wire.TypeAck, ID: ack.ID, ReqID: ack.ReqID, Error: "blocked by recipient grants"})
		}
		return [][]byte{frame}
	}
	t.Run("done", func(t *testing.T) {
		s := newSender(t)
		req := send(s, "k-done")
		s.waitStatus("k-done", "done")
		s.check(t, req, "done", true)
	})
	t.Run("pending", func(t *testing.T) {
		s := newSender(t)
		s.proxy.Cut()
		s.WaitDown(s.team)
		req := send(s, "k-pending")
		s.check(t, req, "pending", false)
		s.recipient("online", false)
		s.proxy.Restore()
		s.waitStatus("k-pending", "done") // the repeats did not harm it
		s.bob.WaitMessage(req.Body)
	})
	t.Run("inflight", func(t *testing.T) {
		s := newSender(t)
		s.proxy.SetHook(faultproxy.Drop(faultproxy.ToClient, wire.TypeAck))
		req := send(s, "k-inflight")
		s.waitStatus("k-inflight", "inflight")
		s.check(t, req, "inflight", true)
		s.recipient("online", true)
		s.proxy.SetHook(nil)
		s.proxy.DropAll() // the fate of the row is unknown now: it is sent again, and received once
		s.waitStatus("k-inflight", "done")
		s.bob.WaitMessage(req.Body)
		s.Send(s.team, bus.SendRequest{To: s.bob.Info.Pubkey, Body: "fence"})
		s.bob.WaitMessage("fence")
		if items := s.bob.Inbox(); len(items) != 2 {
			t.Errorf("bob has %d messages, want the one and the fence: %+v", len(items), items)
		}
	})
	t.Run("dead and aborted", func(t *testing.T) {
		s := newSender(t)
		s.proxy.SetHook(refuseAll)
		req := send(s, "k-dead")
		s.waitStatus("k-dead", "dead")
		s.check(t, req, "dead", true)
		s.recipient("online", true)
		s.proxy.SetHook(nil)
		var re bus.Requeued
		s.Do(bus.OpOutboxRequeue, bus.Requeue{ID: "k-dead", NewClientMessageID: "k-again"}, &re)
		s.waitStatus("k-again", "done")
		s.check(t, req, "aborted", true)
	})
}

func TestARefusedSendLeavesItsKeyFree(t *testing.T) {
	m := testenv.NewMachine(t)
	team := m.Create("team")
	one := register(m, bus.SessionStart{ID: "one", Mesh: team, Name: "bob"})
	register(m, bus.SessionStart{ID: "two", Mesh: team, Name: "bob"})
	waitPeers(m, team, "bob", 2)
	_, err := m.TrySend(team, bus.SendRequest{To: "bob", Body: "hello", ClientMessageID: "free"})
	refusal(t, err, 409, "peer_ambiguous")
	_, err = m.TrySend(team, bus.SendRequest{To: "nobody", Body: "hello", ClientMessageID: "free"})
	refusal(t, err, 404, "peer_not_found")
	if r := m.Send(team, bus.SendRequest{To: one.Info.Pubkey, Body: "hello", ClientMessageID: "free"}); r.Code != 202 || r.Duplicate {
		t.Errorf("the key was used up: %+v", r)
	}
	one.WaitMessage("hello")
}

func TestConcurrentRepeatsAreOneMessage(t *testing.T) {
	m := testenv.NewMachine(t)
	team := m.Create("team")
	bob := m.Session(team, "bob")
	m.WaitPeer(team, "bob")
	const callers, keys = 8, 5
	var mu sync.Mutex
	first := map[string]int{}
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for k := range keys {
				key := fmt.Sprint("key-", k)
				r, err := m.TrySend(team, bus.SendRequest{To: "bob", Body: "text of " + key, ClientMessageID: key})
				if err != nil || r.ClientMessageID != key {
					t.Errorf("%s: %+v, %v", key, r, err)
				}
				if !r.Duplicate {
					mu.Lock()
					first[key]++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	m.Send(team, bus.SendRequest{To: "bob", Body: "fence"})
	bob.WaitMessage("fence")
	if items := bob.Inbox(); len(items) != keys+1 {
		t.Errorf("bob has %d messages, want %d", len(items), keys+1)
	}
	for k := range keys {
		if n := first[fmt.Sprint("key-", k)]; n != 1 {
			t.Errorf("%d callers were told that key-%d is new", n, k)
		}
	}
}

func TestAKeyBelongsToOneMeshAndOneSender(t *testing.T) {
	m := testenv.NewMachine(t)
	red, blue := m.Create("red"), m.Create("blue")
	alice, bob := m.Session(red, "alice"), m.Session(red, "bob")
	carol := register(m, bus.SessionStart{Mesh: blue, Name: "carol"})
	m.WaitPeer(red, "bob")
	m.WaitPeer(blue, "carol")

	const key = "the-same-key"
	req := func(to string) bus.SendRequest {
		return bus.SendRequest{To: to, Body: "with " + key, ClientMessageID: key}
	}
	if r, err := trySend(alice, red, req("bob")); err != nil || r.Duplicate {
		t.Fatalf("on the first mesh: %+v, %v", r, err)
	}
	if r, err := m.TrySend(blue, req("carol")); err != nil || r.Duplicate {
		t.Fatalf("on the second mesh: %+v, %v", r, err)
	}
	bob.WaitMessage("with " + key)
	carol.WaitMessage("with " + key)

	dave := m.Session(red, "dave")
	for who, err := range map[string]error{
		"another session": second(trySend(dave, red, req("bob"))), "the user": second(m.TrySend(red, req("bob"))),
	} {
		if f := refusal(t, err, 409, "idempotency_key_reused"); !strings.HasSuffix(fmt.Sprint(f["conflict"]), "_fingerprint_mismatch") {
			t.Errorf("%s: %v", who, f)
		}
	}
	t.Run("the next session of the name may repeat, for it is the same sender", func(t *testing.T) {
		m.Do(bus.OpSessionEnd, bus.SessionID{ID: alice.Info.ID}, nil)
		next := register(m, bus.SessionStart{Mesh: red, Name: "alice", PID: os.Getpid()})
		if r, err := trySend(next, red, req("bob")); err != nil || !r.Duplicate {
			t.Errorf("%+v, %v", r, err)
		}
	})
	if _, err := m.TrySend(red, bus.SendRequest{To: "bob", Body: "fence"}); err != nil {
		t.Fatal(err)
	}
	bob.WaitMessage("fence")
	if items := bob.Inbox(); len(items) != 2 {
		t.Errorf("bob has %+v", items)
	}
}

func second(_ bus.SendReply, err error) error { return err }
