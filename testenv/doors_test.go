package testenv_test

import (
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"claudemesh/bus"
	"claudemesh/testenv"
)

func TestNothingAtADoorEndsTheDaemon(t *testing.T) {
	m := testenv.NewMachine(t)
	team := m.Create("team")
	bob := m.Session(team, "bob")
	m.WaitPeer(team, "bob")
	s := status(m)
	doors := map[string]func() (net.Conn, error){
		"the socket":      func() (net.Conn, error) { return net.Dial("unix", s.Socket) },
		"the TCP door":    func() (net.Conn, error) { return net.Dial("tcp", strings.TrimPrefix(s.TCPURL, "nats://")) },
		"the HTTP socket": func() (net.Conn, error) { return net.Dial("unix", s.HTTPSocket) },
		"the HTTP port":   func() (net.Conn, error) { return net.Dial("tcp", strings.TrimPrefix(s.HTTPURL, "http://")) },
		"the broker's port": func() (net.Conn, error) {
			return net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(s.Broker.URL, "ws://"), "/ws"))
		},
	}
	random := mrand.New(mrand.NewPCG(1, 2))
	noise := make([]byte, 64<<10)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	upgrade := "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	connect := `CONNECT {"verbose":false,"auth_token":"` + userToken(m) + `"}` + "\r\n"
	garbage := []string{
		"", "\r\n", "\x00", string(noise), strings.Repeat("A", 1<<20), strings.Repeat("\r\n", 10000), "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /%zz HTTP/1.1\r\n\r\n", "GET // HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /join HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n{", "POST /join HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]", "POST /cli/mesh/create HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nnull",
		"GET /ws HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-A: b\r\n", 20000) + "\r\n", upgrade, upgrade + string(noise[:4096]), upgrade + "\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff....", upgrade + "\x88\x80....",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "CONNECT {}\r\nPING\r\n", "CONNECT {\r\n", "CONNECT " + strings.Repeat("{", 100000) + "\r\n", "PUB x 99999999999\r\n", "SUB > 1\r\n", "INFO {}\r\n",
		connect + "PUB x -1\r\n", connect + "PUB mesh.team.user.send.dm 5\r\nhello\r\n", connect + "PUB mesh.team.user.send.dm _INBOX.user.x 2\r\n{}\r\n", connect + "HPUB daemon.user.status _INBOX.user.x 99 4\r\nx",
		connect + "SUB " + strings.Repeat("a.", 50000) + "b 1\r\n", connect + "UNSUB 999\r\nPONG\r\nPONG\r\n", connect + string(noise), connect + connect, connect + "PUB daemon.user.version " + strings.Repeat("r", 5000) + " 0\r\n\r\n",
	}
	i := 0
	for door, dial := range doors {
		t.Run(door, func(t *testing.T) {
			var wg sync.WaitGroup
			for _, g := range garbage {
				wg.Go(func() {
					c, err := dial()
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close()
					_ = c.SetDeadline(time.Now().Add(testenv.Patience))
					if _, err := io.WriteString(c, g); err == nil {
						_ = c.(interface{ CloseWrite() error }).CloseWrite()
					}
					_, _ = io.Copy(io.Discard, io.LimitReader(c, 1<<20)) // whatever it answers; it ends
				})
			}
			// Connections that say nothing, and go without a word.
			for range 50 {
				c, err := dial()
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
			}
			visitor := m.Session(team, fmt.Sprint("visitor-", i)) // the doors still open to those who have a key
			if err := testenv.Try(visitor.Client, bus.DaemonSubject(visitor.Info.ID, bus.OpVersion), nil, nil); err != nil {
				t.Error(err)
			}
			i++
			m.Send(team, bus.SendRequest{To: "bob", Body: "meanwhile at " + door})
			bob.WaitMessage("meanwhile at " + door)
			wg.Wait()
		})
	}
	carol := m.Session(team, "carol") // a new connection at the socket, a new link at the broker
	m.WaitPeer(team, "carol")
	m.Send(team, bus.SendRequest{To: "carol", Body: "after all of it"})
	carol.WaitMessage("after all of it")
	if s := status(m); s.PID == 0 || len(s.Meshes) != 1 || s.Meshes[0].Link != "open" {
		t.Errorf("status: %+v", s)
	}
	if items := bob.Inbox(); len(items) != len(doors) {
		t.Errorf("bob has %d messages, want %d", len(items), len(doors))
	}
	if strings.Contains(m.Log.String(), userToken(m)) {
		t.Error("the log holds the token that came with the garbage")
	}
}
