package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"claudemesh/wire"
)

// fields is a JSON object.
type fields map[string]any

// socket is one WebSocket. A goroutine reads it until it ends.
type socket struct {
	ws    *websocket.Conn
	quiet time.Duration
	asked map[string]bool // of the check under way: the types it has driven
	seq   int
	done  chan struct{}

	mu     sync.Mutex
	frames []fields      // read, not taken
	news   chan struct{} // capacity 1
	end    error         // why reading ended
	code   int           // close code, 0 when there was none
	reason string
}

func dial(ctx context.Context, url string, quiet time.Duration, asked map[string]bool) (*socket, error) {
	ws, _, err := websocket.DefaultDialer.DialContext(ctx, url, nil)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", url, err)
	}
	ws.SetReadLimit(16 << 20)
	s := &socket{ws: ws, quiet: quiet, asked: asked, done: make(chan struct{}), news: make(chan struct{}, 1)}
	go s.read()
	return s, nil
}

func (s *socket) read() {
	defer close(s.done)
	for {
		_, data, err := s.ws.ReadMessage()
		s.mu.Lock()
		if err != nil {
			s.end = err
			var c *websocket.CloseError
			if errors.As(err, &c) {
				s.code, s.reason = c.Code, c.Text
			}
			s.mu.Unlock()
			return
		}
		var f fields
		if json.Unmarshal(data, &f) == nil && len(s.frames) < 100_000 {
			s.frames = append(s.frames, f)
		}
		s.mu.Unlock()
		select {
		case s.news <- struct{}{}:
		default:
		}
	}
}

func (s *socket) close() {
	_ = s.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
	select {
	case <-s.done:
	case <-time.After(s.quiet):
		s.ws.Close()
		<-s.done
	}
	s.ws.Close()
}

func (s *socket) write(v any) {
	data, err := json.Marshal(v)
	if head, headErr := wire.Peek(data); headErr == nil {
		s.asked[head.Type] = true
	}
	if err == nil {
		err = s.ws.WriteMessage(websocket.TextMessage, data)
	}
	if err != nil {
		panic(stop{differs("the socket cannot be written to: %v", err)})
	}
}

// take removes and returns the first frame that fits, waiting up to the quiet time for it; nil when none came, or the socket ended.
func (s *socket) take(fits func(fields) bool) fields {
	limit := time.NewTimer(s.quiet)
	defer limit.Stop()
	for {
		s.mu.Lock()
		for i, f := range s.frames {
			if fits(f) {
				s.frames = append(s.frames[:i:i], s.frames[i+1:]...)
				s.mu.Unlock()
				return f
			}
		}
		ended := s.end != nil
		s.mu.Unlock()
		if ended {
			return nil
		}
		select {
		case <-s.news:
		case <-s.done:
		case <-limit.C:
			return nil
		}
	}
}

// closed waits for the end of the socket; false when it did not end.
func (s *socket) closed() (code int, reason string, ended bool) {
	select {
	case <-s.done:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.code, s.reason, true
	case <-time.After(s.quiet):
		return 0, "", false
	}
}

// reply is the answer to a request; frame nil means that none came.
type reply struct {
	frame fields
	reqID string
}

// ask sends a request and waits for what carries its id, in _reqId or, as some handlers of the reference do, in id. A broker that does not know the type
// ends the check as unsupported.
func (s *socket) ask(op string, in fields) reply {
	s.seq++
	id := fmt.Sprintf("%s-%d", op, s.seq)
	f := fields{"type": op, "_reqId": id}
	for k, v := range in {
		f[k] = v
	}
	s.write(f)
	got := s.take(func(f fields) bool { return f["_reqId"] == id || f["id"] == id })
	if got["type"] == wire.TypeError && got["code"] == wire.CodeUnknownType {
		panic(stop{finding{verdict: Unsupported}})
	}
	return reply{got, id}
}

// must is ask for an answer of that type; anything else ends the check.
func (s *socket) must(op string, in fields, kind string) fields {
	r := s.ask(op, in)
	if r.frame == nil {
		panic(stop{finding{verdict: Unsupported, detail: "no answer to " + op}})
	}
	if r.frame["type"] != kind {
		panic(stop{differs("%s is answered by %s", op, show(r.frame))})
	}
	return r.frame
}

// fence returns when everything sent before has been handled, as far as one can know: a later request is answered.
func (s *socket) fence() {
	s.must(wire.TypeListPeers, nil, wire.TypePeersList)
}

// quietly is ask for a type that the reference never answers: an answer is fine, an error is not.
func (s *socket) quietly(op string, in fields) {
	r := s.ask(op, in)
	if r.frame["type"] == wire.TypeError {
		panic(stop{differs("%s is refused: %s", op, show(r.frame))})
	}
	s.fence()
}

// need ends the check when a frame lacks a field or has another value; a nil want asks for presence only.
func need(f fields, wants fields) {
	for k, want := range wants {
		got, ok := f[k]
		if !ok {
			panic(stop{differs("%s is missing in %s", k, show(f))})
		}
		if want != nil && !reflect.DeepEqual(normal(want), got) {
			panic(stop{differs("%s is %v, expected %v, in %s", k, got, want, show(f))})
		}
	}
}

// normal is v as it looks after a journey through JSON.
func normal(v any) any {
	data, err := json.Marshal(v)
	if err != nil {
		return v
	}
	var out any
	if json.Unmarshal(data, &out) != nil {
		return v
	}
	return out
}

// rows is a list of objects.
func rows(f fields, key string) []fields {
	list, ok := f[key].([]any)
	if !ok {
		panic(stop{differs("%s is no list in %s", key, show(f))})
	}
	out := make([]fields, 0, len(list))
	for _, e := range list {
		if m, ok := e.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

// row is the one with that value.
func row(list []fields, key string, value any) fields {
	for _, r := range list {
		if r[key] == value {
			return r
		}
	}
	return nil
}

func text(f fields, key string) string { s, _ := f[key].(string); return s }

func show(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(data[:min(len(data), 300)])
}
