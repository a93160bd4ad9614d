package testenv_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"claudemesh/bus"
	"claudemesh/daemon"
	"claudemesh/daemon/outbox"
	"claudemesh/daemon/session"
	"claudemesh/mesh"
	"claudemesh/testenv"
)

// damages are ways a database file is lost.
var damages = map[string]func([]byte) []byte{
	"its header is gone":    func(b []byte) []byte { return append(bytes.Repeat([]byte{0}, 100), b[100:]...) },
	"it is another file":    func([]byte) []byte { return []byte(strings.Repeat("not a database at all\n", 400)) },
	"its pages are mangled": func(b []byte) []byte { return append(b[:4096:4096], bytes.Repeat([]byte{0x5a}, len(b)-4096)...) },
	"it is cut in the middle": func(b []byte) []byte {
		return b[:len(b)/2+7]
	},
}

// damaged is a stopped machine with a message in every store, and the content of one of its files after the damage.
func damaged(t *testing.T, file string, damage func([]byte) []byte) (m *testenv.Machine, team, path string, content []byte) {
	t.Helper()
	m = testenv.NewMachine(t)
	team = m.Create("team")
	bob := m.Session(team, "bob")
	m.WaitPeer(team, "bob")
	m.Send(team, bus.SendRequest{To: "bob", Body: "from before"})
	bob.WaitMessage("from before")
	m.Stop()
	path = filepath.Join(m.Dir(), file)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content = damage(b)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return m, team, path, content
}

// startFails starts a daemon in a machine's HOME, which must not work, and returns why.
func startFails(t *testing.T, m *testenv.Machine) error {
	t.Helper()
	d, err := daemon.Start(t.Context(), daemon.Options{Dir: m.Dir(), ConfigDir: filepath.Join(m.Home, ".claudemesh"), Version: "0.0.0-test", Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		t.Error("it started")
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	}
	return err
}

func unchanged(t *testing.T, path string, content []byte) {
	t.Helper()
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, content) {
		t.Errorf("%s was changed: %d bytes, before %d, %v", filepath.Base(path), len(b), len(content), err)
	}
}

func TestADamagedStoreOfWhatIsOursStopsTheStartAndIsKept(t *testing.T) {
	for file, want := range map[string]error{"outbox.db": outbox.ErrCorrupt, "sessions.db": session.ErrCorrupt} {
		for what, damage := range damages {
			t.Run(file+": "+what, func(t *testing.T) {
				m, _, path, content := damaged(t, file, damage)
				for range 2 { // the second attempt finds the file as the first one did
					if err := startFails(t, m); !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
						t.Errorf("error is %v, want %v with the path", err, want)
					}
					unchanged(t, path, content)
				}
				if bus.Held(m.Dir()) {
					t.Error("the lock is still held")
				}
				if err := os.Rename(path, path+".aside"); err != nil {
					t.Fatal(err)
				}
				m.Start() // what the user does about it works
			})
		}
	}
}

func TestADamagedConfigStopsTheStartAndIsKept(t *testing.T) {
	for what, text := range map[string]string{
		"cut": `{"version":1,"meshes":[{"mesh`, "no list": `{"version":1,"meshes":"none"}`, "no object": `[]`, "binary": "\x00\x01\x02", "another version": `{"version":99,"meshes":[]}`,
	} {
		t.Run(what, func(t *testing.T) {
			m := testenv.NewMachine(t)
			m.Create("team")
			m.Stop()
			path := filepath.Join(m.Home, ".claudemesh", "config.json")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := startFails(t, m); !errors.Is(err, mesh.ErrConfigCorrupt) {
				t.Errorf("error is %v", err)
			}
			unchanged(t, path, []byte(text))
		})
	}
}

func TestADamagedInboxIsSetAsideAndTheUserIsTold(t *testing.T) {
	for what, damage := range damages {
		t.Run(what, func(t *testing.T) {
			m, team, path, content := damaged(t, "inbox.db", damage)
			m.Start()
			kept, err := filepath.Glob(path + ".corrupt-*[0-9]")
			if err != nil || len(kept) != 1 {
				t.Fatalf("files set aside: %q, %v", kept, err)
			}
			unchanged(t, kept[0], content)
			told := false
			for _, n := range status(m).Notices {
				told = told || strings.Contains(n, kept[0])
			}
			if !told {
				t.Errorf("notices: %q", status(m).Notices)
			}
			bob := m.Session(team, "bob2")
			m.WaitPeer(team, "bob2")
			m.Send(team, bus.SendRequest{To: "bob2", Body: "after it"})
			bob.WaitMessage("after it")
		})
	}
}
