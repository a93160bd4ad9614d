package bus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// ServiceName is what `nats micro info` asks for.
const ServiceName = "claudemesh"

// DefaultInFlight bounds the requests that are being handled at one time; one more is answered 503 "busy".
const DefaultInFlight = 512

// Call is one request.
type Call struct {
	Subject string // as received
	Actor   string // who asks: User or a session id, pinned by the caller's permissions
	Slug    string // mesh.* only
	Op      string // the operation, or the kind of a send
	Data    []byte
	Trace   string // the caller's span as W3C traceparent, "" when it traces nothing
}

// Decode reads the request's JSON into v; an empty request leaves v as it is. It returns a 400 *APIError for anything that is not exactly one JSON value.
func (c *Call) Decode(v any) error {
	if len(c.Data) == 0 {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(c.Data))
	if err := dec.Decode(v); err != nil {
		return &APIError{Code: 400, Reason: "bad_request", Detail: "the request is not the JSON that this operation takes: " + err.Error()}
	}
	if dec.More() || len(bytes.TrimSpace(c.Data[dec.InputOffset():])) > 0 {
		return &APIError{Code: 400, Reason: "bad_request", Detail: "there is something after the request's JSON value"}
	}
	return nil
}

// Handler answers a call. It runs in a goroutine of its own. The result is marshalled to JSON, nil to {}. An *APIError is sent to the caller; the text of
// any other error is logged and not sent. ctx ends when the service shuts down.
type Handler func(ctx context.Context, c *Call) (any, error)

// Service is the one door for requests. It takes the caller's name from the subject and answers nobody but that caller: a request whose reply is not in
// the caller's own inbox is dropped, because NATS lets a requester name any reply subject.
type Service struct {
	nc    *nats.Conn
	svc   micro.Service
	log   *slog.Logger
	quiet *burst
	slots chan struct{}

	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	closing bool
	wg      sync.WaitGroup
	stats   map[string]*counters // by endpoint name
}

// counters are what the micro library cannot know, as it sees a handler end before the work starts.
type counters struct {
	InFlight int `json:"in_flight"`
	Refused  int `json:"refused"` // answered with an error
	Dropped  int `json:"dropped"` // forged reply subject
}

var semver = regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`)

// NewService registers the service on nc; use [Server.ServiceConn]. Version should be a semantic version; another one is shown as 0.0.0-<version>.
func NewService(nc *nats.Conn, version string, log *slog.Logger) (*Service, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	version = strings.TrimPrefix(version, "v")
	if !semver.MatchString(version) {
		version = "0.0.0-x" + regexp.MustCompile(`[^0-9A-Za-z-]+`).ReplaceAllString(version, "-")
	}
	s := &Service{
		nc: nc, log: log, quiet: &burst{clock: clockwork.NewRealClock(), n: 5},
		slots: make(chan struct{}, DefaultInFlight), stats: map[string]*counters{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	svc, err := micro.AddService(nc, micro.Config{
		Name: ServiceName, Version: version, Description: "claudemesh daemon",
		// A queue group could be joined by another subscriber, which would then swallow requests.
		QueueGroupDisabled: true,
		StatsHandler:       s.endpointStats,
	})
	if err != nil {
		s.cancel()
		return nil, fmt.Errorf("register service: %w", err)
	}
	s.svc = svc
	return s, nil
}

// Handle registers h for subject, a pattern like [AnySend]. Name ([A-Za-z0-9_-]+) is what `nats micro info` shows. A request over maxBytes is answered 413. When
// Handle returns, the server has the registration: a request sent from then on is heard.
func (s *Service) Handle(name, subject string, maxBytes int, h Handler) error {
	if maxBytes <= 0 || h == nil {
		return fmt.Errorf("register %s: a size limit and a handler are needed", name)
	}
	n := &counters{}
	s.mu.Lock()
	s.stats[name] = n
	s.mu.Unlock()
	err := s.svc.AddEndpoint(name, micro.HandlerFunc(func(r micro.Request) { s.serve(r, n, maxBytes, h) }), micro.WithEndpointSubject(subject))
	if err == nil {
		err = s.nc.FlushTimeout(DefaultConnectTimeout)
	}
	if err != nil {
		return fmt.Errorf("register %s: %w", name, err)
	}
	return nil
}

// serve does what must be quick and hands the rest to a goroutine.
func (s *Service) serve(r micro.Request, n *counters, maxBytes int, h Handler) {
	sub, err := ParseSubject(r.Subject())
	if err != nil || sub.Actor == "" {
		s.drop(r, n, "the subject names no caller")
		return
	}
	if !strings.HasPrefix(r.Reply(), InboxPrefix(sub.Actor)+".") {
		s.drop(r, n, "the reply is not in the caller's inbox")
		return
	}
	call := &Call{Subject: r.Subject(), Actor: sub.Actor, Slug: sub.Slug, Op: sub.Name, Data: r.Data(), Trace: cleanTrace(r.Headers().Get(traceHeader))}
	if len(call.Data) > maxBytes {
		s.refuse(r.Reply(), n, &APIError{
			Code: 413, Reason: "payload_too_large", Detail: fmt.Sprintf("the request has %d bytes, the limit is %d", len(call.Data), maxBytes),
			Data: map[string]any{"limit": maxBytes, "size": len(call.Data)},
		})
		return
	}
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		s.refuse(r.Reply(), n, &APIError{Code: 503, Reason: "shutting_down"})
		return
	}
	select {
	case s.slots <- struct{}{}:
	default:
		s.mu.Unlock()
		s.refuse(r.Reply(), n, &APIError{Code: 503, Reason: "busy", Detail: "too many requests at one time"})
		return
	}
	s.wg.Add(1)
	n.InFlight++
	s.mu.Unlock()
	go s.work(r.Reply(), n, call, h)
}

func (s *Service) work(reply string, n *counters, call *Call, h Handler) {
	defer func() {
		<-s.slots
		s.mu.Lock()
		n.InFlight--
		s.mu.Unlock()
		s.wg.Done()
	}()
	result, err := s.run(call, h)
	var body []byte
	if err == nil {
		if result == nil {
			result = struct{}{}
		}
		if body, err = json.Marshal(result); err != nil {
			err = fmt.Errorf("encode reply: %w", err)
		}
	}
	if err == nil {
		if err = s.nc.Publish(reply, body); errors.Is(err, nats.ErrMaxPayload) {
			err = &APIError{Code: 500, Reason: "reply_too_large", Detail: fmt.Sprintf("the reply has %d bytes", len(body))}
		}
	}
	if err == nil {
		return
	}
	var api *APIError
	if !errors.As(err, &api) {
		s.log.Error("request failed", "subject", call.Subject, "err", err)
		api = &APIError{Code: 500, Reason: "internal"}
	}
	s.refuse(reply, n, api)
}

// run keeps a panic of a handler from ending the daemon.
func (s *Service) run(call *Call, h Handler) (result any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return h(s.ctx, call)
}

func (s *Service) refuse(reply string, n *counters, e *APIError) {
	code, reason := e.Code, e.Reason
	if code < 400 || code > 599 {
		code = 500
	}
	if !validReason(reason) {
		reason = "internal"
	}
	s.mu.Lock()
	n.Refused++
	s.mu.Unlock()
	err := s.nc.PublishMsg(&nats.Msg{
		Subject: reply, Data: e.Body(),
		Header: nats.Header{micro.ErrorHeader: {reason}, micro.ErrorCodeHeader: {strconv.Itoa(code)}},
	})
	if err != nil {
		s.log.Warn("reply not sent", "err", err)
	}
}

func (s *Service) drop(r micro.Request, n *counters, why string) {
	s.mu.Lock()
	n.Dropped++
	s.mu.Unlock()
	if ok, swallowed := s.quiet.allow(); ok {
		s.log.Warn("request dropped", "why", why, "subject", r.Subject(), "reply", r.Reply(), "swallowed", swallowed)
	}
}

func (s *Service) endpointStats(e *micro.Endpoint) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.stats[e.Name]; n != nil {
		return *n
	}
	return nil
}

// Shutdown takes no more requests, waits for those under way until ctx ends, then cancels their context and waits for them to return.
func (s *Service) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	defer s.cancel()
	stopErr := s.svc.Stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.wg.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		s.cancel()
		<-done
	}
	if err := s.nc.FlushTimeout(time.Second); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		return fmt.Errorf("flush replies: %w", err)
	}
	if stopErr != nil && !errors.Is(stopErr, nats.ErrConnectionClosed) {
		return fmt.Errorf("stop service: %w", stopErr)
	}
	return nil
}
