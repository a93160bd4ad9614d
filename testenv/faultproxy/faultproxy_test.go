package faultproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a WebSocket server that returns every frame; "bye" closes with 4001.
func echo(t *testing.T) string {
	t.Helper()
	up := websocket.Upgrader{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		for {
			_, data, err := ws.ReadMessage()
			if err != nil {
				return
			}
			if string(data) == "bye" {
				_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4001, "kicked"), time.Now().Add(time.Second))
				return
			}
			if ws.WriteMessage(websocket.TextMessage, data) != nil {
				return
			}
		}
	}))
	t.Cleanup(s.Close)
	return "ws" + strings.TrimPrefix(s.URL, "http") + "/ws"
}

func start(t *testing.T, target string, opts ...Option) *Proxy {
	t.Helper()
	p, err := New(target, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func dial(t *testing.T, p *Proxy) *websocket.Conn {
	t.Helper()
	ws, _, err := websocket.DefaultDialer.Dial(p.URL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.Close() })
	_ = ws.SetReadDeadline(time.Now().Add(10 * time.Second))
	return ws
}

func say(t *testing.T, ws *websocket.Conn, frames ...string) {
	t.Helper()
	for _, f := range frames {
		if err := ws.WriteMessage(websocket.TextMessage, []byte(f)); err != nil {
			t.Fatal(err)
		}
	}
}

func hear(t *testing.T, ws *websocket.Conn, want ...string) {
	t.Helper()
	for _, w := range want {
		_, data, err := ws.ReadMessage()
		if err != nil || string(data) != w {
			t.Fatalf("read %q, %v; want %q", data, err, w)
		}
	}
}

func TestBothModes(t *testing.T) {
	for name, opts := range map[string][]Option{"bytes": nil, "frames": {WithFrames(nil)}} {
		t.Run(name+" pass in order", func(t *testing.T) {
			ws := dial(t, start(t, echo(t), opts...))
			say(t, ws, "a", "b", "c")
			hear(t, ws, "a", "b", "c")
		})
		t.Run(name+": a close code reaches the other side", func(t *testing.T) {
			ws := dial(t, start(t, echo(t), opts...))
			say(t, ws, "bye")
			_, _, err := ws.ReadMessage()
			if !websocket.IsCloseError(err, 4001) {
				t.Fatal(err)
			}
		})
		t.Run(name+": a cut drops connections and refuses new ones until restore", func(t *testing.T) {
			p := start(t, echo(t), opts...)
			ws := dial(t, p)
			say(t, ws, "a")
			hear(t, ws, "a")
			p.Cut()
			if _, _, err := ws.ReadMessage(); err == nil {
				t.Fatal("still connected")
			}
			if _, _, err := websocket.DefaultDialer.Dial(p.URL(), nil); err == nil {
				t.Fatal("connected through a cut")
			}
			p.Restore()
			again := dial(t, p)
			say(t, again, "b")
			hear(t, again, "b")
			if p.Accepted() != 2 {
				t.Fatalf("accepted %d", p.Accepted())
			}
		})
		t.Run(name+": dropping all lets new ones in", func(t *testing.T) {
			p := start(t, echo(t), opts...)
			ws := dial(t, p)
			say(t, ws, "a")
			hear(t, ws, "a")
			p.DropAll()
			if _, _, err := ws.ReadMessage(); err == nil {
				t.Fatal("still connected")
			}
			say(t, dial(t, p), "b")
		})
		t.Run(name+": a delay holds frames back", func(t *testing.T) {
			p := start(t, echo(t), opts...)
			ws := dial(t, p)
			p.Delay(30 * time.Millisecond)
			began := time.Now()
			say(t, ws, "a")
			hear(t, ws, "a")
			if took := time.Since(began); took < 60*time.Millisecond {
				t.Fatalf("took %v", took)
			}
		})
	}
}

func TestHooks(t *testing.T) {
	const push, ack = `{"type":"push"}`, `{"type":"ack"}`
	t.Run("frames are dropped and doubled by type and direction", func(t *testing.T) {
		p := start(t, echo(t), WithFrames(Chain(Drop(ToClient, "ack"), Duplicate(ToClient, "push"))))
		ws := dial(t, p)
		say(t, ws, ack, push, "end")
		hear(t, ws, push, push, "end")
	})
	t.Run("held frames are injected later", func(t *testing.T) {
		hook, held := Hold(ToClient, "ack")
		p := start(t, echo(t), WithFrames(hook))
		ws := dial(t, p)
		say(t, ws, ack, push)
		hear(t, ws, push)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := held.Wait(ctx, 1); err != nil {
			t.Fatal(err)
		}
		if n := p.Inject(ToClient, held.Frames()[0]); n != 1 {
			t.Fatalf("%d connections", n)
		}
		hear(t, ws, ack)
	})
	t.Run("a hook is replaced while frames flow", func(t *testing.T) {
		p := start(t, echo(t), WithFrames(Drop(ToBroker, "ack")))
		ws := dial(t, p)
		say(t, ws, ack, push)
		hear(t, ws, push)
		p.SetHook(nil)
		say(t, ws, ack)
		hear(t, ws, ack)
	})
}

func TestNew(t *testing.T) {
	t.Run("the broker is reached by the given dialer", func(t *testing.T) {
		refused := errors.New("refused")
		p := start(t, "127.0.0.1:1", WithDial(func(context.Context, string, string) (net.Conn, error) { return nil, refused }))
		if _, _, err := websocket.DefaultDialer.Dial(p.URL(), nil); err == nil {
			t.Fatal("connected")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := p.WaitAccepted(ctx, 1); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("a target that is no address of a plain broker is refused", func(t *testing.T) {
		if _, err := New("wss://example.org/ws"); err == nil {
			t.Fatal("accepted")
		}
	})
}

func TestAPlainRequestPassesAProxyOfFrames(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write(append([]byte(r.URL.Path+" "), body...))
	}))
	t.Cleanup(s.Close)
	p := start(t, strings.TrimPrefix(s.URL, "http://"), WithFrames(func(Dir, []byte) [][]byte { return nil }))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range 3 {
		res, err := client.Post("http://"+p.Addr()+"/join", "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusTeapot || string(body) != "/join {}" {
			t.Errorf("%d %q, %v", res.StatusCode, body, err)
		}
	}
}
