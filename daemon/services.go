package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/wire"
)

// services are the MCP servers that programs of this machine offer to one mesh. The broker knows them only as long as the link lives, so they are offered
// again when it opens; a program that does not repeat its offer is taken to have ended.
type services struct {
	m *meshRun

	mu     sync.Mutex
	offers map[string]*offer // by service name
	calls  map[string]*offer // by call id: forwarded, not answered
}

type offer struct {
	actor   string
	session string // whose link carries it; empty: the member's
	request bus.ServiceOffer
	until   time.Time
}

const (
	maxOffers    = 64
	maxWaiting   = 256 // calls that wait for a program of this machine
	leaseCheck   = 10 * time.Second
	callWaits    = 30 * time.Second // as the broker does
	callOverhead = 5 * time.Second
)

func newServices(m *meshRun) *services {
	return &services{m: m, offers: map[string]*offer{}, calls: map[string]*offer{}}
}

// run withdraws offers whose program is silent.
func (s *services) run() {
	tick := s.m.d.opt.Clock.NewTicker(leaseCheck)
	defer tick.Stop()
	for {
		select {
		case <-s.m.ctx.Done():
			return
		case <-tick.Chan():
		}
		for _, o := range s.expired(s.m.d.opt.Clock.Now()) {
			s.m.d.opt.Log.Info("service_silent", "mesh", s.m.joined.Slug, "service", o.request.ServerName)
			s.withdraw(s.m.ctx, o)
		}
	}
}

func (s *services) expired(now time.Time) (gone []*offer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, o := range s.offers {
		if now.After(o.until) {
			delete(s.offers, name)
			gone = append(gone, o)
		}
	}
	return gone
}

// withdraw tells the broker. A failure is no matter: the registration ends with the link.
func (s *services) withdraw(ctx context.Context, o *offer) {
	fields, err := json.Marshal(map[string]string{"serverName": o.request.ServerName})
	if err == nil {
		_, err = s.m.call(ctx, s.link(o), wire.TypeMCPUnregister, fields)
	}
	if err != nil && ctx.Err() == nil {
		s.m.d.opt.Log.Debug("service_not_withdrawn", "mesh", s.m.joined.Slug, "service", o.request.ServerName, "error", err)
	}
}

func (s *services) link(o *offer) *bridge.Link {
	if l, ok := s.m.links.Session(o.session); ok && o.session != "" {
		return l
	}
	return s.m.links.Member()
}

// register takes an offer, or its repetition.
func (s *services) register(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.ServiceOffer
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	if !wire.ValidServiceName(req.ServerName) {
		return nil, &bus.APIError{Code: 400, Reason: "invalid_name", Detail: "a service name is 1 to 64 letters, digits, _ or -, and begins with a letter or digit"}
	}
	if !strings.HasPrefix(req.Deliver, bus.InboxPrefix(c.Actor)+".") || strings.ContainsAny(req.Deliver, "*> \t\r\n") {
		return nil, &bus.APIError{Code: 400, Reason: "bad_request", Detail: "calls can be delivered only to the caller's own inbox"}
	}
	o := &offer{actor: c.Actor, request: req, until: s.m.d.opt.Clock.Now().Add(bus.ServiceLease)}
	if c.Actor != bus.User {
		if _, ok := s.m.links.Session(c.Actor); ok {
			o.session = c.Actor
		}
	}
	s.mu.Lock()
	had := s.offers[req.ServerName]
	switch {
	case had != nil && had.actor != c.Actor, had != nil && had.request.Deliver != req.Deliver && s.m.d.opt.Clock.Now().Before(had.until.Add(-bus.ServiceLease/2)):
		s.mu.Unlock()
		return nil, &bus.APIError{Code: 409, Reason: "service_exists", Detail: "another program of this machine offers a service of that name"}
	case had == nil && len(s.offers) >= maxOffers:
		s.mu.Unlock()
		return nil, &bus.APIError{Code: 409, Reason: "limit", Detail: "this machine offers as many services as it may"}
	}
	s.offers[req.ServerName] = o
	s.mu.Unlock()
	if had != nil && same(had.request, req) {
		return wire.MCPRegisterAck{Type: wire.TypeMCPRegisterAck, ServerName: req.ServerName}, nil
	}
	reply, err := s.offer(ctx, o)
	if err != nil && !errors.Is(err, &bus.APIError{Reason: "mesh_down"}) { // refused, not merely late: it will be offered when the link opens
		s.mu.Lock()
		if s.offers[req.ServerName] == o {
			delete(s.offers, req.ServerName)
		}
		s.mu.Unlock()
	}
	return reply, err
}

func same(a, b bus.ServiceOffer) bool {
	return a.Deliver == b.Deliver && a.Description == b.Description && a.Persistent == b.Persistent && string(a.Tools) == string(b.Tools)
}

func (s *services) offer(ctx context.Context, o *offer) (any, error) {
	fields, err := json.Marshal(map[string]any{
		"serverName": o.request.ServerName, "description": o.request.Description, "tools": o.request.Tools, "persistent": o.request.Persistent,
	})
	if err != nil {
		return nil, err
	}
	reply, err := s.m.call(ctx, s.link(o), wire.TypeMCPRegister, fields)
	return json.RawMessage(reply), err
}

// reopened offers again what belongs to a link that has just opened.
func (s *services) reopened(session string) {
	s.mu.Lock()
	var again []*offer
	for _, o := range s.offers {
		if o.session == session {
			again = append(again, o)
		}
	}
	s.mu.Unlock()
	for _, o := range again {
		if _, err := s.offer(s.m.ctx, o); err != nil && s.m.ctx.Err() == nil {
			s.m.d.opt.Log.Warn("service_not_offered", "mesh", s.m.joined.Slug, "service", o.request.ServerName, "error", err)
		}
	}
}

// unregister ends an offer of the caller. One that this machine does not make is for the broker to judge.
func (s *services) unregister(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.ServiceOffer
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	s.mu.Lock()
	o := s.offers[req.ServerName]
	if o != nil && o.actor != c.Actor && c.Actor != bus.User {
		s.mu.Unlock()
		return nil, &bus.APIError{Code: 403, Reason: "forbidden", Detail: "another session offers this service"}
	}
	link := s.m.links.Member()
	if o != nil {
		delete(s.offers, req.ServerName)
		link = s.link(o)
	}
	s.mu.Unlock()
	reply, err := s.m.call(ctx, link, wire.TypeMCPUnregister, c.Data)
	return json.RawMessage(reply), err
}

// forwarded hands a call to the program that offers the service.
func (s *services) forwarded(ctx context.Context, from bridge.Source, data []byte) {
	var f wire.MCPCallForward
	if err := wire.Decode(data, &f); err != nil || f.CallID == "" {
		s.m.d.opt.Log.Warn("call_not_understood", "mesh", s.m.joined.Slug, "error", err)
		return
	}
	s.mu.Lock()
	o := s.offers[f.ServerName]
	room := len(s.calls) < maxWaiting
	if o != nil && room {
		s.calls[f.CallID] = o
		s.m.d.opt.Clock.AfterFunc(callWaits, func() { s.settle(f.CallID, "") })
	}
	s.mu.Unlock()
	call := bus.ServiceCall{CallID: f.CallID, ServerName: f.ServerName, ToolName: f.ToolName, Args: f.Args, CallerName: printable(f.CallerName), CallerKey: f.CallerKey}
	if o != nil && room && s.m.d.journal.Publish(o.request.Deliver, call) {
		return
	}
	s.settle(f.CallID, "")
	link := s.m.links.Member()
	if l, ok := s.m.links.Session(from.Session); ok && from.Session != "" {
		link = l
	}
	problem := "the service is not offered any more"
	if o != nil {
		problem = "the service has too many calls waiting"
	}
	if err := link.Post(ctx, wire.MCPCallResponse{Type: wire.TypeMCPCallResponse, CallID: f.CallID, Error: problem}); err != nil && ctx.Err() == nil {
		s.m.d.opt.Log.Debug("call_not_answered", "mesh", s.m.joined.Slug, "error", err)
	}
}

// settle takes a call off the list; nil when it is not on it, or not the actor's. An empty actor is the daemon itself.
func (s *services) settle(id, actor string) *offer {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.calls[id]
	if o == nil || actor != "" && o.actor != actor {
		return nil
	}
	delete(s.calls, id)
	return o
}

// answer carries a program's answer to the broker.
func (s *services) answer(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.ServiceAnswer
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	o := s.settle(req.CallID, c.Actor)
	if o == nil {
		return nil, &bus.APIError{Code: 404, Reason: "no_such_call", Detail: "no such call waits for an answer: it may have waited too long"}
	}
	reply, err := s.m.call(ctx, s.link(o), wire.TypeMCPCallResponse, c.Data)
	return json.RawMessage(reply), err
}
