package broker

import (
	"errors"
	"fmt"

	"github.com/gorilla/websocket"

	"claudemesh/wire"
)

// handle answers one frame. Every request gets an answer, refused ones too.
func (c *conn) handle(data []byte) {
	if c.refused {
		return
	}
	head, err := wire.Peek(data)
	if err != nil {
		c.bad(err)
		return
	}
	if c.mesh == nil {
		switch head.Type {
		case wire.TypeHello:
			c.hello(data)
		case wire.TypeSessionHello:
			c.sessionHello(data)
		default:
			c.garbage++
			c.fail("", wire.CodeNoHello, "must send hello first")
			c.limitGarbage()
		}
		return
	}
	c.garbage = 0
	o, known := ops[head.Type]
	switch {
	case head.Type == wire.TypeHello, head.Type == wire.TypeSessionHello:
		c.fail(head.ReqID, wire.CodeInvalid, "already said hello on this socket")
	case !known:
		c.fail(head.ReqID, wire.CodeUnknownType, fmt.Sprintf("unknown message type %.64q", head.Type))
	default:
		if no := c.authorize(head.Type); no != nil {
			c.fail(head.ReqID, no.code, no.message)
			return
		}
		c.b.figures.asked[head.Type].Inc()
		o(c, data, head.ReqID)
	}
}

// bad answers a frame whose head cannot be read. A client that sends nothing else is let go.
func (c *conn) bad(err error) {
	c.garbage++
	code := wire.CodeMalformed
	if errors.Is(err, wire.ErrInvalid) {
		code = wire.CodeInvalid
	}
	c.fail("", code, err.Error())
	c.limitGarbage()
}

func (c *conn) limitGarbage() {
	if c.garbage > maxGarbage {
		c.close(websocket.ClosePolicyViolation, "too many malformed frames")
	}
}

// decode reads a request into v, answering for itself when that fails.
func (c *conn) decode(data []byte, reqID string, v any) bool {
	err := wire.Decode(data, v)
	if err != nil {
		c.fail(reqID, wire.CodeInvalid, err.Error())
	}
	return err == nil
}

// done answers a request that has no answer of its own, if it asked for one.
func (c *conn) done(reqID string) {
	if reqID != "" {
		c.reply(wire.Ack{Type: wire.TypeAck, ReqID: reqID})
	}
}
