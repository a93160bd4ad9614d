package bridge

import (
	"encoding/json"
	"fmt"
	"time"

	"claudemesh/wire"
)

// read is the connection's only reader. Answers go straight to those who wait for them; pushes go to the mailroom, which may make the reader wait.
func (c *conn) read() {
	wait := c.link.cfg.limits.read
	alive := func() { _ = c.ws.SetReadDeadline(time.Now().Add(wait)) }
	c.ws.SetPongHandler(func(string) error { alive(); return nil })
	answerPing := c.ws.PingHandler()
	c.ws.SetPingHandler(func(data string) error { alive(); return answerPing(data) })
	for {
		alive() // again before every read: the mailroom may have held us longer than the deadline
		_, data, err := c.ws.ReadMessage()
		if err != nil {
			c.end(fmt.Errorf("read from broker: %w", err))
			return
		}
		if err := c.take(data); err != nil {
			c.link.counts.malformed.Add(1)
			c.link.log.Debug("malformed frame from broker", "error", err)
			if c.malformed++; c.malformed > c.link.cfg.limits.garbage {
				c.end(errGarbage)
				return
			}
		}
	}
}

// take routes one frame. Its error means that the frame could not be understood.
func (c *conn) take(data []byte) error {
	head, err := wire.Peek(data)
	if err != nil {
		return err
	}
	switch head.Type {
	case wire.TypeHelloAck:
		return c.takeWelcome(data)
	case wire.TypeAck:
		return c.takeAck(data)
	case wire.TypeError:
		return c.takeError(data)
	case wire.TypePush:
		var p wire.Push
		if err := wire.Decode(data, &p); err != nil {
			return err
		}
		c.link.mail.put(parcel{from: c, push: &p, size: len(data)})
		return nil
	case wire.TypeReceipt:
		var r wire.Receipt
		if err := wire.Decode(data, &r); err != nil {
			return err
		}
		c.link.mail.put(parcel{from: c, receipt: &r, size: len(data)})
		return nil
	}
	switch {
	case c.calls.resolve(head.ReqID, answer{frame: data}):
	case head.ReqID != "":
		c.link.counts.unmatched.Add(1)
	default:
		c.notify(head.Type, data)
	}
	return nil
}

func (c *conn) notify(kind string, data []byte) {
	if c.link.cfg.OnFrame != nil {
		select {
		case c.notices <- notice{kind, data}:
			return
		default:
		}
	}
	c.link.counts.unknown.Add(1)
}

func (c *conn) takeWelcome(data []byte) error {
	if c.welcomed {
		return nil
	}
	// Only what is needed is decoded: the rest of a hello_ack differs between brokers, and none of it decides whether the link is open.
	var ack struct {
		Capabilities []string        `json:"capabilities"`
		Profile      json.RawMessage `json:"memberProfile"`
	}
	if err := wire.Decode(data, &ack); err != nil {
		return err
	}
	var profile wire.MemberProfile
	_ = json.Unmarshal(ack.Profile, &profile) // a strange one says nothing
	c.welcomed = true
	c.welcome <- wire.HelloAck{Capabilities: ack.Capabilities, MemberProfile: wire.MemberProfile{MessageMode: clean(profile.MessageMode, 16)}}
	return nil
}

// takeAck gives an ack to the send or the call that waits for it. The reference uses this frame also as a general answer, with the request id in _reqId and,
// or only, in id.
func (c *conn) takeAck(data []byte) error {
	var ack wire.Ack
	if err := wire.Decode(data, &ack); err != nil {
		return err
	}
	general := answer{frame: data}
	if ack.Error != "" {
		general = answer{err: brokerError(ack.Code, ack.Error)}
	}
	switch {
	case c.calls.resolve(ack.ReqID, general), c.sends.resolve(ack.ID, answer{frame: data}), c.calls.resolve(ack.ID, general):
	default:
		c.link.counts.unmatched.Add(1)
	}
	return nil
}

// takeError gives a refusal to the request it belongs to. Some handlers of the reference put the request id into id. An error that belongs to no request
// refuses the connection when it comes before hello_ack.
func (c *conn) takeError(data []byte) error {
	var e wire.Error
	if err := wire.Decode(data, &e); err != nil {
		return err
	}
	refused := brokerError(e.Code, e.Message)
	for _, id := range []string{e.ReqID, e.ID} {
		if a := (answer{err: refused}); c.calls.resolve(id, a) || c.sends.resolve(id, a) {
			return nil
		}
	}
	if !c.welcomed || e.Code == wire.CodeRevoked {
		c.end(&refusal{refused.Code})
		return nil
	}
	c.link.counts.unmatched.Add(1)
	c.link.log.Warn("broker reports an error", "code", refused.Code)
	return nil
}
