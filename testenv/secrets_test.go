package testenv_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jonboulle/clockwork"
	"github.com/nats-io/nats.go/micro"

	"claudemesh/bus"
	"claudemesh/daemon/session"
	"claudemesh/testenv"
)

// secrets are values that may stand in their own files only, by what they are.
type secrets map[string]string

// add enters a value, and for keys in hex the other ways to write them.
func (s secrets) add(what, value string) {
	s[what] = value
	if b, err := hex.DecodeString(value); err == nil {
		s[what+" in base64"] = strings.TrimRight(base64.StdEncoding.EncodeToString(b), "=")
		if len(b) == 64 { // seed and public key
			s[what+", the seed"] = value[:64]
			s[what+", the seed in base64"] = base64.StdEncoding.EncodeToString(b[:32])[:42]
		}
	}
}

// search reports each secret that text holds.
func (s secrets) search(t testing.TB, where, text string) {
	t.Helper()
	for what, value := range s {
		if at := strings.Index(text, value); at >= 0 {
			t.Errorf("%s holds %s: …%s…", where, what, strings.ReplaceAll(text[max(0, at-60):min(len(text), at+len(value)+20)], value, "<secret>"))
		}
	}
}

const vaultSecret = "correct-horse-battery-staple"

func TestNoSecretIsShown(t *testing.T) {
	m, far := testenv.NewMachine(t), testenv.NewMachine(t)
	team := m.Create("team")
	invite := m.Share(team)
	far.Join(invite, "far")
	far.WaitLink(team)
	alice := register(m, bus.SessionStart{Mesh: team, Name: "alice", Role: "reviewer", Cwd: m.Home})
	bob := m.Session(team, "bob")
	m.WaitPeer(team, "alice")
	m.WaitPeer(team, "bob")

	var tap bus.Tap
	m.Do(bus.OpTap, bus.TapRequest{}, &tap)
	s := secrets{}
	s.add("the user's token", userToken(m))
	s.add("the tap's token", tokenIn(t, tap.TokenFile))
	s.add("alice's token", tokenIn(t, alice.Info.TokenFile))
	s.add("bob's token", tokenIn(t, bob.Info.TokenFile))
	s.add("the member's secret key", memberOf(m, team).SecretKey)
	s.add("the other member's secret key", memberOf(far, team).SecretKey)
	s.add("the value of a vault entry", vaultSecret)
	s.add("the value of a vault entry in base64", base64.StdEncoding.EncodeToString([]byte(vaultSecret)))
	s.add("the invite", strings.TrimPrefix(invite, "ic://join/"))

	tapped := rawConn(m, tokenIn(t, tap.TokenFile), tap.InboxPrefix)
	sub, err := tapped.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	if err := tapped.Flush(); err != nil {
		t.Fatal(err)
	}
	everything := listen(t, m.User(), "mesh.>")

	sent := alice.Send("bob", "an ordinary message")
	got := bob.WaitMessage("an ordinary message")
	bob.Do(bus.OpInboxSurfaced, bus.MessageIDs{IDs: []string{got.ID}, Via: bus.ViaChannel}, nil)
	m.WaitState(team, sent.ClientMessageID, bus.StateSurfaced)

	// Every operation, asked by the user and by a session, well and badly. The list is held against what the daemon offers.
	asked := map[string][]any{
		bus.OpVersion: {nil}, bus.OpStatus: {nil}, bus.OpMeshList: {nil}, bus.OpSessionList: {nil}, bus.OpSessionMe: {nil},
		bus.OpMeshCreate: {bus.MeshCreate{Name: "second"}, bus.MeshCreate{Name: ""}, bus.MeshCreate{Name: "r", BrokerURL: "ws://127.0.0.1:1/ws", AdminTokenFile: tap.TokenFile}},
		bus.OpMeshJoin:   {bus.MeshJoin{Invite: invite}, bus.MeshJoin{Invite: invite[:len(invite)-8] + "AAAAAAAA"}, bus.MeshJoin{Invite: userToken(m)}},
		bus.OpMeshShare:  {bus.MeshShare{Mesh: "none"}}, // the one reply that exists to carry a secret was asked for above
		bus.OpMeshRename: {bus.MeshRename{Mesh: team, Slug: "-"}, bus.MeshRename{Mesh: team, Slug: "x2"}}, bus.OpMeshLeave: {bus.MeshLeave{Mesh: team}, bus.MeshLeave{}},
		bus.OpMeshDelete: {bus.MeshDelete{Mesh: "none"}}, bus.OpInviteList: {bus.InviteQuery{Mesh: team}}, bus.OpInviteRevoke: {bus.InviteQuery{Mesh: team, Invite: "x"}},
		bus.OpSessionStart: {
			bus.SessionStart{Mesh: team, Name: "carol", PID: os.Getpid(), ID: "carol"},
			bus.SessionStart{Mesh: team, Name: "carol", PID: os.Getpid(), ID: "carol"},
			bus.SessionStart{Mesh: team, Name: "", PID: 1},
			bus.SessionStart{},
		},
		bus.OpInboxList: {bus.InboxQuery{}, bus.InboxQuery{Mesh: "none"}}, bus.OpInboxSeen: {bus.MessageIDs{IDs: []string{got.ID}}}, bus.OpInboxPending: {nil},
		bus.OpInboxSurfaced: {bus.MessageIDs{IDs: []string{got.ID}, Via: bus.ViaInbox}, bus.MessageIDs{}},
		bus.OpOutboxList:    {bus.OutboxQuery{}, bus.OutboxQuery{Status: "x"}}, bus.OpOutboxGet: {bus.OutboxGet{ID: sent.ClientMessageID}, bus.OutboxGet{}},
		bus.OpOutboxRequeue: {bus.Requeue{ID: sent.ClientMessageID}}, bus.OpTap: {bus.TapRequest{}}, bus.OpSessionEnd: {bus.SessionID{ID: "carol"}, bus.SessionID{}},
	}
	asked[bus.OpSessionAttach] = []any{bus.SessionAttach{PID: os.Getppid(), Cwd: "/src/app"}, bus.SessionAttach{}}
	asked[bus.OpMeshReload] = []any{nil}
	asked[bus.OpShim] = []any{bus.Shim{PID: os.Getpid()}}
	asked[bus.OpInboxPushed] = []any{bus.MessageIDs{IDs: []string{got.ID}, Via: bus.ViaChannel}, bus.MessageIDs{}}
	asked[bus.OpHook] = []any{bus.HookEvent{Event: "SessionStart", PID: os.Getppid()}, bus.HookEvent{Event: "UserPromptSubmit", Drain: true}, bus.HookEvent{}}
	asked[bus.OpHookWait] = []any{bus.HookWait{Waiter: "w", First: true}, bus.HookWait{}}
	asked[bus.OpTrace] = []any{bus.TraceQuery{ID: sent.ClientMessageID}, bus.TraceQuery{ID: got.ID}, bus.TraceQuery{}}
	asked[bus.OpTrust] = []any{bus.TrustQuery{Mesh: team, Members: []bus.TrustRef{{MemberKey: far.MemberKey(team), Names: []string{"far"}}}}, bus.TrustQuery{}}
	asked[bus.OpTrustConfirm] = []any{bus.TrustConfirm{Mesh: team, TrustRef: bus.TrustRef{MemberKey: far.MemberKey(team)}}, bus.TrustConfirm{Mesh: team}}
	asked[bus.OpVaultSet] = []any{
		bus.VaultSet{Mesh: team, Key: "K", Value: []byte(vaultSecret), Type: "env"},
		bus.VaultSet{Mesh: team, Key: "K", Value: []byte(vaultSecret), Type: "x"},
		bus.VaultSet{Mesh: "none", Key: "K", Value: []byte(vaultSecret), Type: "env"},
		json.RawMessage(`{"mesh":"` + team + `","value":"` + vaultSecret + `!"}`),
	}
	asked[bus.OpVaultGet] = []any{bus.VaultGet{Mesh: team, Key: "no such key"}} // the one reply that exists to carry a value is asked for elsewhere
	asked[bus.OpFileBegin] = []any{bus.FileBegin{Mesh: team, Name: "x", Size: 1}, bus.FileBegin{}}
	asked[bus.OpFileOpen] = []any{bus.FileOpen{Mesh: team, FileID: "none"}}
	asked[bus.OpFileGrant] = []any{bus.FileGrant{Mesh: team, FileID: "none", To: "alice"}}
	for _, op := range []string{bus.OpFileChunk, bus.OpFileCommit, bus.OpFileFetch, bus.OpFileRead, bus.OpFileProgress, bus.OpFileClose} {
		asked[op] = []any{bus.FileTransfer{ID: "none"}}
	}
	replies := []string{}
	ask := func(c *bus.Client, actor, subject string, in any) {
		t.Helper()
		var data []byte
		if in != nil {
			data = encode(t, in)
		}
		msg, err := c.Conn().Request(subject, data, testenv.Patience)
		if err != nil {
			t.Fatalf("%s: %v", subject, err)
		}
		replies = append(replies, fmt.Sprint("the reply to ", subject, ": ", msg.Header, string(msg.Data)))
	}
	garbage := json.RawMessage(`{"name":7,"invite":7,"id":7,"ids":7,"mesh":7,"limit":"x","revoke":7}`)
	for op, inputs := range asked {
		for _, in := range append(inputs, garbage) {
			ask(m.User(), bus.User, bus.DaemonSubject(bus.User, op), in)
			ask(alice.Client, alice.Info.ID, bus.DaemonSubject(alice.Info.ID, op), in)
		}
	}
	for subject, in := range map[string]any{
		bus.SendSubject(team, bus.User, "dm"): bus.SendRequest{To: "bob", Body: "x"}, bus.SendSubject(team, bus.User, "all"): bus.SendRequest{To: "*", Body: "x"},
		bus.SendSubject("none", bus.User, "dm"): bus.SendRequest{To: "bob", Body: "x"}, bus.SendSubject(team, bus.User, "group"): bus.SendRequest{To: "nobody", Body: ""},
		bus.CallSubject(team, bus.User, bus.CallListPeers): nil, bus.CallSubject(team, bus.User, "no_such_operation"): garbage,
		bus.CallSubject(team, bus.User, bus.CallSetSummary): map[string]string{"summary": "busy"}, bus.CallSubject(team, bus.User, "hello"): nil,
	} {
		ask(m.User(), bus.User, subject, in)
	}
	offered := []string{"send", "call", bus.OpShutdown}
	offered = append(offered, slices.Collect(maps.Keys(asked))...)
	info, err := m.User().Conn().Request("$SRV.INFO."+bus.ServiceName, nil, testenv.Patience)
	if err != nil {
		t.Fatal(err)
	}
	var service micro.Info
	if err := json.Unmarshal(info.Data, &service); err != nil {
		t.Fatal(err)
	}
	for _, e := range service.Endpoints {
		if !slices.Contains(offered, e.Name) {
			t.Errorf("operation %s is not asked by this test", e.Name)
		}
	}
	replies = append(replies, string(info.Data))
	stats, err := m.User().Conn().Request("$SRV.STATS."+bus.ServiceName, nil, testenv.Patience)
	if err != nil {
		t.Fatal(err)
	}
	replies = append(replies, string(stats.Data))
	// New meshes and sessions mean new links: what they say has been said when a message has gone through.
	alice.Send("bob", "the last message")
	bob.WaitMessage("the last message")
	heardByUser := everything.until(t, "the last message")

	var traffic []string
	for _, msg := range heardByUser {
		traffic = append(traffic, fmt.Sprint("the user hears ", msg.Subject, " ", msg.Header, string(msg.Data)))
	}
	for {
		msg, err := sub.NextMsg(testenv.Patience)
		if err != nil {
			t.Fatal(err)
		}
		traffic = append(traffic, fmt.Sprint("the tap hears ", msg.Subject, " ", msg.Reply, msg.Header, string(msg.Data)))
		if strings.HasPrefix(msg.Subject, "mesh."+team+".msg.") && strings.Contains(string(msg.Data), "the last message") {
			break
		}
	}
	if len(replies) < 60 || len(traffic) < 50 || len(heardByUser) < 10 {
		t.Errorf("only %d replies, %d messages, %d of them at the user: this test proves little", len(replies), len(traffic), len(heardByUser))
	}
	m.Do(bus.OpShutdown, nil, nil)
	m.Stop()
	far.Stop()

	// The sessions' own keys, which no file but the registry may hold.
	for _, machine := range []*testenv.Machine{m, far} {
		maps.Copy(s, sessionKeys(t, machine))
	}
	for _, text := range append(replies, traffic...) {
		s.search(t, text[:min(len(text), 70)], text)
	}
	s.search(t, "the log", m.Log.String())
	s.search(t, "the other log", far.Log.String())
	delete(s, "the invite") // whoever may use up an invite has to know it: the broker keeps it
	own := map[string]bool{"local-token": true, "tap-token": true, "session-tokens": true, "sessions.db": true}
	files := 0
	filesBelow(t, m.Dir(), func(path string, info os.FileInfo) {
		rel, _ := filepath.Rel(m.Dir(), path)
		if first, _, _ := strings.Cut(rel, "/"); !info.Mode().IsRegular() || own[strings.TrimSuffix(strings.TrimSuffix(first, "-wal"), "-shm")] {
			return
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files++
		s.search(t, rel, string(b))
	})
	if files < 8 {
		t.Errorf("only %d files were searched", files)
	}
}

// sessionKeys reads the registry of a machine that is stopped.
func sessionKeys(t testing.TB, m *testenv.Machine) secrets {
	t.Helper()
	store, err := session.Open(filepath.Join(m.Dir(), "sessions.db"), clockwork.NewRealClock(), strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	live, err := store.Live(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	keys := secrets{}
	for _, s := range live {
		keys.add("the secret key of session "+s.Name, s.KeySecret.Reveal())
	}
	return keys
}

func TestTheFilesAreThisUsersOnly(t *testing.T) {
	m := testenv.NewMachine(t)
	team := m.Create("team")
	alice := m.Session(team, "alice")
	m.WaitPeer(team, "alice")
	m.Do(bus.OpTap, bus.TapRequest{}, nil)
	alice.Send("*", "something to store")
	m.Send(team, bus.SendRequest{To: "alice", Body: "something to receive"})
	alice.WaitMessage("something to receive")
	n := 0
	filesBelow(t, filepath.Join(m.Home, ".claudemesh"), func(path string, info os.FileInfo) {
		n++
		want := os.FileMode(0o600)
		if info.IsDir() {
			want = 0o700
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
	})
	if n < 20 {
		t.Errorf("only %d files were looked at", n)
	}
}
