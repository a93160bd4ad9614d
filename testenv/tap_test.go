package testenv_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/bus"
	"claudemesh/daemon"
	"claudemesh/testenv"
)

func openTap(m *testenv.Machine) (bus.Tap, string) {
	m.T.Helper()
	var tap bus.Tap
	m.Do(bus.OpTap, bus.TapRequest{}, &tap)
	return tap, tokenIn(m.T, tap.TokenFile)
}

// stuckTap connects with a tap's token, subscribes to everything, and never reads again.
func stuckTap(m *testenv.Machine) net.Conn {
	m.T.Helper()
	tap, token := openTap(m)
	c, err := net.Dial("tcp", strings.TrimPrefix(tap.URL, "nats://"))
	if err != nil {
		m.T.Fatal(err)
	}
	m.T.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(testenv.Patience))
	if _, err := io.WriteString(c, `CONNECT {"verbose":false,"pedantic":false,"protocol":1,"auth_token":"`+token+`"}`+"\r\nSUB > 1\r\nPING\r\n"); err != nil {
		m.T.Fatal(err)
	}
	for r := bufio.NewReader(c); ; {
		line, err := r.ReadString('\n')
		if err != nil || strings.HasPrefix(line, "-ERR") {
			m.T.Fatalf("the tap was not let in: %q, %v", line, err)
		}
		if line == "PONG\r\n" {
			return c
		}
	}
}

func TestAStuckTapStopsNobody(t *testing.T) {
	m := testenv.NewMachine(t)
	team := m.Create("team")
	bob := m.Session(team, "bob")
	m.WaitPeer(team, "bob")
	atBob := listen(t, bob.Client, bus.SessionMsgSubject(team, bob.Info.ID))
	taps := []net.Conn{stuckTap(m), stuckTap(m), stuckTap(m)}

	// Each message is heard by a tap as request, as message and as three receipts: the server's buffers for the stuck ones, and the system's, are full
	// long before the end.
	const clients, each = 8, 250
	text := strings.Repeat("x", 8<<10)
	var wg sync.WaitGroup
	for n := range clients {
		wg.Go(func() {
			for i := range each {
				if _, err := m.TrySend(team, bus.SendRequest{To: "bob", Body: fmt.Sprintf("%d-%d %s", n, i, text)}); err != nil {
					t.Errorf("send %d of client %d: %v", i, n, err)
					return
				}
				if err := testenv.Try(bob.Client, bus.DaemonSubject(bob.Info.ID, bus.OpVersion), nil, nil); err != nil {
					t.Errorf("request %d of client %d: %v", i, n, err)
					return
				}
			}
		})
	}
	wg.Wait()
	end := time.NewTimer(testenv.Patience)
	defer end.Stop()
	for n := range clients * each {
		select {
		case <-atBob.ch:
		case <-end.C:
			t.Fatalf("only %d of %d messages came", n, clients*each)
		}
	}
	// The server let the taps go; nothing waits for them.
	for _, c := range taps {
		_ = c.SetDeadline(time.Now().Add(testenv.Patience))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a stuck tap is still served")
		}
	}
}

func TestARevokedTapIsCut(t *testing.T) {
	m := testenv.NewMachine(t)
	team := m.Create("team")
	tap, token := openTap(m)
	rawConn(m, token, tap.InboxPrefix)
	if again, same := openTap(m); again != tap || same != token {
		t.Errorf("asked again: %+v", again)
	}
	m.Stop()
	m.Start()
	live := rawConn(m, token, tap.InboxPrefix) // a restart keeps it
	m.Do(bus.OpTap, bus.TapRequest{Revoke: true}, nil)
	live.cut()
	if _, err := nats.Connect(status(m).TCPURL, nats.Token(token)); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("reconnect: %v", err)
	}
	if _, err := os.Stat(tap.TokenFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("token file: %v", err)
	}
	m.Do(bus.OpTap, bus.TapRequest{Revoke: true}, nil) // once more is no error
	if _, fresh := openTap(m); fresh == token {
		t.Error("the revoked token was handed out again")
	}
	m.WaitLink(team)
}

func TestTapsAskedForAtOnceGetOneToken(t *testing.T) {
	m := testenv.NewMachine(t)
	m.User()
	for range 10 {
		var wg sync.WaitGroup
		tokens := make([]string, 16)
		for i := range tokens {
			wg.Go(func() {
				var tap bus.Tap
				if err := testenv.Try(m.User(), bus.DaemonSubject(bus.User, bus.OpTap), bus.TapRequest{}, &tap); err != nil {
					t.Error(err)
					return
				}
				token, err := os.ReadFile(tap.TokenFile)
				if err != nil {
					t.Error(err)
				}
				tokens[i] = strings.TrimSpace(string(token))
			})
		}
		wg.Wait()
		m.Do(bus.OpTap, bus.TapRequest{Revoke: true}, nil)
		for _, token := range tokens {
			if token != tokens[0] {
				t.Fatal("two tokens were handed out: the revocation reaches one of them")
			}
		}
	}
}

func TestATapOnlyReads(t *testing.T) {
	m := testenv.NewMachine(t)
	team := m.Create("team")
	openTap(m)
	m.Stop()
	m.Start() // a tap that is resumed has the same rights as a new one
	bob := m.Session(team, "bob")
	m.WaitPeer(team, "bob")
	atBob, atUser := listen(t, bob.Client, bus.SessionMsgSubject(team, bob.Info.ID)), listen(t, m.User(), "mesh.>")
	info, token := openTap(m)
	tap := rawConn(m, token, info.InboxPrefix)
	all, err := tap.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	if err := tap.Flush(); err != nil {
		t.Fatal(err)
	}
	m.Send(team, bus.SendRequest{To: "bob", Body: "the first one"})
	bob.WaitMessage("the first one")
	atBob.until(t, "the first one")
	atUser.until(t, `"to":"bob"`)

	t.Run("it hears requests and messages", func(t *testing.T) {
		want := map[string]bool{bus.SendSubject(team, bus.User, "dm"): true, bus.SessionMsgSubject(team, bob.Info.ID): true}
		for len(want) > 0 {
			msg, err := all.NextMsg(testenv.Patience)
			if err != nil {
				t.Fatalf("%v; still waiting for %v", err, want)
			}
			delete(want, msg.Subject)
		}
	})
	t.Run("it publishes nothing", func(t *testing.T) {
		forged := encode(t, bus.SendRequest{To: "bob", Body: "forged"})
		for _, subject := range []string{
			bus.SendSubject(team, bus.User, "dm"), bus.SendSubject(team, bob.Info.ID, "dm"), bus.SendSubject(team, "tap", "dm"), bus.CallSubject(team, "tap", bus.CallListPeers),
			bus.SessionMsgSubject(team, bob.Info.ID), bus.EventSubject(team, "system"), bus.DaemonSubject(bus.User, bus.OpShutdown), bus.DaemonSubject("tap", bus.OpStatus),
			bus.InboxPrefix(bus.User) + ".x", "$JS.API.STREAM.PURGE.MESSAGES", "$JS.API.STREAM.DELETE.MESSAGES", "$JS.API.CONSUMER.CREATE.MESSAGES", "$SYS.REQ.USER.INFO",
		} {
			tap.refusedAt(subject, info.InboxPrefix+".x", forged)
		}
	})
	t.Run("it aims no answer at a session", func(t *testing.T) {
		victim := bus.SessionMsgSubject(team, bob.Info.ID)
		for subject, body := range map[string]string{
			"$JS.API.INFO": "", "$JS.API.STREAM.NAMES": "", "$JS.API.STREAM.LIST": "", "$JS.API.STREAM.INFO.MESSAGES": "", "$JS.API.STREAM.MSG.GET.MESSAGES": `{"seq":1}`,
			"$JS.API.DIRECT.GET.MESSAGES": `{"seq":1}`, "$SRV.PING": "", "$SRV.INFO": "", "$SRV.STATS": "", "$SRV.INFO.claudemesh": "",
		} {
			for _, reply := range []string{victim, bus.AllMsgSubject(team), bus.SendSubject(team, bus.User, "all"), bus.DaemonSubject(bus.User, bus.OpShutdown)} {
				if err := tap.PublishRequest(subject, reply, []byte(body)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := tap.Request(subject, []byte(body), testenv.Patience); err != nil {
				t.Errorf("%s: %v", subject, err)
			}
		}
	})
	m.Send(team, bus.SendRequest{To: "bob", Body: "the last one"})
	bob.WaitMessage("the last one")
	if before := atBob.until(t, "the last one"); len(before) != 0 {
		t.Errorf("bob heard %s", before[0].Data)
	}
	for _, msg := range atUser.until(t, `"body":"the last one"`) {
		s, err := bus.ParseSubject(msg.Subject)
		if err != nil || s.Kind != bus.KindReceipt && s.Kind != bus.KindEvent && !(s.Kind == bus.KindSend && strings.Contains(string(msg.Data), "the last one")) &&
			!(s.Kind == bus.KindCall && len(msg.Data) == 0) && !strings.Contains(string(msg.Data), "the first one") {
			t.Errorf("on %s: %s", msg.Subject, msg.Data)
		}
	}
	if items := bob.Inbox(); len(items) != 2 {
		t.Errorf("bob has %+v", items)
	}
	js, err := jetstream.New(tap.Conn)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), bus.StreamMessages)
	if err != nil {
		t.Fatal(err)
	}
	// The daemon does not wait for the stream; what it publishes there comes a moment later.
	for end := time.Now().Add(testenv.Patience); ; {
		info, err := stream.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n := info.State.LastSeq; n == 2 {
			break
		} else if n > 2 || time.Now().After(end) {
			t.Fatalf("the stream has had %d messages, want 2", n)
		}
	}
}

func TestWithoutTheTCPDoorThereIsNoTap(t *testing.T) {
	m := testenv.NewMachine(t, func(o *daemon.Options) { o.NoTCP = true })
	refusal(t, testenv.Try(m.User(), bus.DaemonSubject(bus.User, bus.OpTap), bus.TapRequest{}, nil), 409, "tcp_closed")
	if s := status(m); s.TCPURL != "" {
		t.Errorf("status names %s", s.TCPURL)
	}
}
