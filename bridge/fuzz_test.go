package bridge

import (
	"context"
	"testing"
	"time"

	"claudemesh/wire"
)

// FuzzFrame feeds one frame to a connection with a send and a call in flight: nothing the broker says may panic or block the reader.
func FuzzFrame(f *testing.F) {
	for _, s := range []string{
		`{"type":"hello_ack","capabilities":["client_ack"]}`, `{"type":"ack","id":"s"}`, `{"type":"ack","_reqId":"c","error":"x"}`, `{"type":"error","code":"revoked"}`,
		`{"type":"error","id":"c"}`, `{"type":"push","subtype":"system"}`, `{"type":"push","messageId":"x"}`, `{"type":"receipt","mailId":"r"}`, `{"type":"x","_reqId":"c"}`, `{`, ``,
	} {
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, data []byte, welcomed bool) {
		l := NewLink(LinkConfig{})
		c := &conn{link: l, sends: newPending(1), calls: newPending(1), welcome: make(chan wire.HelloAck, 1), welcomed: welcomed, hangUp: func() {}}
		c.ctx, c.cancel = context.WithCancelCause(context.Background())
		defer c.cancel(nil)
		c.mailCtx, c.stopMail = context.WithCancel(c.ctx)
		c.sends.add("s")
		c.calls.add("c")
		began := time.Now()
		for range 3 {
			_ = c.take(data)
		}
		if time.Since(began) > 5*time.Second {
			t.Fatal("the reader was held up")
		}
	})
}
