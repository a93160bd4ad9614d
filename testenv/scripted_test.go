package testenv_test

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"claudemesh/mesh"
	"claudemesh/testenv"
	"claudemesh/wire"
)

// scripted is a broker that says what a test wants. Each connection gets the next script; when they are used up, sane serves.
type scripted struct {
	t    testing.TB
	url  string
	sane func(*websocket.Conn)

	mu      sync.Mutex
	scripts []func(*websocket.Conn)
}

func newScripted(t testing.TB, scripts ...func(*websocket.Conn)) *scripted {
	s := &scripted{t: t, scripts: scripts, sane: func(ws *websocket.Conn) { serveSanely(ws, nil, new(atomic.Int64)) }}
	up := websocket.Upgrader{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		s.next()(ws)
	}))
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	s.url = "ws" + strings.TrimPrefix(server.URL, "http") + "/ws"
	return s
}

func (s *scripted) next() func(*websocket.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.scripts) == 0 {
		return s.sane
	}
	script := s.scripts[0]
	s.scripts = s.scripts[1:]
	return script
}

func (s *scripted) left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.scripts)
}

// serveSanely greets, sends extra frames, answers what a daemon asks at least, and counts what it acknowledges.
func serveSanely(ws *websocket.Conn, extra []any, acks *atomic.Int64) {
	for {
		_, data, err := ws.ReadMessage()
		if err != nil {
			return
		}
		head, _ := wire.Peek(data)
		var answers []any
		switch head.Type {
		case wire.TypeHello, wire.TypeSessionHello:
			answers = append([]any{wire.HelloAck{Type: wire.TypeHelloAck, PresenceID: "p", Capabilities: []string{wire.CapClientAck, wire.CapReceipts}}}, extra...)
		case wire.TypeClientAck:
			acks.Add(1)
		case wire.TypeListPeers:
			answers = []any{map[string]any{"type": wire.TypePeersList, "peers": []any{}, "_reqId": head.ReqID}}
		case wire.TypeSend:
			var f wire.Send
			_ = json.Unmarshal(data, &f)
			answers = []any{wire.Ack{Type: wire.TypeAck, ID: f.ID, MessageID: "m" + f.ID, Queued: true}}
		}
		for _, a := range answers {
			if ws.WriteJSON(a) != nil {
				return
			}
		}
	}
}

// join makes a machine that is stopped a member of a mesh at this broker, as if it had joined.
func (s *scripted) join(m *testenv.Machine, slug string) mesh.Identity {
	s.t.Helper()
	id, err := mesh.NewIdentity(rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	err = mesh.UpdateConfig(filepath.Join(m.Home, ".claudemesh"), func(c *mesh.Config) error {
		c.Put(mesh.Joined{
			MeshID: "mesh-" + slug, MemberID: "member", Slug: slug, Name: slug, Pubkey: id.PublicKey(), SecretKey: id.SecretHex(), BrokerURL: s.url, JoinedAt: "2026-01-01T00:00:00.000Z",
		})
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

// says is a script: greet, then write these frames, then read until the daemon goes or the frames' end is due.
func says(frames ...string) func(*websocket.Conn) {
	return func(ws *websocket.Conn) {
		if _, _, err := ws.ReadMessage(); err != nil {
			return
		}
		_ = ws.WriteJSON(wire.HelloAck{Type: wire.TypeHelloAck, PresenceID: "p"})
		for _, f := range frames {
			if ws.WriteMessage(websocket.TextMessage, []byte(f)) != nil {
				return
			}
		}
		// Closing at once could outrun the frames; the other side's answer to the close frame shows that it has read them.
		_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseTryAgainLater, ""), time.Now().Add(time.Second))
		_ = ws.SetReadDeadline(time.Now().Add(2 * time.Second))
		for {
			if _, _, err := ws.ReadMessage(); err != nil {
				return
			}
		}
	}
}
