//go:build unix

package bus

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestTheSocketIsPrivate(t *testing.T) {
	s := startBus(t, nil)
	for path, want := range map[string]fs.FileMode{s.cfg.Dir: 0o700, s.Socket(): 0o600} {
		info, err := os.Stat(path)
		must(t, err)
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
	}
}

func TestAForeignUserIsRefused(t *testing.T) {
	t.Run("by the user id that the system tells", func(t *testing.T) {
		for name, peer := range map[string]func(net.Conn) (int, error){
			"another user":                func(net.Conn) (int, error) { return os.Geteuid() + 1, nil },
			"a user that nobody can tell": func(net.Conn) (int, error) { return os.Geteuid(), errors.New("no answer") },
		} {
			t.Run(name, func(t *testing.T) {
				log := &lines{}
				s := startBus(t, func(c *ServerConfig) { c.PeerUID, c.Log = peer, log.logger() })
				c, err := net.Dial("unix", s.Socket())
				must(t, err)
				defer c.Close()
				if got, _ := io.ReadAll(c); len(got) != 0 {
					t.Errorf("read %q", got)
				}
				_, err = Connect(ctxOf(t), ClientConfig{Dir: s.cfg.Dir, Token: grant(t, s, Grant{Role: RoleUser}), Actor: User})
				if err == nil {
					t.Error("a good token opened the door")
				}
				if !strings.Contains(log.String(), "connection refused") {
					t.Error("the log does not tell")
				}
			})
		}
	})
	t.Run("also when the file's mode would let it through", func(t *testing.T) {
		if os.Getuid() != 0 {
			t.Skip("only root can run a process of another user")
		}
		s := startBus(t, nil)
		must(t, os.Chmod(s.cfg.Dir, 0o755))
		must(t, os.Chmod(s.Socket(), 0o666))
		exe, err := os.Executable()
		must(t, err)
		// The test binary lies in a directory that is private to root.
		bin := filepath.Join(s.cfg.Dir, "stranger")
		b, err := os.ReadFile(exe)
		must(t, err)
		must(t, os.WriteFile(bin, b, 0o755))
		must(t, os.Chmod(bin, 0o755))
		run := func(uid uint32) string {
			cmd := exec.CommandContext(ctxOf(t), bin)
			cmd.Dir = "/"
			cmd.Env = []string{foreignEnv + "=" + s.Socket()}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			return strings.TrimSpace(string(out))
		}
		if got := run(65534); got != "uid 65534 read 0 bytes: <nil>" {
			t.Errorf("the stranger says: %s", got)
		}
		// The owner's own child is greeted by the server, and cut for its silence: the test would notice a door that greets nobody.
		if got := run(0); strings.Contains(got, " read 0 bytes") {
			t.Errorf("the owner says: %s", got)
		}
	})
}

func TestOpeningTheSocket(t *testing.T) {
	t.Run("a path that is too long names the way out", func(t *testing.T) {
		_, err := StartServer(ServerConfig{Dir: filepath.Join(shortDir(t), strings.Repeat("d", 100))})
		if err == nil || !strings.Contains(err.Error(), "CLAUDEMESH_DAEMON_DIR") {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("the socket of a daemon that was killed is replaced", func(t *testing.T) {
		dir := shortDir(t)
		ln, err := net.Listen("unix", filepath.Join(dir, socketFile))
		must(t, err)
		ln.(*net.UnixListener).SetUnlinkOnClose(false)
		must(t, ln.Close())
		s := startBus(t, func(c *ServerConfig) { c.Dir = dir })
		userClient(t, s)
	})
	t.Run("a file of another kind is left alone", func(t *testing.T) {
		dir := shortDir(t)
		path := filepath.Join(dir, socketFile)
		must(t, os.WriteFile(path, []byte("mine"), 0o600))
		if _, err := StartServer(ServerConfig{Dir: dir}); err == nil {
			t.Error("started")
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
			t.Errorf("file is %q, %v", b, err)
		}
	})
}

func TestTheSocketsConnectionsAreBounded(t *testing.T) {
	s := startBus(t, nil)
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	token := grant(t, s, Grant{Role: RoleUser})
	for range maxDoorConns {
		c, err := net.Dial("unix", s.Socket())
		must(t, err)
		open = append(open, c)
		_, err = c.Write([]byte(`CONNECT {"verbose":false,"auth_token":"` + token + `"}` + "\r\nPING\r\n"))
		must(t, err)
		readUntil(t, c, "PONG\r\n")
	}
	c, err := net.Dial("unix", s.Socket())
	must(t, err)
	defer c.Close()
	if got, _ := io.ReadAll(c); len(got) != 0 {
		t.Errorf("one too many was greeted with %q", got)
	}
	if _, err := s.BusConn(); err != nil {
		t.Errorf("the daemon itself finds no room: %v", err)
	}
	open[0].Close()
	for { // the place of the one that left is free as soon as its copying has ended
		c, err := Connect(ctxOf(t), ClientConfig{Dir: s.cfg.Dir, Token: token, Actor: User, Timeout: 20 * time.Second})
		if err == nil {
			c.Close()
			break
		}
		if ctxOf(t).Err() != nil {
			t.Fatal(err)
		}
	}
}

// garbage is what a confused or hostile program might write.
var garbage = []string{
	"", "\r\n", "\x00\x00\x00\x00", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "PING\r\n", "PONG\r\n", "PUB x 5\r\nhello\r\n",
	"CONNECT\r\n", "CONNECT {\r\n", "CONNECT null\r\nPING\r\n", "CONNECT []\r\n", `CONNECT {"auth_token":1}` + "\r\n", `CONNECT {"auth_token":"x"}` + "\r\nSUB > 1\r\n",
	`CONNECT {"auth_token":"` + strings.Repeat("x", 5000) + `"}` + "\r\n", "CONNECT {\"auth_token\":\"\xff\xfe\"}\r\n", strings.Repeat("A", 10_000), strings.Repeat("PING\r\n", 1000),
	"SUB\r\n", "UNSUB\r\n", "MSG a 1 1\r\n\r\n", "INFO {}\r\n", "+OK\r\n-ERR 'x'\r\n", "RS+ a b\r\n", "LS+ a\r\n", "HPUB x 12 12\r\n", "PUB x 99999999999999999999\r\n", "PUB x -1\r\n",
	"CONNECT " + strings.Repeat(`{"a":`, 2000),
}

// authorized is the same behind a good token.
var authorized = []string{
	"PUB daemon.user.x 99999999999\r\n", "PUB daemon.user.x -1\r\n\r\n", "PUB daemon.user.x 3\r\nabcdef\r\n", "HPUB daemon.user.x r 2 1\r\nab\r\n", "HPUB daemon.user.x _INBOX.user.a 12 14\r\nNATS/1.0\r\n\r\nhi\r\n",
	"HPUB daemon.user.x _INBOX.user.a 8 8\r\nGARBAGE!\r\n", "SUB\r\n", "SUB mesh.> q 1 2 3\r\n", "SUB .. 1\r\n", "UNSUB 99\r\n", "CONNECT {}\r\n", "PUB  0\r\n\r\n", "PUB daemon.user.> 0\r\n\r\n",
	"PUB daemon.user.\xff\xfe _INBOX.user.x 0\r\n\r\n", "SUB mesh.\x00.> 1\r\n", strings.Repeat("SUB mesh.> 1\r\n", 500), "RMSG x y 1\r\na\r\n", "A\r\n", strings.Repeat("Z", 5000),
}

func TestGarbageEndsNothing(t *testing.T) {
	s := startBus(t, nil)
	must(t, service(t, s).Handle("daemon", AnyDaemon, 1<<10, echo))
	token := grant(t, s, Grant{Role: RoleUser})
	for door, dial := range doors(s) {
		t.Run(door, func(t *testing.T) {
			for _, g := range garbage {
				poke(t, dial, g)
			}
			for _, g := range authorized {
				poke(t, dial, `CONNECT {"verbose":false,"auth_token":"`+token+`"}`+"\r\n"+g)
			}
			must(t, userClient(t, s).Do(ctxOf(t), DaemonSubject(User, "x"), nil, nil))
		})
	}
}

func doors(s *Server) map[string]func() (net.Conn, error) {
	return map[string]func() (net.Conn, error){
		"the socket": func() (net.Conn, error) { return net.Dial("unix", s.Socket()) },
		"TCP":        func() (net.Conn, error) { return net.Dial("tcp", s.ns.Addr().String()) },
	}
}

// poke writes bytes and closes its side; what the server says to it is of no interest, only that it comes to an end.
func poke(t *testing.T, dial func() (net.Conn, error), bytes string) {
	t.Helper()
	c, err := dial()
	must(t, err)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, bytes); err == nil {
		_ = c.(interface{ CloseWrite() error }).CloseWrite()
	}
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the server still talks to %.40q", bytes)
	}
}

func FuzzDoor(f *testing.F) {
	s, err := StartServer(ServerConfig{Dir: mustDir(f), TCP: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.stop() })
	const token = "fuzz"
	if err := s.Grants().Add(HashToken(token), Grant{Role: RoleUser}); err != nil {
		f.Fatal(err)
	}
	for _, g := range garbage {
		f.Add(g, false)
	}
	for _, g := range authorized {
		f.Add(g, true)
	}
	f.Fuzz(func(t *testing.T, bytes string, known bool) {
		if len(bytes) > 64<<10 {
			t.Skip("longer than what is of interest")
		}
		if known {
			bytes = `CONNECT {"verbose":false,"auth_token":"` + token + `"}` + "\r\n" + bytes
		}
		for _, dial := range doors(s) {
			poke(t, dial, bytes)
		}
	})
}

func mustDir(f *testing.F) string {
	dir, err := os.MkdirTemp("", "cm")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
