package crowd

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"claudemesh/wire"
)

// OnFrame takes one frame of the broker; it runs on the client's reader, so a slow one is a slow client.
type OnFrame func(c *Client, frameType string, data []byte)

// Discard is an OnFrame for who only sends.
func Discard(*Client, string, []byte) {}

// ErrRefused is wrapped when the broker answers with an error.
var ErrRefused = errors.New("refused")

// Client is one socket with one reader. Its methods may be called by any goroutine.
type Client struct {
	ws    *websocket.Conn
	on    OnFrame
	write sync.Mutex
	done  chan struct{}
	err   error // valid after done

	mu    sync.Mutex
	calls map[string]chan []byte // by request id; "" is the hello's
}

// shared are the write buffers of all clients: ten thousand idle ones must not cost the machine that measures a broker.
var dialer = websocket.Dialer{ReadBufferSize: 512, WriteBufferSize: 4096, WriteBufferPool: &sync.Pool{}, HandshakeTimeout: patience}

// Dial opens a socket and says nothing on it.
func Dial(ctx context.Context, url string, on OnFrame) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ws, resp, err := dialer.DialContext(ctx, url, nil)
	if err != nil {
		if resp != nil {
			return nil, fmt.Errorf("dial broker: %w: %s", err, resp.Status)
		}
		return nil, fmt.Errorf("dial broker: %w", err)
	}
	c := &Client{ws: ws, on: on, done: make(chan struct{}), calls: map[string]chan []byte{}}
	go c.read()
	return c, nil
}

// WS is the socket itself, for who means to misbehave.
func (c *Client) WS() *websocket.Conn { return c.ws }

func (c *Client) read() {
	defer close(c.done)
	defer c.ws.Close()
	for {
		_, data, err := c.ws.ReadMessage()
		if err != nil {
			c.err = err
			return
		}
		frameType := typeOf(data)
		if !c.answered(frameType, data) {
			c.on(c, frameType, data)
		}
	}
}

// answered hands the answer of a Call to it.
func (c *Client) answered(frameType string, data []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.calls) == 0 {
		return false
	}
	h, _ := wire.Peek(data)
	if ch := c.calls[h.ReqID]; ch != nil && (h.ReqID != "" || frameType == wire.TypeHelloAck || frameType == wire.TypeError) {
		delete(c.calls, h.ReqID)
		ch <- data
		return true
	}
	return false
}

// typeOf is a frame's type, found without decoding it: whoever measures a broker on the same machine should cost little.
func typeOf(data []byte) string {
	if rest, ok := bytes.CutPrefix(data, []byte(`{"type":"`)); ok {
		if end := bytes.IndexByte(rest, '"'); end >= 0 {
			return string(rest[:end])
		}
	}
	h, _ := wire.Peek(data)
	return h.Type
}

// Field is a string field of a frame, found without decoding it; it is for ids, which hold nothing that JSON escapes.
func Field(data []byte, name string) string {
	_, rest, ok := bytes.Cut(data, []byte(`"`+name+`":"`))
	if !ok {
		return ""
	}
	value, _, _ := bytes.Cut(rest, []byte{'"'})
	return string(value)
}

// Write sends one frame: bytes as they are, anything else as JSON.
func (c *Client) Write(v any) error {
	data, ok := v.([]byte)
	if !ok {
		var err error
		if data, err = json.Marshal(v); err != nil {
			return err
		}
	}
	c.write.Lock()
	defer c.write.Unlock()
	return c.ws.WriteMessage(websocket.TextMessage, data)
}

// Greet says hello and waits for the answer. Errors wrap ErrRefused when the broker said no.
func (c *Client) Greet(ctx context.Context, hello any) error {
	_, err := c.Call(ctx, hello, "")
	return err
}

// Call sends a request whose answer carries reqID and returns the answer. Errors wrap ErrRefused when that is an error frame.
func (c *Client) Call(ctx context.Context, v any, reqID string) ([]byte, error) {
	answer := make(chan []byte, 1)
	c.mu.Lock()
	c.calls[reqID] = answer
	c.mu.Unlock()
	if err := c.Write(v); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var data []byte
	select {
	case data = <-answer:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.done:
		select {
		case data = <-answer: // the last thing it said
		default:
			return nil, fmt.Errorf("broker hung up: %w", c.err)
		}
	}
	if typeOf(data) == wire.TypeError {
		return nil, fmt.Errorf("%w: %.300s", ErrRefused, data)
	}
	return data, nil
}

// Done is closed when the socket has ended; Err then says how.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is why the socket ended; call it after Done.
func (c *Client) Err() error { return c.err }

// Close says goodbye and waits for the broker's, for a while: who just drops a socket may take back what it wrote last.
func (c *Client) Close() {
	if c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second)) == nil {
		t := time.NewTimer(5 * time.Second)
		defer t.Stop()
		select {
		case <-c.done:
		case <-t.C:
		}
	}
	c.ws.Close()
	<-c.done
}

// Send is a send whose id and client message id are the same.
func Send(id, target, text string) wire.Send {
	return wire.Send{
		Type: wire.TypeSend, ID: id, ClientMessageID: id, TargetSpec: target, Priority: wire.PriorityNext, Nonce: "bm9uY2U=",
		Ciphertext: base64.StdEncoding.EncodeToString([]byte(text)),
	}
}
