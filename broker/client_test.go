package broker

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"claudemesh/wire"
)

// client is one WebSocket. Frames are read by a goroutine into a queue without bound, so that a test never slows the broker by accident.
type client struct {
	t    testing.TB
	ws   *websocket.Conn
	got  chan []byte
	end  chan struct{}
	err  error // valid after end
	seq  int
	held [][]byte // read while waiting for something else
}

func (r *rig) dial() *client { r.t.Helper(); return dialWS(r.t, r.wsURL()) }

func dialWS(t testing.TB, url string) *client {
	t.Helper()
	ws, _, err := websocket.DefaultDialer.Dial(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return adopt(t, ws)
}

func adopt(t testing.TB, ws *websocket.Conn) *client {
	c := &client{t: t, ws: ws, got: make(chan []byte, 100_000), end: make(chan struct{})}
	go func() {
		defer close(c.end)
		for {
			_, data, err := ws.ReadMessage()
			if err != nil {
				c.err = err
				ws.Close()
				return
			}
			c.got <- data
		}
	}()
	t.Cleanup(func() { c.close() })
	return c
}

func (c *client) close() {
	_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(time.Second))
	select {
	case <-c.end:
	case <-time.After(2 * time.Second):
		c.ws.Close()
		<-c.end
	}
}

func (c *client) write(v any) {
	c.t.Helper()
	data, ok := v.([]byte)
	if !ok {
		var err error
		if data, err = json.Marshal(v); err != nil {
			c.t.Fatal(err)
		}
	}
	if err := c.ws.WriteMessage(websocket.TextMessage, data); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// next returns the first frame that fits, keeping the others for later calls.
func (c *client) next(fits func(head wire.Head, data []byte) bool) []byte {
	c.t.Helper()
	for i, data := range c.held {
		if h, _ := wire.Peek(data); fits(h, data) {
			c.held = append(c.held[:i], c.held[i+1:]...)
			return data
		}
	}
	limit := time.After(patience)
	for {
		select {
		case data := <-c.got:
			if h, _ := wire.Peek(data); fits(h, data) {
				return data
			}
			c.held = append(c.held, data)
		case <-c.end:
			select {
			case data := <-c.got:
				if h, _ := wire.Peek(data); fits(h, data) {
					return data
				}
				c.held = append(c.held, data)
				continue
			default:
			}
			c.t.Fatalf("socket ended (%v) while waiting; held %d: %.300s", c.err, len(c.held), bytes.Join(c.held, []byte("\n")))
		case <-limit:
			c.t.Fatalf("no such frame; held %d: %.600s", len(c.held), bytes.Join(c.held, []byte("\n")))
		}
	}
}

func into[T any](c *client, data []byte) T {
	c.t.Helper()
	var v T
	if err := json.Unmarshal(data, &v); err != nil {
		c.t.Fatal(err)
	}
	return v
}

func (c *client) wait(frameType string) []byte {
	c.t.Helper()
	return c.next(func(h wire.Head, _ []byte) bool { return h.Type == frameType })
}

// message waits for the next push that is a message.
func (c *client) message() wire.Push {
	c.t.Helper()
	return into[wire.Push](c, c.next(func(h wire.Head, d []byte) bool {
		return h.Type == wire.TypePush && !bytes.Contains(d, []byte(`"subtype":"system"`))
	}))
}

func (c *client) event(name string) wire.Push {
	c.t.Helper()
	return into[wire.Push](c, c.next(func(h wire.Head, d []byte) bool {
		return h.Type == wire.TypePush && bytes.Contains(d, []byte(`"event":"`+name+`"`))
	}))
}

// eventOf waits for an event about one routing key.
func (c *client) eventOf(name, key string) wire.Push {
	c.t.Helper()
	return into[wire.Push](c, c.next(func(h wire.Head, d []byte) bool {
		return h.Type == wire.TypePush && bytes.Contains(d, []byte(`"event":"`+name+`"`)) && bytes.Contains(d, []byte(key))
	}))
}

// call sends a request and returns its answer.
func (c *client) call(frameType string, fields map[string]any) []byte {
	c.t.Helper()
	c.seq++
	id := fmt.Sprintf("q%d", c.seq)
	f := map[string]any{"type": frameType, "_reqId": id}
	for k, v := range fields {
		f[k] = v
	}
	c.write(f)
	return c.next(func(h wire.Head, _ []byte) bool { return h.ReqID == id })
}

// settle returns once the broker has handled everything this client wrote before.
func (c *client) settle() { c.t.Helper(); c.call(wire.TypeListPeers, nil) }

// quiet fails if a message has been pushed; call it after something that orders it behind.
func (c *client) quiet() {
	c.t.Helper()
	for {
		select {
		case data := <-c.got:
			c.held = append(c.held, data)
			continue
		default:
		}
		break
	}
	for _, data := range c.held {
		if h, _ := wire.Peek(data); h.Type == wire.TypePush && !bytes.Contains(data, []byte(`"subtype":"system"`)) {
			c.t.Fatalf("unexpected %s", data)
		}
	}
}

// closed waits for the end of the socket and returns the close code and reason.
func (c *client) closed() (int, string) {
	c.t.Helper()
	select {
	case <-c.end:
	case <-time.After(patience):
		c.t.Fatal("socket still open")
	}
	if e, ok := c.err.(*websocket.CloseError); ok {
		return e.Code, e.Text
	}
	return 0, c.err.Error()
}

func sendFrame(id, target, text string) wire.Send {
	return wire.Send{
		Type: wire.TypeSend, ID: id, ClientMessageID: id, TargetSpec: target, Priority: wire.PriorityNext, Nonce: "bm9uY2U=",
		Ciphertext: base64.StdEncoding.EncodeToString([]byte(text)),
	}
}

// send sends one message and returns its ack.
func (c *client) send(f wire.Send) wire.Ack {
	c.t.Helper()
	c.write(f)
	return c.ack(f.ID)
}

func (c *client) ack(id string) wire.Ack {
	c.t.Helper()
	return into[wire.Ack](c, c.next(func(h wire.Head, d []byte) bool {
		return h.Type == wire.TypeAck && bytes.Contains(d, []byte(`"id":"`+id+`"`))
	}))
}

func (c *client) mustSend(f wire.Send) wire.Ack {
	c.t.Helper()
	a := c.send(f)
	if !a.Queued {
		c.t.Fatalf("send refused: %+v", a)
	}
	return a
}

func text(p wire.Push) string {
	b, _ := base64.StdEncoding.DecodeString(p.Ciphertext)
	return string(b)
}

func (c *client) clientAck(p wire.Push, state string) {
	c.t.Helper()
	c.write(wire.ClientAck{Type: wire.TypeClientAck, BrokerMessageID: p.MessageID, ClientMessageID: p.ClientMessageID, State: state})
}

// ask is call with a frame's type.
func (c *client) ask(op string, v any) []byte {
	c.t.Helper()
	fields := map[string]any{}
	if err := json.Unmarshal(mustJSON(c.t, v), &fields); err != nil {
		c.t.Fatal(err)
	}
	delete(fields, "type")
	return c.call(op, fields)
}
