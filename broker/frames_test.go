package broker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"claudemesh/mesh"
	"claudemesh/wire"
)

func TestEveryRequestIsAnswered(t *testing.T) {
	r := newRig(t)
	a := r.member(r.owner)
	for _, tc := range []struct {
		name, frameType string
		fields          map[string]any
		want            string
	}{
		{"an unknown type", "no_such_type", map[string]any{"x": 1}, `{"type":"error","code":"unknown_message_type","message":"unknown message type \"no_such_type\"","_reqId":"ID"}`},
		{"a second hello", "hello", nil, `{"type":"error","code":"invalid","message":"already said hello on this socket","_reqId":"ID"}`},
		{"set_status", "set_status", map[string]any{"status": "dnd"}, `{"type":"ack","id":"","messageId":"","queued":false,"_reqId":"ID"}`},
		{"set_status with nonsense", "set_status", map[string]any{"status": "asleep"}, `{"type":"error","code":"invalid","message":"invalid frame: status must be idle, working or dnd","_reqId":"ID"}`},
		{"set_status with a number", "set_status", map[string]any{"status": 5}, `{"type":"error","code":"invalid"`},
		{"set_summary", "set_summary", map[string]any{"summary": "s"}, `{"type":"ack","id":"","messageId":"","queued":false,"_reqId":"ID"}`},
		{"set_stats", "set_stats", map[string]any{"stats": map[string]any{"uptime": 5}}, `{"type":"ack","id":"","messageId":"","queued":false,"_reqId":"ID"}`},
		{"set_visible", "set_visible", map[string]any{"visible": true}, `{"type":"ack","id":"ID","messageId":"","queued":false,"_reqId":"ID"}`},
		{"set_visible without value", "set_visible", nil, `{"type":"error","code":"invalid","message":"invalid frame: visible missing","_reqId":"ID"}`},
		{"join_group", "join_group", map[string]any{"name": "g"}, `{"type":"ack","id":"","messageId":"","queued":false,"_reqId":"ID"}`},
		{"join_group without name", "join_group", nil, `{"type":"error","code":"invalid","message":"invalid frame: group name missing","_reqId":"ID"}`},
		{"leave_group", "leave_group", map[string]any{"name": "g"}, `{"type":"ack","id":"","messageId":"","queued":false,"_reqId":"ID"}`},
		{"client_ack without id", "client_ack", nil, `{"type":"error","code":"invalid","message":"invalid frame: no message id","_reqId":"ID"}`},
		{"invite_create with rubbish", "invite_create", map[string]any{"invite_token": "x", "max_uses": 1}, `{"type":"error","code":"invalid"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := string(a.call(tc.frameType, tc.fields))
			if want := strings.ReplaceAll(tc.want, "ID", fmt.Sprint("q", a.seq)); !strings.HasPrefix(got, want) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
	t.Run("without a request id the silent ones stay silent", func(t *testing.T) {
		a.write(map[string]any{"type": "set_status", "status": "idle"})
		a.write(map[string]any{"type": "set_summary", "summary": "s"})
		a.settle()
		if len(a.held) != 0 {
			t.Errorf("held %s", a.held)
		}
	})
	t.Run("no more than 64 groups", func(t *testing.T) {
		for i := range wire.MaxGroups {
			a.write(map[string]any{"type": "join_group", "name": fmt.Sprint(i)})
		}
		if e := into[wire.Error](a, a.call("join_group", map[string]any{"name": "one more"})); e.Code != wire.CodeInvalid {
			t.Errorf("%+v", e)
		}
	})
}

func TestGarbage(t *testing.T) {
	r := newRig(t)
	t.Run("is answered and survived", func(t *testing.T) {
		a := r.member(r.owner)
		for range 3 {
			for i := range maxGarbage {
				a.write([]byte([]string{"this is not json", `{"hello":"no type"}`, "[1]", `{"type":7}`, "\x00\xff"}[i%5]))
				if e := into[wire.Error](a, a.wait(wire.TypeError)); e.Code != wire.CodeMalformed {
					t.Fatalf("%+v", e)
				}
			}
			a.settle()
		}
		a.close()
	})
	t.Run("but not endlessly", func(t *testing.T) {
		a := r.member(r.owner)
		for range maxGarbage + 1 {
			a.write([]byte("{"))
		}
		if code, _ := a.closed(); code != websocket.ClosePolicyViolation {
			t.Errorf("closed with %d", code)
		}
	})
	t.Run("before hello only hello is understood", func(t *testing.T) {
		c := r.dial()
		for _, f := range []string{`{"type":"list_peers","_reqId":"x"}`, `{"type":"no_such_type"}`} {
			c.write([]byte(f))
			if got := string(c.wait(wire.TypeError)); got != `{"type":"error","code":"no_hello","message":"must send hello first"}` {
				t.Errorf("%s", got)
			}
		}
		c.write(r.helloFrame(r.owner))
		c.wait(wire.TypeHelloAck)
	})
	t.Run("a frame over the limit closes with 1009", func(t *testing.T) {
		a := r.member(r.owner)
		a.write(bytes.Repeat([]byte(" "), wire.MaxFrameBytes+1))
		if code, _ := a.closed(); code != websocket.CloseMessageTooBig {
			t.Errorf("closed with %d", code)
		}
	})
	t.Run("a large but valid frame is answered", func(t *testing.T) {
		a := r.member(r.owner)
		if e := into[wire.Error](a, a.call("set_summary", map[string]any{"summary": strings.Repeat("s", 1_000_000)})); e.Code != wire.CodeInvalid {
			t.Errorf("%+v", e)
		}
	})
}

func TestASlowReaderHoldsUpNobody(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Limits.WriteDeadline = time.Minute }) // it shall be slow, and not be cut off for it
	bob, carol := r.addMember("bob"), r.addMember("carol")
	// A raw socket whose receive window is small and which never reads after its hello.
	d := websocket.Dialer{NetDial: func(network, addr string) (net.Conn, error) {
		c, err := net.Dial(network, addr)
		if err == nil {
			err = c.(*net.TCPConn).SetReadBuffer(64 << 10)
		}
		return c, err
	}}
	slow, _, err := d.Dial(r.wsURL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if err := slow.WriteJSON(r.helloFrame(bob)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := slow.ReadMessage(); err != nil {
		t.Fatal(err)
	}
	a, c := r.member(r.owner), r.member(carol)
	const n = 300
	big := strings.Repeat("A", 40_000) // 12 MB for bob in all: far over what sockets buffer
	for i := range n {
		f := sendFrame(fmt.Sprint("b", i), bob.PublicKey(), "")
		f.Ciphertext = big
		a.write(f)
		a.write(sendFrame(fmt.Sprint("c", i), carol.PublicKey(), fmt.Sprint(i)))
	}
	for i := range n {
		if p := c.message(); text(p) != fmt.Sprint(i) {
			t.Fatalf("%d: %q", i, text(p))
		} else {
			c.clientAck(p, "")
		}
	}
	for range 2 * n {
		if ack := into[wire.Ack](a, a.wait(wire.TypeAck)); !ack.Queued {
			t.Fatalf("%+v", ack)
		}
	}
	r.mailIn(r.mailboxOf(bob), n)
	slow.SetReadDeadline(time.Now().Add(patience))
	for i := 0; i < n; {
		_, data, err := slow.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		var p wire.Push
		if json.Unmarshal(data, &p); p.Subtype == "" && p.Type == wire.TypePush {
			if p.ClientMessageID != fmt.Sprint("b", i) {
				t.Fatalf("message %d is %s", i, p.ClientMessageID)
			}
			i++
			if err := slow.WriteJSON(wire.ClientAck{Type: wire.TypeClientAck, BrokerMessageID: p.MessageID}); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.mailIn(r.mailboxOf(bob), 0)
}

func TestListPeers(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	key := newIdentity(t)
	a := r.member(r.owner, func(h *wire.Hello) {
		h.Hostname, h.Channel, h.PeerType, h.Model, h.PID, h.DisplayName = "h", "c", "ai", "opus", 7, "Alice A."
	})
	b := r.session(bob, key, func(h *wire.SessionHello) { h.Groups = []mesh.Group{{Name: "qa"}} })
	b.call("set_status", map[string]any{"status": "working"})
	got := into[wire.PeersList](a, a.call(wire.TypeListPeers, nil)).Peers
	if len(got) != 2 {
		t.Fatalf("%+v", got)
	}
	if p := got[0]; p.Pubkey != r.owner.PublicKey() || p.DisplayName != "Alice A." || p.Hostname != "h" || p.Channel != "c" || p.PeerType != "ai" || p.Model != "opus" ||
		p.Status != "idle" || p.Summary != nil || p.Groups == nil || !p.Visible || p.PeerRole != wire.RoleControlPlane || p.ConnectedAt == "" {
		t.Errorf("%+v", p)
	}
	if p := got[1]; p.Pubkey != key.PublicKey() || p.MemberPubkey != bob.PublicKey() || p.DisplayName != "bob" || p.Status != "working" || len(p.Groups) != 1 || p.Cwd != "/src" {
		t.Errorf("%+v", p)
	}
	t.Run("without who hides, except for its own member", func(t *testing.T) {
		own := r.member(bob)
		b.call("set_visible", map[string]any{"visible": false})
		if n := len(into[wire.PeersList](a, a.call(wire.TypeListPeers, nil)).Peers); n != 2 {
			t.Errorf("%d peers", n)
		}
		if n := len(into[wire.PeersList](own, own.call(wire.TypeListPeers, nil)).Peers); n != 3 {
			t.Errorf("%d peers", n)
		}
		a.event("peer_hidden")
	})
}
