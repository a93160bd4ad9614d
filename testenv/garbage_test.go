package testenv_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"claudemesh/bus"
	"claudemesh/testenv"
	"claudemesh/testenv/faultproxy"
	"claudemesh/wire"
)

func TestNothingABrokerSaysEndsTheDaemon(t *testing.T) {
	m := testenv.NewMachine(t)
	near := m.Create("near")
	peer := strings.Repeat("ab", 32)
	b64 := base64.StdEncoding.EncodeToString([]byte("some text"))
	repeated := func(frame string, n int) []string {
		out := make([]string, n)
		for i := range out {
			out[i] = frame
		}
		return out
	}
	wrongTypes := []string{}
	for _, kind := range []string{"hello_ack", "ack", "push", "receipt", "error", "peers_list", "system", "", "no_such_frame"} {
		for _, field := range []string{`"id":7`, `"messageId":[]`, `"queued":"yes"`, `"peers":7`, `"eventData":"x"`, `"nonce":{}`, `"ciphertext":null`, `"_reqId":7`, `"senderPubkey":7`, `"capabilities":7`, `"state":[]`, `"code":{}`} {
			wrongTypes = append(wrongTypes, fmt.Sprintf(`{"type":%q,%s}`, kind, field))
		}
	}
	huge := strings.Repeat("x", 900<<10)
	odd := func(fields string) string {
		return `{"type":"push","messageId":"o1","senderPubkey":"` + peer + `","nonce":"","priority":"next",` + fields + `}`
	}
	scripts := []func(*websocket.Conn){
		says(), // greets and goes
		says("{", "null", "[]", "7", `"x"`, "", "\x00", "{}", `{"type":7}`, `{"type":null}`, `{"type":"push"`),
		says(repeated("not json", 2000)...),
		says(wrongTypes...),
		says(strings.Repeat("[", 500_000)),
		says(`{"type":"push","eventData":` + strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000) + "}"),
		says(`{"type":"`+huge+`"}`, `{"type":"push","messageId":"`+huge+`"}`, `{"type":"error","message":"`+huge+`","code":"`+huge+`"}`),
		says(odd(`"senderName":"`+strings.Repeat("n", 5000)+`","ciphertext":"x"`), odd(`"ciphertext":"%%%"`), odd(`"ciphertext":"`+b64+`","targetSpec":"*","createdAt":"never"`),
			odd(`"ciphertext":"","targetSpec":""`), odd(`"ciphertext":"`+b64+`","senderPubkey":""`), `{"type":"push"}`, odd(`"subtype":"system","event":"peer_joined","eventData":7`),
			odd(`"subtype":"system","event":"peer_joined","eventData":{"pubkey":"zz"}`), odd(`"subtype":"system","event":"peer_left","eventData":{"pubkey":"`+peer+`"}`),
			odd(`"subtype":"system","event":"`+strings.Repeat("e", 10000)+`"`), odd(`"subtype":"\u001b[2J","ciphertext":"x"`), odd(`"client_message_id":"`+strings.Repeat("c", 300)+`"`),
			`{"type":"push","messageId":"m9","senderPubkey":"`+peer+`","targetSpec":"*","ciphertext":"`+base64.StdEncoding.EncodeToString([]byte("a message among garbage"))+`"}`),
		says(`{"type":"ack","id":"nobody","messageId":"x","queued":true}`, `{"type":"receipt","mailId":"x","client_message_id":"nobody","state":"surfaced","recipientPubkey":"`+peer+`","at":"never"}`,
			`{"type":"receipt","state":"eaten"}`, `{"type":"peers_list","peers":[{"pubkey":"x"}],"_reqId":"nobody"}`, `{"type":"error","code":"weird","message":"m"}`),
		func(ws *websocket.Conn) {
			_ = ws.WriteMessage(websocket.BinaryMessage, bytes.Repeat([]byte{0xff}, 1000))
		},
		func(ws *websocket.Conn) {
			_, _ = ws.NetConn().Write([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff not a frame"))
		},
		func(ws *websocket.Conn) { // a frame that claims 2^62 bytes
			_, _ = ws.NetConn().Write([]byte{0x81, 127, 0x40, 0, 0, 0, 0, 0, 0, 0, 'x'})
		},
		func(ws *websocket.Conn) { // one message of 256 MiB, if the other side took it
			w, err := ws.NextWriter(websocket.TextMessage)
			n := 0
			for ; err == nil && n < 4096; n++ {
				_, err = w.Write(bytes.Repeat([]byte("x"), 64<<10))
			}
			if err == nil {
				t.Errorf("the daemon read all of a message of %d bytes", n<<16)
			}
		},
		func(ws *websocket.Conn) { // closes with a code and a reason of its own
			_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4999, strings.Repeat("r", 100)), time.Now().Add(time.Second))
		},
		func(ws *websocket.Conn) { _, _ = ws.NetConn().Write([]byte{0x88, 1, 0x03}) }, // a close frame of one byte
		func(ws *websocket.Conn) {
			_ = ws.WriteJSON(wire.Error{Type: wire.TypeError, Code: "try_later", Message: "busy"})
		},
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	// A mesh for each, so that all brokers talk nonsense at once, and sense at the next connection.
	brokers, slugs := make([]*scripted, len(scripts)), make([]string, len(scripts))
	for i, script := range scripts {
		brokers[i], slugs[i] = newScripted(t, script), fmt.Sprint("far-", i)
	}
	m.Stop()
	for i, b := range brokers {
		b.join(m, slugs[i])
	}
	m.Start()
	bob := m.Session(near, "bob")

	t.Run("another mesh works all the time", func(t *testing.T) {
		m.WaitPeer(near, "bob")
		m.Send(near, bus.SendRequest{To: "bob", Body: "not disturbed"})
		bob.WaitMessage("not disturbed")
	})
	for i, b := range brokers {
		testenv.Wait(t, fmt.Sprintf("broker %d to have had its say", i), nil, func() bool { return b.left() == 0 })
	}
	t.Run("and so does each of these, when the broker talks sense again", func(t *testing.T) {
		var sent []bus.SendReply
		for _, slug := range slugs {
			sent = append(sent, m.Send(slug, bus.SendRequest{To: "*", Body: "hello"}))
		}
		for i, slug := range slugs[:len(slugs)-1] { // to the last one, which refused the daemon, it comes back slowly
			waitDone(m, slug, sent[i].ClientMessageID)
		}
	})
	t.Run("memory and goroutines stay bounded", func(t *testing.T) {
		testenv.Wait(t, "the heap to shrink", nil, func() bool {
			runtime.GC()
			runtime.ReadMemStats(&after)
			return after.HeapAlloc < before.HeapAlloc+48<<20
		})
		if n := runtime.NumGoroutine(); n > 800 {
			t.Errorf("%d goroutines", n)
		}
	})
	t.Run("what was a message among it came through", func(t *testing.T) {
		// A push without an id or a sender holds up nothing behind it.
		testenv.Wait(t, "the one behind the ones that cannot be stored", nil, func() bool {
			var l bus.InboxList
			m.Do(bus.OpInboxList, bus.InboxQuery{Mesh: slugs[7]}, &l)
			for _, it := range l.Items {
				if it.Body == "a message among garbage" {
					return true
				}
			}
			return false
		})
	})
	t.Run("nothing of it is in the log at length", func(t *testing.T) {
		if n := len(m.Log.String()); n > 256<<10 {
			t.Errorf("the log has %d bytes", n)
		}
	})
}

func TestAFloodOfPushesIsTakenInStep(t *testing.T) {
	m := testenv.NewMachine(t)
	m.Stop()
	broker := newScripted(t)
	id := broker.join(m, "far")
	const n = 2000
	var extra []any
	for i := range n {
		extra = append(extra, wire.Push{
			Type: wire.TypePush, MessageID: fmt.Sprint("m", i), MeshID: "mesh-far", SenderPubkey: strings.Repeat("cd", 32), SenderName: "flood", Priority: wire.PriorityNext,
			Nonce: base64.StdEncoding.EncodeToString(make([]byte, 24)), Ciphertext: base64.StdEncoding.EncodeToString([]byte(fmt.Sprint("text ", i))), TargetSpec: id.PublicKey(),
		})
	}
	var acks atomic.Int64
	broker.sane = func(ws *websocket.Conn) { serveSanely(ws, extra, &acks) }
	m.Start()
	testenv.Wait(t, "all of them", nil, func() bool {
		for _, ms := range status(m).Meshes {
			if ms.Mesh == "far" && ms.Unread == n {
				return true
			}
		}
		return false
	})
	m.Stop()
	acks.Store(0)
	m.Start() // the same again: recognised, and acknowledged
	testenv.Wait(t, "all of them to be acknowledged again", nil, func() bool { return acks.Load() == n })
	var l bus.InboxList
	m.Do(bus.OpInboxList, bus.InboxQuery{Limit: 1}, &l)
	if l.Unread != n || len(l.Items) != 1 || l.Items[0].State != bus.StateUndecryptable || l.Items[0].Body != "" {
		t.Errorf("%d unread, %+v", l.Unread, l.Items)
	}
}

// waitDone waits until the broker has taken a message, however far it came since.
func waitDone(m *testenv.Machine, slug, id string) (row bus.OutboxItem) {
	m.T.Helper()
	testenv.Wait(m.T, "message "+id+" to leave", nil, func() bool {
		m.Do(bus.OpOutboxGet, bus.OutboxGet{ID: id, Mesh: slug}, &row)
		return row.Status == "done"
	})
	return row
}

func TestARefusalThatPassesIsTriedAgain(t *testing.T) {
	host, guest := testenv.NewMachine(t), testenv.NewMachine(t)
	team := host.Create("team")
	refusals := 2
	through(t, host, guest, team, func(d faultproxy.Dir, frame []byte) [][]byte {
		var ack wire.Ack
		if d == faultproxy.ToClient && json.Unmarshal(frame, &ack) == nil && ack.Type == wire.TypeAck && ack.Queued && refusals > 0 {
			refusals--
			frame, _ = json.Marshal(wire.Ack{Type: wire.TypeAck, ID: ack.ID, ReqID: ack.ReqID, Error: "unavailable: the store does not answer", Code: wire.AckUnavailable})
		}
		return [][]byte{frame}
	})
	// Nothing else happens on this mesh that could wake the drain.
	r := guest.Send(team, bus.SendRequest{To: "*", Body: "tried again"})
	if it := waitDone(guest, team, r.ClientMessageID); it.Attempts != 3 {
		t.Errorf("%d attempts, want 3", it.Attempts)
	}
}
