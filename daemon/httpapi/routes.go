package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
)

// Sizes of bodies. A message has at most 64 KiB of text, which JSON may blow up sixfold, and 64 KiB of metadata.
const (
	largeBody = 512 << 10
	smallBody = 64 << 10
)

// route is one row of the table. Serve returns the answer and its code, 0 for 200; answers of an own kind (the event stream) are written by raw.
type route struct {
	method, pattern string
	body            int // bytes that a body may have; 0: none is read
	serve           func(ctx context.Context, c *caller, r *request) (code int, v any, err error)
	raw             func(w http.ResponseWriter, r *http.Request, c *caller)
}

// table is everything there is, in the order of the documentation.
func (s *Server) table() []route {
	t := []route{
		{method: "GET", pattern: "/v1/version", serve: s.version},
		{method: "GET", pattern: "/v1/health", serve: s.health},
		{method: "GET", pattern: "/v1/status", serve: s.status},
		{method: "GET", pattern: "/v1/meshes", serve: s.meshes},
		{method: "POST", pattern: "/v1/sessions/register", body: smallBody, serve: s.registerSession},
		{method: "DELETE", pattern: "/v1/sessions/{id}", serve: s.endSession},
		{method: "GET", pattern: "/v1/sessions/me", serve: s.sessionMe},
		{method: "GET", pattern: "/v1/sessions", serve: s.sessions},
		{method: "GET", pattern: "/v1/events", raw: s.events},
		{method: "GET", pattern: "/v1/peers", serve: s.peers},
		{method: "GET", pattern: "/v1/state", serve: s.state},
		{method: "POST", pattern: "/v1/state", body: largeBody, serve: s.setState},
		{method: "GET", pattern: "/v1/memory", serve: s.recall},
		{method: "POST", pattern: "/v1/memory", body: largeBody, serve: s.remember},
		{method: "DELETE", pattern: "/v1/memory/{id}", serve: s.forget},
		{method: "GET", pattern: "/v1/skills", serve: s.skills},
		{method: "GET", pattern: "/v1/skills/{name}", serve: s.skill},
		{method: "POST", pattern: "/v1/profile", body: smallBody, serve: s.profile},
		{method: "GET", pattern: "/v1/inbox", serve: s.inbox},
		{method: "POST", pattern: "/v1/inbox/seen", body: smallBody, serve: s.seen},
		{method: "GET", pattern: "/v1/outbox", serve: s.outbox},
		{method: "POST", pattern: "/v1/outbox/requeue", body: smallBody, serve: s.requeue},
		{method: "POST", pattern: "/v1/send", body: largeBody, serve: s.send},
	}
	if s.cfg.Metrics != nil {
		t = append(t, route{method: "GET", pattern: "/metrics", raw: s.metrics})
	}
	return t
}

func (s *Server) register(t []route) *http.ServeMux {
	mux := http.NewServeMux()
	for _, rt := range t {
		mux.HandleFunc(rt.method+" "+rt.pattern, func(w http.ResponseWriter, r *http.Request) { s.run(w, r, rt) })
	}
	mux.HandleFunc("/", s.unknown)
	return mux
}

// run serves one request of a route.
func (s *Server) run(w http.ResponseWriter, r *http.Request, rt route) {
	c := callerOf(r.Context())
	if rt.raw != nil {
		rt.raw(w, r, c)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	req := &request{Request: r}
	if rt.body > 0 {
		if err := req.read(w, rt.body); err != nil {
			fail(w, err)
			return
		}
	}
	code, v, err := rt.serve(ctx, c, req)
	if err != nil {
		if codeOf(err) >= 500 {
			s.cfg.Log.Warn("http_request_failed", "method", r.Method, "route", rt.pattern, "error", err)
		}
		fail(w, err)
		return
	}
	if code == 0 {
		code = http.StatusOK
	}
	answer(w, code, v)
}

// unknown tells a wrong method from a wrong path.
func (s *Server) unknown(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, m := range []string{"GET", "POST", "DELETE"} {
		probe := r.Clone(r.Context())
		probe.Method = m
		if _, pattern := s.mux.Handler(probe); pattern != "/" && !slices.Contains(allowed, m) {
			allowed = append(allowed, m)
		}
	}
	if len(allowed) == 0 {
		fail(w, refusal(404, "not_found", "there is no such path"))
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	fail(w, refusal(405, "method_not_allowed", "this path takes "+strings.Join(allowed, ", ")))
}

type callerKey struct{}

func withCaller(ctx context.Context, c *caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

func callerOf(ctx context.Context) *caller {
	c, _ := ctx.Value(callerKey{}).(*caller)
	return c
}

// request is a request with its body read.
type request struct {
	*http.Request
	data []byte
}

// read takes the whole body. More than limit is refused, also when the request says so only by going on.
func (r *request) read(w http.ResponseWriter, limit int) (err error) {
	r.data, err = io.ReadAll(http.MaxBytesReader(w, r.Body, int64(limit)))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		e := refusal(413, "payload_too_large", "the body is over the limit of this route")
		e.Data = map[string]any{"limit": limit}
		return e
	}
	if err != nil {
		return refusal(400, "bad_request", "the body could not be read")
	}
	return nil
}

// decode reads the body's JSON object into v.
func (r *request) decode(v any) error { return decodeBody(r.data, v) }

// decodeBody takes exactly one JSON object; fields that v does not have are passed over.
func decodeBody(data []byte, v any) error {
	data = bytes.TrimSpace(data)
	if len(data) == 0 || data[0] != '{' {
		return refusal(400, "bad_request", "the body must be one JSON object")
	}
	if err := json.Unmarshal(data, v); err != nil {
		return refusal(400, "bad_request", "the body is not the JSON that this route takes: "+err.Error())
	}
	return nil
}
