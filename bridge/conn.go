package bridge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"claudemesh/wire"
)

// conn is one connection of a link: one reader, one writer. Its context ends with it, and the context's cause says why; the first cause counts.
type conn struct {
	link   *Link
	ws     *websocket.Conn
	hangUp func() // closes the socket, whoever is reading or writing
	ctx    context.Context
	cancel context.CancelCauseFunc
	out    chan outgoing

	sends, calls *pending
	welcome      chan wire.HelloAck
	notices      chan notice
	capabilities []string    // written before the connection becomes the link's current one
	welcomed     bool        // reader only
	malformed    int         // reader only
	broken       atomic.Bool // a push was not stored: nothing more of this connection is handed over
	mailCtx      context.Context
	stopMail     context.CancelFunc // frees a reader that waits for room in the mailroom
}

// notice is a frame for OnFrame.
type notice struct {
	kind string
	data []byte
}

type outgoing struct {
	data    []byte
	written chan<- struct{} // closed when the socket took it; may be nil
}

// connect makes one connection and serves it until it ends. It returns how long the connection was open (0: never) and why it ended.
func (l *Link) connect(ctx context.Context) (time.Duration, error) {
	hello, err := l.cfg.Hello(l.clock.Now())
	if err != nil {
		return 0, fmt.Errorf("make hello: %w", err)
	}
	data, err := wire.Encode(hello)
	if err != nil {
		return 0, err
	}
	ws, err := l.dial(ctx)
	if err != nil {
		return 0, err
	}
	c := &conn{link: l, ws: ws, hangUp: func() { _ = ws.Close() }, out: make(chan outgoing, 256), sends: newPending(256), calls: newPending(256), welcome: make(chan wire.HelloAck, 1), notices: make(chan notice, 64)}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	c.mailCtx, c.stopMail = context.WithCancel(c.ctx)
	defer c.stopMail()
	c.out <- outgoing{data: data}

	reader, writer, teller := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() { defer close(teller); c.tell() }()
	go func() { defer close(reader); c.read() }()
	go func() { defer close(writer); c.write() }()
	opened := c.awaitWelcome()
	<-c.ctx.Done()
	l.current.Store(nil)
	if ctx.Err() != nil {
		// A stop asked for by us: the writer says what is queued, and goodbye.
		select {
		case <-writer:
		case <-time.After(farewell):
		}
	}
	c.hangUp()
	<-writer
	<-reader
	<-teller
	if opened.IsZero() {
		return 0, context.Cause(c.ctx)
	}
	return l.clock.Since(opened), context.Cause(c.ctx)
}

// tell hands notices over until the connection ends.
func (c *conn) tell() {
	for {
		select {
		case n := <-c.notices:
			c.link.cfg.OnFrame(c.ctx, n.kind, n.data)
		case <-c.ctx.Done():
			return
		}
	}
}

// farewell bounds the flush of queued frames when a link is stopped.
const farewell = 500 * time.Millisecond

func (l *Link) dial(ctx context.Context) (*websocket.Conn, error) {
	d := websocket.Dialer{NetDialContext: l.cfg.Dial, HandshakeTimeout: l.cfg.limits.dial}
	if l.cfg.Dial == nil {
		d.Proxy = http.ProxyFromEnvironment
	}
	if l.cfg.TLS != nil {
		var err error
		if d.TLSClientConfig, err = l.cfg.TLS(); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.limits.dial)
	defer cancel()
	ws, answer, err := d.DialContext(ctx, l.cfg.URL, nil)
	if errors.Is(err, websocket.ErrBadHandshake) && answer != nil {
		return nil, fmt.Errorf("no websocket at the broker's address: http status %d", answer.StatusCode)
	}
	if err != nil {
		return nil, fmt.Errorf("dial broker: %w", err)
	}
	ws.SetReadLimit(wire.MaxFrameBytes)
	return ws, nil
}

// awaitWelcome waits for hello_ack and opens the link. It returns the zero time when the connection ended first.
func (c *conn) awaitWelcome() time.Time {
	l := c.link
	deadline := l.clock.NewTimer(l.cfg.limits.hello)
	defer deadline.Stop()
	var mode string
	select {
	case ack := <-c.welcome:
		c.capabilities, mode = ack.Capabilities, ack.MemberProfile.MessageMode
	case <-deadline.Chan():
		c.end(errHelloTimeout)
		return time.Time{}
	case <-c.ctx.Done():
		return time.Time{}
	}
	if err := l.cfg.OnWelcome(c.capabilities); err != nil {
		c.end(err)
		return time.Time{}
	}
	select {
	case <-l.kick: // it asked for what has just been achieved
	default:
	}
	l.current.Store(c)
	opened := l.clock.Now()
	l.log.Info("broker link open")
	l.enter(func(s *State) {
		s.Phase, s.Err, s.Attempts, s.Capabilities, s.MessageMode = Open, "", 0, c.capabilities, mode
	})
	return opened
}

// end closes the connection. Only the first cause is kept.
func (c *conn) end(cause error) {
	c.cancel(cause)
	c.hangUp()
}

// queue hands a frame to the writer. ErrNotOpen: the connection ended first, the frame never left.
func (c *conn) queue(ctx context.Context, data []byte, written chan<- struct{}) error {
	if c.ctx.Err() != nil {
		return ErrNotOpen
	}
	select {
	case c.out <- outgoing{data, written}:
		return nil
	case <-c.ctx.Done():
		return ErrNotOpen
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write is the only goroutine that writes data frames. It pings too, because a socket that died without a word is only noticed by a missing pong.
func (c *conn) write() {
	limits := c.link.cfg.limits
	ping := time.NewTicker(limits.ping)
	defer ping.Stop()
	for {
		select {
		case <-c.ctx.Done():
			c.sayGoodbye()
			return
		case <-ping.C:
			if err := c.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(limits.write)); err != nil {
				c.unwritten(fmt.Errorf("ping broker: %w", err))
				return
			}
		case o := <-c.out:
			if err := c.put(o, time.Now().Add(limits.write)); err != nil {
				c.unwritten(fmt.Errorf("write to broker: %w", err))
				return
			}
		}
	}
}

// unwritten ends the connection because something could not be written to it. After the broker's close frame was answered nothing can be: then the reader is about to
// say why the broker closed, and that it kicked us must not be lost to this race.
func (c *conn) unwritten(err error) {
	if errors.Is(err, websocket.ErrCloseSent) {
		<-c.ctx.Done()
		return
	}
	c.end(err)
}

func (c *conn) put(o outgoing, deadline time.Time) error {
	if err := c.ws.SetWriteDeadline(deadline); err != nil {
		return err
	}
	if err := c.ws.WriteMessage(websocket.TextMessage, o.data); err != nil {
		return err
	}
	if o.written != nil {
		close(o.written)
	}
	return nil
}

// sayGoodbye writes what is queued and a close frame. On a socket that was closed already, the first write fails and ends it.
func (c *conn) sayGoodbye() {
	deadline := time.Now().Add(farewell)
	for {
		select {
		case o := <-c.out:
			if c.put(o, deadline) != nil {
				return
			}
		default:
			bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
			_ = c.ws.WriteControl(websocket.CloseMessage, bye, deadline)
			return
		}
	}
}
