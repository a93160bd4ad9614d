package faultproxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// maxFrame bounds a frame that passes, in bytes: the largest that a reference broker takes.
const maxFrame = 16 << 20

// serveFrames speaks WebSocket to both sides and passes frames through the hook. A close frame is passed on with its code.
func (p *Proxy) serveFrames(l *link) {
	defer l.drop(l.client)
	defer context.AfterFunc(l.ctx, func() { l.drop(l.client) })()
	request, reader, err := readRequest(l.client)
	if err != nil {
		return
	}
	if !websocket.IsWebSocketUpgrade(request) {
		p.serveRequest(l, request)
		return
	}
	dialer := websocket.Dialer{NetDialContext: p.dial, HandshakeTimeout: 10 * time.Second}
	broker, _, err := dialer.DialContext(l.ctx, p.scheme+"://"+p.target+request.URL.RequestURI(), nil)
	if err != nil {
		return
	}
	defer func() { l.drop(broker.NetConn()) }()
	client, err := new(websocket.Upgrader).Upgrade(&hijacked{conn: l.client, reader: reader}, request, nil)
	if err != nil {
		return
	}
	toBroker, toClient := &sender{ws: broker}, &sender{ws: client}
	p.mu.Lock()
	l.inject = func(d Dir, frame []byte) error {
		if d == ToBroker {
			return toBroker.send(frame)
		}
		return toClient.send(frame)
	}
	p.mu.Unlock()
	var pumps sync.WaitGroup
	pumps.Go(func() { p.pass(l, ToBroker, toBroker, client) })
	pumps.Go(func() { p.pass(l, ToClient, toClient, broker) })
	<-l.ctx.Done()
	l.drop(l.client)
	l.drop(broker.NetConn())
	pumps.Wait()
}

// serveRequest passes one plain HTTP request and its answer, for instance POST /join; the hook does not see them.
func (p *Proxy) serveRequest(l *link, request *http.Request) {
	broker, err := p.dial(l.ctx, "tcp", p.target)
	if err != nil {
		return
	}
	defer broker.Close()
	defer context.AfterFunc(l.ctx, func() { reset(broker) })()
	l.polite.Store(true)
	request.Close = true // the broker ends the connection after its answer
	if request.Write(broker) == nil {
		_, _ = io.Copy(l.client, broker)
	}
}

func (p *Proxy) pass(l *link, d Dir, to *sender, from *websocket.Conn) {
	defer l.cancel()
	from.SetReadLimit(maxFrame)
	for {
		_, frame, err := from.ReadMessage()
		if c := new(websocket.CloseError); errors.As(err, &c) && c.Code != websocket.CloseAbnormalClosure && c.Code != websocket.CloseNoStatusReceived {
			l.polite.Store(true)
			to.close(c.Code, c.Text)
		}
		if err != nil {
			return
		}
		for _, f := range p.ask(d, frame) {
			if !p.pause(l) || to.send(f) != nil {
				return
			}
		}
	}
}

// sender serialises the writes to one side: the pump's and the injected ones.
type sender struct {
	mu sync.Mutex
	ws *websocket.Conn
}

func (s *sender) send(frame []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ws.WriteMessage(websocket.TextMessage, frame)
}

func (s *sender) close(code int, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, text), time.Now().Add(time.Second))
}

func readRequest(c net.Conn) (*http.Request, *bufio.Reader, error) {
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	r := bufio.NewReader(c)
	request, err := http.ReadRequest(r)
	if err != nil {
		return nil, nil, err
	}
	return request, r, c.SetReadDeadline(time.Time{})
}

// hijacked lets the upgrader work on a connection that has no http.Server: one goroutine less to own for each connection.
type hijacked struct {
	conn   net.Conn
	reader *bufio.Reader
	header http.Header
}

func (h *hijacked) Header() http.Header {
	if h.header == nil {
		h.header = http.Header{}
	}
	return h.header
}
func (h *hijacked) Write(b []byte) (int, error) { return h.conn.Write(b) }
func (h *hijacked) WriteHeader(int)             {}
func (h *hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(h.reader, bufio.NewWriter(h.conn)), nil
}
