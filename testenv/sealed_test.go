package testenv_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/testenv"
	"claudemesh/testenv/faultproxy"
	"claudemesh/wire"
)

// recorder keeps every frame that passes a proxy.
type recorder struct {
	mu     sync.Mutex
	frames []string
}

func (r *recorder) hook(_ faultproxy.Dir, frame []byte) [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frames = append(r.frames, string(frame))
	return [][]byte{frame}
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.frames)
}

// through makes a proxy before the broker of a machine and lets another machine join by it.
func through(t testing.TB, host, guest *testenv.Machine, slug string, hook faultproxy.Hook) *faultproxy.Proxy {
	t.Helper()
	host.WaitLink(slug)
	p, err := faultproxy.New(status(host).Broker.URL, faultproxy.WithFrames(hook))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	guest.Join(host.Share(slug), "guest") // plain HTTP, while the proxy speaks WebSocket only
	guest.Stop()
	err = mesh.UpdateConfig(filepath.Join(guest.Home, ".claudemesh"), func(c *mesh.Config) error {
		j, _ := c.Mesh(slug)
		j.BrokerURL = p.URL()
		c.Put(j)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	guest.Start()
	guest.WaitLink(slug)
	return p
}

func TestADirectMessageIsSealed(t *testing.T) {
	host, guest := testenv.NewMachine(t), testenv.NewMachine(t)
	team := host.Create("team")
	var rec recorder
	through(t, host, guest, team, rec.hook)
	alice, bob := host.Session(team, "alice"), guest.Session(team, "bob")
	host.WaitPeer(team, "bob")
	guest.WaitPeer(team, "alice")

	const there, back, toMember, open = "the secret plan goes out", "the secret answer comes back", "the secret for the member", "the open broadcast to all"
	sent := alice.Send("bob", there)
	got := bob.WaitMessage(there)
	bob.Do(bus.OpInboxSurfaced, bus.MessageIDs{IDs: []string{got.ID}, Via: bus.ViaChannel}, nil)
	bob.Send("alice", back)
	alice.WaitMessage(back)
	host.Send(team, bus.SendRequest{To: guest.MemberKey(team), Body: toMember})
	bob.WaitMessage(toMember)
	bob.Send("*", open)
	alice.WaitMessage(open)
	host.WaitState(team, sent.ClientMessageID, bus.StateSurfaced)

	// forms are the ways a text could stand in a file or frame.
	forms := func(text string) []string {
		return []string{text, base64Core(text, 0), base64Core(text, 1), base64Core(text, 2)}
	}
	holds := func(where, content string, text string) bool {
		for _, f := range forms(text) {
			if strings.Contains(content, f) {
				return true
			}
		}
		return false
	}
	host.Stop()
	guest.Stop()
	var store strings.Builder
	filesBelow(t, filepath.Join(host.Dir(), "jetstream", "BROKER"), func(path string, info os.FileInfo) {
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			store.Write(b)
		}
	})
	places := map[string]string{
		"the broker's store": store.String(), "the frames": strings.Join(rec.all(), "\n"), "the broker's log": host.Log.String(), "the guest's log": guest.Log.String(),
	}
	for where, content := range places {
		for _, text := range []string{there, back, toMember} {
			if holds(where, content, text) {
				t.Errorf("%s hold %q", where, text)
			}
		}
	}
	// The search finds what is there: a broadcast is not sealed (docs/decisions.md).
	for _, where := range []string{"the broker's store", "the frames"} {
		if !holds(where, places[where], open) {
			t.Errorf("the search does not find a broadcast in %s: it proves nothing", where)
		}
	}
}

// base64Core is the part of base64 of text that does not depend on what stands around it, when text begins at an offset of shift bytes.
func base64Core(text string, shift int) string {
	skip := (3 - shift) % 3
	whole := (len(text) - skip) / 3 * 3
	return base64.StdEncoding.EncodeToString([]byte(text[skip : skip+whole]))
}

// stranger is a member that speaks the broker's protocol itself, so that it can send what no daemon would.
type stranger struct {
	t        testing.TB
	id       mesh.Identity
	links    *bridge.Mesh
	open     chan struct{}
	receipts chan wire.Receipt
}

func (s *stranger) Push(context.Context, bridge.Source, []wire.Push) ([]wire.ClientAck, error) {
	return nil, nil
}

func (s *stranger) Receipts(_ context.Context, batch []wire.Receipt) error {
	for _, r := range batch {
		s.receipts <- r
	}
	return nil
}

func (s *stranger) Frame(context.Context, bridge.Source, string, []byte) {}

func (s *stranger) State(src bridge.Source, st bridge.State) {
	if st.Phase == bridge.Open && src.Session == "" {
		close(s.open)
	}
}

// newStranger takes over a machine's membership.
func newStranger(m *testenv.Machine, slug, name string) *stranger {
	m.T.Helper()
	m.Stop()
	j := memberOf(m, slug)
	id, err := j.Identity()
	if err != nil {
		m.T.Fatal(err)
	}
	s := &stranger{t: m.T, id: id, open: make(chan struct{}), receipts: make(chan wire.Receipt, 1024)}
	s.links = bridge.NewMesh(bridge.MeshConfig{
		Slug: slug, MeshID: j.MeshID, MemberID: j.MemberID, BrokerURL: j.BrokerURL, Member: id, DisplayName: name, Handler: s,
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.links.Run(ctx)
	}()
	m.T.Cleanup(func() { cancel(); <-ended })
	wait, stop := context.WithTimeout(ctx, testenv.Patience)
	defer stop()
	select {
	case <-s.open:
	case <-wait.Done():
		m.T.Fatal("the stranger's link did not open")
	}
	return s
}

// send sends what the broker takes; it must be taken.
func (s *stranger) send(f wire.Send) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
	defer cancel()
	f.ID, f.Priority = f.ClientMessageID, wire.PriorityNext
	if ack, err := s.links.Member().Send(ctx, f); err != nil || !ack.Queued {
		s.t.Fatalf("send %s: %+v, %v", f.ClientMessageID, ack, err)
	}
}

func TestWhatCannotBeOpenedIsNeverShown(t *testing.T) {
	host, guest := testenv.NewMachine(t), testenv.NewMachine(t)
	team := host.Create("team")
	guest.Join(host.Share(team), "mallory")
	guest.WaitLink(team)
	bob := host.Session(team, "bob", "dev")
	host.WaitPeer(team, "bob")
	mallory := newStranger(guest, team, "mallory")

	b64 := base64.StdEncoding.EncodeToString
	seal := func(to string, text string) (nonce, box string) {
		t.Helper()
		n, c, err := mesh.Seal(mallory.id, to, []byte(text), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return b64(n), b64(c)
	}
	const plain = "text that was never sealed"
	nonce := b64(make([]byte, 24))
	otherNonce, forOther := seal(mallory.id.PublicKey(), "sealed for somebody else")
	goodNonce, good := seal(bob.Info.Pubkey, "sealed and then damaged")
	binaryNonce, binary := seal(bob.Info.Pubkey, "\xff\xfe not text")
	damaged := []byte(good)
	damaged[30] ^= 1
	frames := map[string]wire.Send{
		"garbage":             {Nonce: nonce, Ciphertext: b64([]byte("\x00\x01\x02\x9cgarbage\xff"))},
		"plain":               {Nonce: nonce, Ciphertext: b64([]byte(plain))},
		"for-another-key":     {Nonce: otherNonce, Ciphertext: forOther},
		"damaged":             {Nonce: goodNonce, Ciphertext: string(damaged)},
		"wrong-nonce":         {Nonce: nonce, Ciphertext: good},
		"short-nonce":         {Nonce: b64([]byte("short")), Ciphertext: good},
		"no-nonce":            {Nonce: "", Ciphertext: good},
		"empty":               {Nonce: nonce, Ciphertext: ""},
		"no-base64":           {Nonce: nonce, Ciphertext: "%%% " + plain},
		"nonce-no-base64":     {Nonce: "%%%", Ciphertext: b64([]byte(plain))},
		"sealed-but-not-text": {Nonce: binaryNonce, Ciphertext: binary},
		"binary-broadcast":    {TargetSpec: "*", Nonce: nonce, Ciphertext: b64([]byte("\xff\xfe\x00 binary"))},
		"broadcast-no-base64": {TargetSpec: "@dev", Nonce: nonce, Ciphertext: "%%% " + plain},
	}
	atBob, atUser := listen(t, bob.Client, bus.SessionMsgSubject(team, bob.Info.ID)), listen(t, host.User(), bus.AnyMsgSubject(team))
	for id, f := range frames {
		f.ClientMessageID = id
		if f.TargetSpec == "" {
			f.TargetSpec = bob.Info.Pubkey
		}
		mallory.send(f)
	}
	bob.WaitInbox("all of them", func(items []bus.InboxItem) bool { return len(items) == len(frames) })

	ids := []string{}
	for _, it := range bob.Inbox() {
		ids = append(ids, it.ID)
		if _, sent := frames[it.ClientMessageID]; !sent || it.State != bus.StateUndecryptable || it.Reason == "" || it.Body != "" || it.FromName != "mallory" || it.FromKey != mallory.id.PublicKey() {
			t.Errorf("%s is listed as %+v", it.ClientMessageID, it)
		}
	}
	var pending bus.InboxList
	bob.Do(bus.OpInboxPending, nil, &pending)
	if len(pending.Items) != len(frames) {
		t.Errorf("%d are pending, want %d: a session should learn that there was something", len(pending.Items), len(frames))
	}
	bob.Do(bus.OpInboxSurfaced, bus.MessageIDs{IDs: ids, Via: bus.ViaChannel}, nil)

	// A good one, after them, shows that the way of receipts works.
	goodNonce, good = seal(bob.Info.Pubkey, "a good one")
	mallory.send(wire.Send{ClientMessageID: "good", TargetSpec: bob.Info.Pubkey, Nonce: goodNonce, Ciphertext: good})
	it := bob.WaitMessage("a good one")
	bob.Do(bus.OpInboxSurfaced, bus.MessageIDs{IDs: []string{it.ID}, Via: bus.ViaChannel}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	for done := false; !done; {
		select {
		case r := <-mallory.receipts:
			if r.State == wire.StateSurfaced && r.ClientMessageID != "good" {
				t.Errorf("the sender was told that %s was read", r.ClientMessageID)
			}
			done = r.State == wire.StateSurfaced && r.ClientMessageID == "good"
		case <-ctx.Done():
			t.Fatal("no receipt for the good one")
		}
	}
	for where, h := range map[string]*heard{"bob's subject": atBob, "the user's subjects": atUser} {
		for _, msg := range h.until(t, "a good one") {
			if data := string(msg.Data); strings.Contains(data, plain) || strings.Contains(data, base64Core(plain, 0)) {
				t.Errorf("%s: %s", where, data)
			}
		}
	}
	if strings.Contains(host.Log.String(), plain) {
		t.Error("the log holds the text")
	}
	t.Run("a session of the same member does not get the mail of another", func(t *testing.T) {
		carol := host.Session(team, "carol")
		for _, it := range carol.Inbox() {
			if it.ClientMessageID != "broadcast-no-base64" && it.ClientMessageID != "binary-broadcast" {
				t.Errorf("carol has %+v", it)
			}
		}
	})
}
