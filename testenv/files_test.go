package testenv_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/testenv"
	"claudemesh/wire"
)

// handOver begins a file and gives the daemon its bytes.
func handOver(m *testenv.Machine, req bus.FileBegin, data []byte) bus.FileTransfer {
	m.T.Helper()
	req.Size = int64(len(data))
	var t bus.FileTransfer
	m.Do(bus.OpFileBegin, req, &t)
	for at := 0; at < len(data); at += bus.FileChunkSize {
		m.Do(bus.OpFileChunk, bus.FileChunk{ID: t.ID, Offset: int64(at), Data: data[at:min(len(data), at+bus.FileChunkSize)]}, nil)
	}
	return t
}

func shareFile(m *testenv.Machine, req bus.FileBegin, data []byte) bus.FileShared {
	m.T.Helper()
	t := handOver(m, req, data)
	var out bus.FileShared
	m.Do(bus.OpFileCommit, t, &out)
	m.Do(bus.OpFileClose, t, nil)
	return out
}

// fetchFile opens and fetches a file; the error is that of the first request refused.
func fetchFile(m *testenv.Machine, slug, id string) ([]byte, error) {
	m.T.Helper()
	var opened bus.FileOpened
	if err := tryAs(m, bus.OpFileOpen, bus.FileOpen{Mesh: slug, FileID: id}, &opened); err != nil {
		return nil, err
	}
	t := bus.FileTransfer{ID: opened.ID}
	defer m.Do(bus.OpFileClose, t, nil)
	var fetched bus.FileFetched
	if err := tryAs(m, bus.OpFileFetch, t, &fetched); err != nil {
		return nil, err
	}
	var data []byte
	for {
		var chunk bus.FileData
		m.Do(bus.OpFileRead, bus.FileRead{ID: t.ID, Offset: int64(len(data))}, &chunk)
		if len(chunk.Data) == 0 {
			return data, nil
		}
		data = append(data, chunk.Data...)
	}
}

// tryAs asks the daemon as its user and returns the refusal.
func tryAs(m *testenv.Machine, op string, in, out any) error {
	return testenv.Try(m.User(), bus.DaemonSubject(bus.User, op), in, out)
}

// threeMachines are alice's, whose daemon hosts the mesh, bob's and carol's.
func threeMachines(t *testing.T) (alice, bob, carol *testenv.Machine, slug string) {
	t.Helper()
	alice, bob, carol = testenv.NewMachine(t, testenv.WithName("alice")), testenv.NewMachine(t), testenv.NewMachine(t)
	slug = alice.Create("team")
	invite := alice.Share(slug)
	bob.Join(invite, "bob")
	carol.Join(invite, "carol")
	for _, m := range []*testenv.Machine{alice, bob, carol} {
		m.WaitLink(slug)
	}
	return alice, bob, carol, slug
}

// inFiles reports whether any file below dir holds the text.
func inFiles(t *testing.T, dir, text string) (found string) {
	t.Helper()
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(text)) {
			found = path
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return found
}

func TestFilesGoToThoseTheyAreFor(t *testing.T) {
	alice, bob, carol, slug := threeMachines(t)
	alice.WaitPeer(slug, "bob")
	alice.WaitPeer(slug, "carol")
	secret := "the plans that only bob may read "
	data := []byte(strings.Repeat(secret, 30_000)) // several chunks, on the bus and in the store

	forBob := shareFile(alice, bus.FileBegin{Mesh: slug, Name: "plans.txt", To: "bob"}, data)
	if forBob.ToKey != bob.MemberKey(slug) || forBob.ToName != "bob" || forBob.Recipients != 2 || len(forBob.Missed) != 0 {
		t.Fatalf("%+v", forBob)
	}
	t.Run("the one named reads it, and the owner", func(t *testing.T) {
		for _, m := range []*testenv.Machine{bob, alice} {
			if got, err := fetchFile(m, slug, forBob.FileID); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		}
	})
	t.Run("a third member does not, until it is granted", func(t *testing.T) {
		if _, err := fetchFile(carol, slug, forBob.FileID); testenv.Refusal(err) != "broker_refused" || !strings.Contains(err.Error(), "not targeted at you") {
			t.Error(err)
		}
		grant := bus.FileGrant{Mesh: slug, FileID: forBob.FileID, To: "carol"}
		if err := tryAs(bob, bus.OpFileGrant, grant, nil); err == nil {
			t.Error("a recipient granted")
		}
		var granted bus.FileGranted
		alice.Do(bus.OpFileGrant, grant, &granted)
		if got, err := fetchFile(carol, slug, forBob.FileID); err != nil || !bytes.Equal(got, data) || granted.ToKey != carol.MemberKey(slug) {
			t.Errorf("%d bytes, %v, %+v", len(got), err, granted)
		}
	})
	t.Run("without a name it is for all who are members now, and for nobody who comes later", func(t *testing.T) {
		forAll := shareFile(bob, bus.FileBegin{Mesh: slug, Name: "for all.txt"}, []byte("for all"))
		if forAll.Recipients != 3 {
			t.Fatalf("%+v", forAll)
		}
		for _, m := range []*testenv.Machine{alice, carol} {
			if got, err := fetchFile(m, slug, forAll.FileID); err != nil || string(got) != "for all" {
				t.Error(string(got), err)
			}
		}
		dave := testenv.NewMachine(t)
		dave.Join(alice.Share(slug), "dave")
		dave.WaitLink(slug)
		if _, err := fetchFile(dave, slug, forAll.FileID); err == nil || !strings.Contains(err.Error(), "no decryption key") {
			t.Error(err)
		}
	})
	t.Run("the broker's disk does not hold a word of it", func(t *testing.T) {
		alice.Stop()
		if path := inFiles(t, alice.Home, secret); path != "" {
			t.Error(path)
		}
	})
}

func TestTransfersAreBoundedAndPrivate(t *testing.T) {
	m := testenv.NewMachine(t)
	slug := m.Create("team")
	m.WaitLink(slug)
	s := m.Session(slug, "s")
	begin := bus.FileBegin{Mesh: slug, Name: "x", Size: 10}
	var first bus.FileTransfer
	m.Do(bus.OpFileBegin, begin, &first)

	t.Run("bytes come in order, and no more than were announced", func(t *testing.T) {
		for _, bad := range []bus.FileChunk{{ID: first.ID, Offset: 1, Data: []byte("x")}, {ID: first.ID, Data: make([]byte, 11)}, {ID: "none", Data: []byte("x")}} {
			if err := tryAs(m, bus.OpFileChunk, bad, nil); testenv.Refusal(err) == "" {
				t.Errorf("%+v: %v", bad, err)
			}
		}
		if err := tryAs(m, bus.OpFileCommit, first, nil); testenv.Refusal(err) != "incomplete" {
			t.Error(err)
		}
		if err := tryAs(m, bus.OpFileFetch, first, nil); testenv.Refusal(err) != "wrong_way" {
			t.Error(err)
		}
	})
	t.Run("nobody else can name a transfer", func(t *testing.T) {
		for _, op := range []string{bus.OpFileChunk, bus.OpFileCommit, bus.OpFileFetch, bus.OpFileRead, bus.OpFileProgress, bus.OpFileClose} {
			if err := testenv.Try(s.Client, bus.DaemonSubject(s.Info.ID, op), first, nil); testenv.Refusal(err) != "no_transfer" {
				t.Errorf("%s: %v", op, err)
			}
		}
	})
	t.Run("an actor has four, all together eight", func(t *testing.T) {
		all := []bus.FileTransfer{first}
		for range 3 {
			var more bus.FileTransfer
			m.Do(bus.OpFileBegin, begin, &more)
			all = append(all, more)
		}
		if err := tryAs(m, bus.OpFileBegin, begin, nil); testenv.Refusal(err) != "too_many_transfers" {
			t.Error(err)
		}
		for _, one := range all {
			m.Do(bus.OpFileClose, one, nil)
		}
		if left, err := os.ReadDir(filepath.Join(m.Dir(), "transfers")); err != nil || len(left) != 0 {
			t.Error(left, err)
		}
	})
	t.Run("what an earlier daemon left is removed", func(t *testing.T) {
		m.Stop()
		dir := filepath.Join(m.Dir(), "transfers")
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "left"), []byte("x"), 0o600)); err != nil {
			t.Fatal(err)
		}
		m.Start()
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Error(left, err)
		}
	})
}

func TestSessionsNeedTheCapability(t *testing.T) {
	m := testenv.NewMachine(t)
	slug, other := m.Create("team"), m.Create("other")
	m.WaitLink(slug)
	m.WaitLink(other)
	m.Do(bus.OpVaultSet, bus.VaultSet{Mesh: slug, Key: "K", Value: []byte("v"), Type: "env"}, nil)
	m.Do(bus.OpVaultSet, bus.VaultSet{Mesh: other, Key: "K", Value: []byte("w"), Type: "env"}, nil)
	session := func(name string, onlyMesh bool, caps []string) *testenv.Session {
		return register(m, bus.SessionStart{Mesh: slug, Name: name, PID: os.Getpid(), Caps: caps, OnlyMesh: onlyMesh})
	}
	tests := []struct {
		name         string
		s            *testenv.Session
		vault, files bool
		elsewhere    bool
	}{
		{"without a limit", session("free", false, nil), true, true, true},
		{"of one mesh", session("bound", true, nil), true, true, false},
		{"with other capabilities", session("dm", false, []string{mesh.CapDM}), false, false, false},
		{"with vault", session("vault", false, []string{mesh.CapVault}), true, false, true},
		{"with files", session("files", false, []string{mesh.CapFiles}), false, true, false},
	}
	for _, tt := range tests {
		t.Run("a session "+tt.name, func(t *testing.T) {
			check := func(op string, in any, want bool) {
				t.Helper()
				err := testenv.Try(tt.s.Client, bus.DaemonSubject(tt.s.Info.ID, op), in, nil)
				refusal := testenv.Refusal(err)
				if allowed := refusal != "capability_missing" && refusal != "only_mesh"; allowed != want {
					t.Errorf("%s: %v", op, err)
				}
			}
			check(bus.OpVaultGet, bus.VaultGet{Mesh: slug, Key: "K"}, tt.vault)
			check(bus.OpVaultSet, bus.VaultSet{Mesh: slug, Key: "K", Value: []byte("v"), Type: "env"}, tt.vault)
			check(bus.OpVaultGet, bus.VaultGet{Mesh: other, Key: "K"}, tt.elsewhere)
			check(bus.OpFileBegin, bus.FileBegin{Mesh: slug, Name: "x"}, tt.files)
			check(bus.OpFileOpen, bus.FileOpen{Mesh: slug, FileID: "none"}, tt.files)
			check(bus.OpFileGrant, bus.FileGrant{Mesh: slug, FileID: "none", To: "free"}, tt.files)
		})
	}
}

// A line that breaks in the middle of an upload leaves nothing on the broker; the same file goes through the next time.
func TestAnUploadThatIsCut(t *testing.T) {
	cut := &cutter{}
	host, far := testenv.NewMachine(t), testenv.NewMachine(t, testenv.WithDial(cut.dial))
	slug := host.Create("team")
	far.Join(host.Share(slug), "far")
	far.WaitLink(slug)
	data := make([]byte, 3<<20)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	transfer := handOver(far, bus.FileBegin{Mesh: slug, Name: "big"}, data)
	cut.after.Store(1 << 20)
	if err := tryAs(far, bus.OpFileCommit, transfer, nil); testenv.Refusal(err) != "transfer_failed" {
		t.Fatal(err)
	}
	cut.after.Store(0)
	var list wire.FileList
	do := func(out any) {
		t.Helper()
		if err := testenv.Try(host.User(), bus.CallSubject(slug, bus.User, bus.CallListFiles), nil, out); err != nil {
			t.Fatal(err)
		}
	}
	if do(&list); len(list.Files) != 0 {
		t.Errorf("%+v", list.Files)
	}
	var out bus.FileShared
	far.Do(bus.OpFileCommit, transfer, &out)
	if got, err := fetchFile(host, slug, out.FileID); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if do(&list); len(list.Files) != 1 {
		t.Errorf("%+v", list.Files)
	}
}

// cutter breaks connections made while after is set, when so many bytes were written.
type cutter struct{ after atomic.Int64 }

func (c *cutter) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if limit := c.after.Load(); err == nil && limit > 0 {
		return &cutConn{Conn: conn, left: limit}, nil
	}
	return conn, err
}

type cutConn struct {
	net.Conn
	left int64
}

func (c *cutConn) Write(p []byte) (int, error) {
	if c.left -= int64(len(p)); c.left < 0 {
		c.Conn.Close()
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

func TestAVaultIsReadByItsMemberOnly(t *testing.T) {
	host, far := testenv.NewMachine(t), testenv.NewMachine(t)
	slug := host.Create("team")
	far.Join(host.Share(slug), "far")
	far.WaitLink(slug)
	tapped := listen(t, far.User(), "mesh.>")
	far.Do(bus.OpVaultSet, bus.VaultSet{Mesh: slug, Key: "K", Value: []byte(vaultSecret), Type: "env"}, nil)
	var got bus.VaultValue
	far.Do(bus.OpVaultGet, bus.VaultGet{Mesh: slug, Key: "K"}, &got)
	if string(got.Value) != vaultSecret || got.Type != "env" || got.Readable {
		t.Errorf("%+v", got)
	}
	if err := tryAs(host, bus.OpVaultGet, bus.VaultGet{Mesh: slug, Key: "K"}, nil); testenv.Refusal(err) != "no_entry" {
		t.Error(err)
	}
	far.Send(slug, bus.SendRequest{To: "*", Body: "the end"})
	for _, msg := range tapped.until(t, "the end") {
		if bytes.Contains(msg.Data, []byte("correct")) {
			t.Errorf("%s: %s", msg.Subject, msg.Data)
		}
	}
	t.Run("an entry that the broker swapped does not open", func(t *testing.T) {
		fields := map[string]any{"key": "K", "ciphertext": "AAAA", "nonce": strings.Repeat("A", 32), "sealed_key": strings.Repeat("A", 107) + "=", "entry_type": "env"}
		if err := testenv.Try(far.User(), bus.CallSubject(slug, bus.User, wire.TypeVaultSet), fields, nil); err != nil {
			t.Fatal(err)
		}
		if err := tryAs(far, bus.OpVaultGet, bus.VaultGet{Mesh: slug, Key: "K"}, nil); testenv.Refusal(err) != "undecryptable" {
			t.Error(err)
		}
	})
	host.Stop()
	far.Stop()
	for _, m := range []*testenv.Machine{host, far} {
		for _, text := range []string{vaultSecret, "correct-horse"} {
			if path := inFiles(t, m.Home, text); path != "" {
				t.Error(path)
			}
		}
	}
}
