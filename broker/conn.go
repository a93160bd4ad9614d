package broker

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// conn is one socket, and after its hello one presence. Up to four goroutines serve it, all ended before serve returns: the reader handles frames one after
// the other, the writer alone writes messages, the acker (from the first send on) answers sends in order, the pump (while there is mail) reads the
// mailboxes. Ten thousand idle connections are to fit in a few hundred megabytes, so what only a busy one needs is made when it is needed.
type conn struct {
	b    *Broker
	ws   *websocket.Conn
	log  *slog.Logger
	ctx  context.Context // ends when the socket is to be given up
	halt context.CancelFunc

	out      chan frame        // blocking: answers and mail
	events   eventQueue        // never blocks: presence events
	sends    chan *pendingSend // of the reader: nil until the first send
	acker    sync.WaitGroup
	readDone chan struct{}
	over     chan struct{} // closed when nothing of it runs any more
	closing  sync.Once
	garbage  int  // of the reader: bad frames in a row
	refused  bool // of the reader: its hello was

	// Set once by the hello, before the connection is registered; read-only after.
	mesh         *meshState
	member       *member
	isSession    bool
	sessionKey   string // routing key beside the member's: proven in a session_hello, claimed in a hello
	sessionID    string
	presenceID   string
	name         string
	keys         []string // mailboxes
	ownMulticast bool
	ownGating    bool
	caps         []string // what the session is limited to; nil: whatever its member may
	job          string   // what the session says it does
	receipts     bool
	topicEvents  bool
	changes      bool // it wants frames like skill_change
	since        time.Time
	place        place
	pump         *pump

	acking   atomic.Bool          // the client acknowledges pushes
	heard    atomic.Int64         // when it last gave a sign of life, Unix milliseconds
	busy     atomic.Bool          // presence.status is not idle
	draining atomic.Pointer[pump] // pump, for others than the reader

	// Guarded by Broker.mu.
	groups []mesh.Group
	presence
}

// place is what a client says about where it runs.
type place struct {
	pid                                     int64
	cwd, hostname, peerType, channel, model string
}

// frame is one message for the writer.
type frame struct {
	data   []byte
	hello  bool      // the hello_ack: events may follow
	refuse *farewell // close after it
	sent   func()    // called when the socket took the bytes
}

type farewell struct {
	code   int
	reason string
}

const (
	reasonReplaced = "session_replaced"
	reasonShutdown = "shutting down"
)

// routingKey is the key peers address this connection by.
func (c *conn) routingKey() string {
	if c.sessionKey != "" {
		return c.sessionKey
	}
	return c.member.Pubkey
}

// serve runs the connection until its socket ends.
func (c *conn) serve() {
	defer close(c.over)
	var wg sync.WaitGroup
	wg.Go(c.write)
	c.read()
	c.halt()
	close(c.readDone)
	if c.sends != nil {
		close(c.sends)
		c.acker.Wait()
	}
	if c.pump != nil {
		c.pump.wait()
	}
	wg.Wait()
	c.b.depart(c)
}

func (c *conn) read() {
	c.ws.SetReadLimit(helloMaxBytes)
	helloBy := time.Now().Add(c.b.lim.HelloDeadline)
	c.ws.SetReadDeadline(helloBy)
	alive := func() {
		if c.mesh != nil && c.ctx.Err() == nil {
			c.ws.SetReadDeadline(time.Now().Add(readDeadline))
		}
	}
	c.ws.SetPongHandler(func(string) error { c.hear(); alive(); return nil })
	for {
		_, data, err := c.ws.ReadMessage()
		if err != nil {
			var timeout net.Error
			if c.mesh == nil && errors.As(err, &timeout) && timeout.Timeout() {
				c.close(websocket.ClosePolicyViolation, "hello_timeout")
			}
			return
		}
		if c.ctx.Err() != nil {
			continue // the close frame is out; what still arrives is read only so that the peer sees it
		}
		if !c.survive(data) {
			return
		}
		alive()
	}
}

// survive handles a frame; a fault in that costs this connection and no other.
func (c *conn) survive(data []byte) (ok bool) {
	defer func() {
		if fault := recover(); fault != nil {
			c.log.Error("frame not handled", "panic", fault, "stack", string(debug.Stack()))
			c.close(websocket.CloseInternalServerErr, "internal")
			ok = false
		}
	}()
	c.handle(data)
	return true
}

// hear notes a sign of life.
func (c *conn) hear() { c.heard.Store(c.b.now().UnixMilli()) }

func (c *conn) write() {
	ping := c.b.clock.NewTicker(pingEvery)
	defer ping.Stop()
	greeted := false
	var events chan struct{} // nil until the hello_ack is out
	for {
		var f frame
		select {
		case <-c.ctx.Done():
			c.linger()
			return
		case f = <-c.out:
		case <-events:
			var ok bool
			if f.data, ok = c.events.take(); !ok {
				continue
			}
		case <-ping.Chan():
			if greeted && c.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(c.b.lim.WriteDeadline)) != nil {
				c.cut()
			}
			continue
		}
		c.ws.SetWriteDeadline(time.Now().Add(c.b.lim.WriteDeadline))
		if err := c.ws.WriteMessage(websocket.TextMessage, f.data); err != nil {
			c.cut()
			continue
		}
		if f.sent != nil {
			f.sent()
		}
		if f.hello {
			greeted, events = true, c.events.some
		}
		if f.refuse != nil {
			c.close(f.refuse.code, f.refuse.reason)
		}
	}
}

// linger waits a moment for the peer's close frame: closing a socket with unread bytes resets it, and the peer might lose the reason.
func (c *conn) linger() {
	t := time.NewTimer(lingerFor)
	defer t.Stop()
	select {
	case <-c.readDone:
	case <-t.C:
	}
	c.ws.Close()
}

// close sends a close frame, once, and gives the connection up.
func (c *conn) close(code int, reason string) {
	c.closing.Do(func() {
		// A failure means that the socket is dead or stuck; either way the writer closes it now.
		_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(lingerFor))
	})
	c.halt()
}

// cut drops the socket without ceremony.
func (c *conn) cut() {
	c.halt()
	c.ws.Close()
}

// push queues a frame for the writer, waiting for room. It reports false when the connection ended first.
func (c *conn) push(f frame) bool {
	select {
	case c.out <- f:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// offer is push without waiting: false when the client does not keep up, or the connection ended.
func (c *conn) offer(f frame) bool {
	select {
	case c.out <- f:
		return true
	default:
		return false
	}
}

// reply encodes and queues an answer.
func (c *conn) reply(v any) {
	data, err := wire.Encode(v)
	if err != nil {
		c.log.Error("answer not sent", "err", err)
		return
	}
	c.push(frame{data: data})
}

// fail answers a request with an error frame.
func (c *conn) fail(reqID, code, message string) {
	c.reply(wire.Error{Type: wire.TypeError, Code: code, Message: message, ReqID: reqID})
}

// refuse answers with an error frame and closes.
func (c *conn) refuse(code int, reason, errorCode, message string) {
	data, err := wire.Encode(wire.Error{Type: wire.TypeError, Code: errorCode, Message: message})
	if err != nil {
		c.close(code, reason)
		return
	}
	c.push(frame{data: data, refuse: &farewell{code, reason}})
}

// event queues a presence event, or drops it when the client does not keep up: events are hints, the list of peers is the truth.
func (c *conn) event(data []byte) {
	if !c.events.add(data) {
		c.b.dropped.Add(1)
	}
}

// eventQueue is a bounded queue that takes no room while it is empty.
type eventQueue struct {
	some chan struct{} // there is at least one

	mu      sync.Mutex
	waiting [][]byte
}

func (q *eventQueue) add(data []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) >= outboundEvents {
		return false
	}
	q.waiting = append(q.waiting, data)
	q.signal()
	return true
}

func (q *eventQueue) take() (data []byte, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		return nil, false
	}
	data, q.waiting[0], q.waiting = q.waiting[0], nil, q.waiting[1:]
	if len(q.waiting) == 0 {
		q.waiting = nil
	} else {
		q.signal()
	}
	return data, true
}

func (q *eventQueue) signal() {
	select {
	case q.some <- struct{}{}:
	default:
	}
}
