package testenv_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"claudemesh/mesh"
	"claudemesh/testenv"
	"claudemesh/testenv/crowd"
	"claudemesh/wire"
)

// What clients below the protocol do to a broker process: garbage, too much, nothing at all, the same over and over, half a goodbye. A pair of honest
// clients talks all the time, a third one comes and goes, and the broker's size stays within bounds.

const (
	honestTrips = 50 // round trips of the honest pair beside each kind of attack
	// mayGrow is what a broker may grow by under all of it, in MB; with the race detector in it, a process is several times as large.
	mayGrow = 200 * raceFactor
)

func TestHostileClientsHurtOnlyThemselves(t *testing.T) {
	b := testenv.NewBrokerProcess(t)
	m, err := crowdOf(t, b).NewMesh(t.Context(), "besieged")
	if err != nil {
		t.Fatal(err)
	}
	members, err := m.Enrol(t.Context(), 8)
	if err != nil {
		t.Fatal(err)
	}
	s := &siege{broker: b, mesh: m, alice: m.Owner, bob: members[0], carol: members[1], hostile: members[2], lazy: members[3:]}
	s.quiet(t) // the first round is not measured: it fills caches
	before, err := residentMB(b.PID())
	if err != nil {
		t.Logf("the size of the broker is not known here: %v", err)
	}
	for _, attack := range []struct {
		name string
		run  func(ctx context.Context, t *testing.T)
	}{
		{"that send garbage", s.garbage},
		{"that send too much at once", s.oversize},
		{"that never say hello", s.silence},
		{"that flood with hellos", s.helloFlood},
		{"that do not read", s.deaf},
		{"that close half", s.halfClosed},
		{"that dribble a request", s.dribble},
	} {
		t.Run("clients "+attack.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() { attack.run(ctx, t) })
			s.quiet(t)
			cancel()
			wg.Wait()
		})
	}
	t.Run("and the broker keeps its size", func(t *testing.T) {
		after, err := residentMB(b.PID())
		if err != nil {
			t.Skip(err)
		}
		t.Logf("resident: %d MB before, %d MB after", before, after)
		if after > before+mayGrow {
			t.Errorf("grew from %d to %d MB", before, after)
		}
	})
}

// siege is a broker with honest members and the keys of the others.
type siege struct {
	broker            *testenv.BrokerProcess
	mesh              *crowd.Mesh
	alice, bob, carol crowd.Member
	hostile           crowd.Member
	lazy              []crowd.Member
	serial            atomic.Int64
}

// quiet lets the honest pair talk: alice to bob, who answers, while carol connects and leaves. Nothing of it may fail.
func (s *siege) quiet(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*testenv.Patience)
	defer cancel()
	back := make(chan string, 1)
	alice, err := s.join(ctx, s.alice, func(c *crowd.Client, p wire.Push) { back <- p.ClientMessageID })
	if err != nil {
		t.Fatalf("alice cannot connect: %v", err)
	}
	defer alice.Close()
	bob, err := s.join(ctx, s.bob, func(c *crowd.Client, p wire.Push) {
		_ = c.Write(crowd.Send("re-"+p.ClientMessageID, s.alice.PublicKey(), "yes")) // the wait below notices
	})
	if err != nil {
		t.Fatalf("bob cannot connect: %v", err)
	}
	defer bob.Close()
	for i := range honestTrips {
		if i%25 == 0 {
			carol, err := s.join(ctx, s.carol, func(*crowd.Client, wire.Push) {})
			if err != nil {
				t.Fatalf("carol cannot connect: %v", err)
			}
			carol.Close()
		}
		id := fmt.Sprint("trip-", s.serial.Add(1))
		if err := alice.Write(crowd.Send(id, s.bob.PublicKey(), "are you there?")); err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-back:
			if got != "re-"+id {
				t.Fatalf("answer %s to %s", got, id)
			}
		case <-alice.Done():
			t.Fatalf("alice was cut off: %v", alice.Err())
		case <-bob.Done():
			t.Fatalf("bob was cut off: %v", bob.Err())
		case <-ctx.Done():
			t.Fatalf("no answer to %s", id)
		}
	}
}

// join connects an honest member, as often as it takes: a crowd at the door may cost an attempt, never the entrance.
func (s *siege) join(ctx context.Context, who crowd.Member, on func(*crowd.Client, wire.Push)) (*crowd.Client, error) {
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		c, err := s.mesh.Join(ctx, who, func(c *crowd.Client, frameType string, data []byte) {
			var p wire.Push
			if frameType == wire.TypePush && json.Unmarshal(data, &p) == nil && p.Subtype == "" {
				_ = c.Write(wire.ClientAck{Type: wire.TypeClientAck, BrokerMessageID: p.MessageID}) // unacknowledged it comes again, which the test notices
				on(c, p)
			}
		})
		if err == nil || ctx.Err() != nil || errors.Is(err, crowd.ErrRefused) {
			return c, err
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
		}
	}
}

// each calls f over and over in several goroutines until ctx ends.
func each(ctx context.Context, goroutines int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range goroutines {
		wg.Go(func() {
			for ctx.Err() == nil {
				f(i)
			}
		})
	}
	wg.Wait()
}

func (s *siege) garbage(ctx context.Context, t *testing.T) {
	junk := []string{"{", "null", "[]", `"x"`, "\x00", `{"type":7}`, `{"type":"` + strings.Repeat("x", 10_000) + `"}`, strings.Repeat("[", 50_000), `{"type":"send","targetSpec":{}}`}
	each(ctx, 4, func(i int) {
		var answers atomic.Int64
		c, err := s.mesh.JoinAs(ctx, s.hostile, fmt.Sprint("garbage-", i), func(_ *crowd.Client, frameType string, data []byte) {
			if frameType == wire.TypeError {
				answers.Add(1)
			}
		})
		if err != nil {
			return
		}
		defer c.Close()
		for n := 0; c.Write([]byte(junk[n%2])) == nil; n++ { // until the broker has had enough of it
			if n == 20 {
				_ = c.Write([]byte(junk[n%len(junk)]))
			}
		}
		<-c.Done()
		if ctx.Err() == nil && (answers.Load() == 0 || !websocket.IsCloseError(c.Err(), websocket.ClosePolicyViolation) && !isReset(c.Err())) {
			t.Errorf("garbage was answered %d times, then %v", answers.Load(), c.Err())
		}
	})
	c, err := s.mesh.JoinAs(t.Context(), s.hostile, "well-formed garbage", crowd.Discard)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	for i, f := range []string{`"type":"no_such_type"`, `"type":"send","targetSpec":{}`, `"type":"set_status","status":7`, `"type":"hello"`} {
		id := fmt.Sprint("g", i)
		answer, err := c.Call(t.Context(), []byte(`{`+f+`,"_reqId":"`+id+`"}`), id)
		if !errors.Is(err, crowd.ErrRefused) && !bytes.Contains(answer, []byte(`"error"`)) {
			t.Errorf("%s was answered with %s, %v", f, answer, err)
		}
	}
}

// isReset reports an end without a close frame: who goes on writing may lose it to the reset.
func isReset(err error) bool {
	return err != nil && (errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(err.Error(), "reset") || strings.Contains(err.Error(), "broken pipe") || strings.Contains(err.Error(), "EOF"))
}

func (s *siege) oversize(ctx context.Context, t *testing.T) {
	tooMuch := bytes.Repeat([]byte(" "), wire.MaxFrameBytes+1)
	each(ctx, 2, func(i int) {
		c, err := s.mesh.JoinAs(ctx, s.hostile, fmt.Sprint("large-", i), crowd.Discard)
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.Write(tooMuch) // the broker may hang up before all of it is out
		<-c.Done()
		if ctx.Err() == nil && !websocket.IsCloseError(c.Err(), websocket.CloseMessageTooBig) && !isReset(c.Err()) {
			t.Errorf("a frame over the limit ended with %v", c.Err())
		}
		claim, err := crowd.Dial(ctx, s.mesh.URL, crowd.Discard)
		if err != nil {
			return
		}
		defer claim.Close()
		_, _ = claim.WS().NetConn().Write([]byte{0x81, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}) // a text frame that says it has 2^62 bytes
		<-claim.Done()
	})
	c, err := s.mesh.JoinAs(t.Context(), s.hostile, "large send", crowd.Discard)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	big := crowd.Send("big", s.bob.PublicKey(), strings.Repeat("x", wire.MaxSendBytes))
	answer, err := c.Call(t.Context(), struct {
		wire.Send
		ReqID string `json:"_reqId"`
	}{big, "big"}, "big")
	if err != nil || !bytes.Contains(answer, []byte(wire.AckPayloadTooLarge)) {
		t.Errorf("a body over the limit was answered with %s, %v", answer, err)
	}
}

// silence keeps far more sockets open than may be silent, and opens new ones for those that are closed.
func (s *siege) silence(ctx context.Context, _ *testing.T) {
	each(ctx, 300, func(int) {
		c, err := crowd.Dial(ctx, s.mesh.URL, crowd.Discard)
		if err != nil {
			pause(ctx)
			return
		}
		defer c.Close()
		select {
		case <-c.Done():
		case <-ctx.Done():
		}
	})
}

// pause keeps an attacker from doing nothing but dialling on two cores that it shares with its victims.
func pause(ctx context.Context) {
	t := time.NewTimer(100 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (s *siege) helloFlood(ctx context.Context, t *testing.T) {
	stranger, err := mesh.NewIdentity(bytes.NewReader(bytes.Repeat([]byte{7}, 64)))
	if err != nil {
		t.Error(err)
		return
	}
	each(ctx, 6, func(i int) {
		switch i % 3 {
		case 0: // strangers
			c, err := crowd.Dial(ctx, s.mesh.URL, crowd.Discard)
			if err != nil {
				return
			}
			defer c.Close()
			err = c.Greet(ctx, s.mesh.Hello(crowd.Member{Identity: stranger, ID: "none"}, "stranger"))
			if ctx.Err() == nil && !errors.Is(err, crowd.ErrRefused) {
				t.Errorf("a stranger's hello was answered with %v", err)
			}
		case 1: // a member that comes and goes
			c, err := s.mesh.JoinAs(ctx, s.hostile, fmt.Sprint("flood-", i), crowd.Discard)
			if err == nil {
				c.Close()
			}
		case 2: // a member that says hello a thousand times on one socket
			var again atomic.Int64
			c, err := s.mesh.JoinAs(ctx, s.hostile, fmt.Sprint("flood-", i), func(_ *crowd.Client, frameType string, data []byte) {
				if frameType == wire.TypeError && bytes.Contains(data, []byte("already said hello")) {
					again.Add(1)
				}
			})
			if err != nil {
				return
			}
			defer c.Close()
			hello := s.mesh.Hello(s.hostile, "again")
			const n = 1000
			for range n {
				if c.Write(hello) != nil {
					break
				}
			}
			if _, err := c.Call(ctx, map[string]string{"type": wire.TypeListPeers, "_reqId": "l"}, "l"); err == nil && again.Load() != n {
				t.Errorf("%d of %d hellos were answered", again.Load(), n)
			}
		}
	})
}

// deaf opens connections that never read, for members to whom a lot is sent.
func (s *siege) deaf(ctx context.Context, t *testing.T) {
	var deaf []net.Conn
	defer func() {
		for _, c := range deaf {
			c.Close()
		}
	}()
	for i, who := range s.lazy {
		c, err := dialDeaf(s.mesh.URL, s.mesh.Hello(who, fmt.Sprint("deaf-", i)))
		if err != nil {
			t.Error(err)
			return
		}
		deaf = append(deaf, c)
	}
	var acked atomic.Int64
	c, err := s.mesh.JoinAs(ctx, s.hostile, "shouts", func(_ *crowd.Client, frameType string, _ []byte) {
		if frameType == wire.TypeAck {
			acked.Add(1)
		}
	})
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	body := strings.Repeat("x", 45_000) // 60 kB as base64
	const letters = 60                  // of each: with the acknowledgements that the shouter itself does not wait for, some 18 MB
	for n := range letters {
		for i, who := range s.lazy {
			if c.Write(crowd.Send(fmt.Sprintf("shout-%d-%d-%d", s.serial.Add(1), n, i), who.PublicKey(), body)) != nil {
				return
			}
		}
	}
	<-ctx.Done()
	testenv.Wait(t, "the letters to be accepted", nil, func() bool { return acked.Load() == int64(letters*len(s.lazy)) })
}

// dialDeaf says hello on a socket with a small window and reads nothing, not even the answer.
func dialDeaf(url string, hello wire.Hello) (net.Conn, error) {
	d := websocket.Dialer{NetDial: func(network, addr string) (net.Conn, error) {
		c, err := net.Dial(network, addr)
		if err != nil {
			return nil, err
		}
		return c, c.(*net.TCPConn).SetReadBuffer(8 << 10)
	}}
	ws, _, err := d.Dial(url, nil)
	if err != nil {
		return nil, err
	}
	return ws.NetConn(), ws.WriteJSON(hello)
}

// halfClosed says hello, closes its half, and waits for the broker to close the other.
func (s *siege) halfClosed(ctx context.Context, t *testing.T) {
	each(ctx, 4, func(i int) {
		var d net.Dialer
		addr := strings.TrimSuffix(strings.TrimPrefix(s.mesh.URL, "ws://"), "/ws")
		if i%2 == 0 { // before there is a request
			c, err := d.DialContext(ctx, "tcp", addr)
			if err != nil {
				return
			}
			defer c.Close()
			closeHalf(t, c, "GET /ws")
			return
		}
		c, err := crowd.Dial(ctx, s.mesh.URL, crowd.Discard)
		if err != nil {
			return
		}
		defer c.Close()
		if err := c.Greet(ctx, s.mesh.Hello(s.hostile, fmt.Sprint("half-", i))); err != nil {
			return
		}
		if err := c.WS().NetConn().(*net.TCPConn).CloseWrite(); err != nil {
			t.Error(err)
			return
		}
		select {
		case <-c.Done():
		case <-time.After(testenv.Patience):
			t.Error("the broker keeps half a connection")
		}
	})
}

func closeHalf(t *testing.T, c net.Conn, first string) {
	if _, err := io.WriteString(c, first); err != nil {
		t.Error(err)
		return
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Error(err)
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(testenv.Patience))
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Errorf("the broker keeps half a connection: %v", err)
	}
}

// dribble opens connections that send a request byte by byte, or none.
func (s *siege) dribble(ctx context.Context, _ *testing.T) {
	addr := strings.TrimSuffix(strings.TrimPrefix(s.mesh.URL, "ws://"), "/ws")
	each(ctx, 200, func(int) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			pause(ctx)
			return
		}
		defer c.Close()
		for _, b := range []byte("GET /ws HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("x", 1000)) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			pause(ctx)
			if ctx.Err() != nil {
				return
			}
		}
	})
}

// residentMB is the resident size of a process.
func residentMB(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.Atoi(strings.Fields(v)[0])
			return kb / 1024, err
		}
	}
	return 0, fmt.Errorf("no VmRSS in /proc/%d/status", pid)
}
