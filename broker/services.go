package broker

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jonboulle/clockwork"

	"claudemesh/wire"
)

// The registry of services lives in memory: a service is as alive as the connection that offers it, and whoever offers it registers again when it connects
// again. Nobody can take a name that another member holds.

const (
	callTimeout      = 30 * time.Second // a host's time to answer one call
	callsPerCaller   = 32               // calls of one connection that wait for their answer
	callsPerHost     = 64               // calls that one connection has been given and not answered
	serviceRunning   = "running"
	serviceStopped   = "stopped"
	catalogLive      = "live"
	catalogMeshScope = "mesh"
)

// service is one registered server. Broker.mu guards it.
type service struct {
	name, description string
	tools             []wire.Tool
	persistent        bool
	owner             *member
	hostedBy          string // display name
	host              *conn  // nil: offline
	since             time.Time
	offline           time.Time
}

// serviceCall is a call on its way. Broker.mu guards the table it is in.
type serviceCall struct {
	id           string
	caller, host *conn
	reqID        string
	service      string
	timer        clockwork.Timer
}

// mcpRegister offers a service of this connection. The same member may move a service to another of its connections.
func (c *conn) mcpRegister(data []byte, reqID string) {
	var f wire.MCPRegister
	if !c.decode(data, reqID, &f) {
		return
	}
	if !wire.ValidServiceName(f.ServerName) {
		c.fail(reqID, wire.CodeInvalidName, "a service name is 1 to 64 letters, digits, _ or -, and begins with a letter or digit")
		return
	}
	c.b.mu.Lock()
	had := c.mesh.services[f.ServerName]
	switch {
	case had != nil && had.owner != c.member:
		c.b.mu.Unlock()
		c.fail(reqID, wire.CodeNameTaken, fmt.Sprintf("the service %q belongs to %s", f.ServerName, had.hostedBy))
		return
	case had == nil && len(c.mesh.services) >= c.b.lim.ServicesPerMesh:
		c.b.mu.Unlock()
		c.fail(reqID, wire.CodeLimit, fmt.Sprintf("a mesh has at most %d services", c.b.lim.ServicesPerMesh))
		return
	}
	s := &service{
		name: f.ServerName, description: f.Description, tools: f.Tools, persistent: f.Persistent, owner: c.member, hostedBy: c.name, host: c, since: c.b.now(),
	}
	c.mesh.services[s.name] = s
	c.b.mu.Unlock()

	event := wire.EventServiceRegistered
	if had != nil && had.host == nil {
		event = wire.EventServiceRestored
	}
	if had == nil || had.host == nil {
		names := make([]string, len(s.tools))
		for i, t := range s.tools {
			names[i] = t.Name
		}
		c.b.broadcast(c, event, wire.ServiceEvent{ServerName: s.name, Description: s.description, Tools: names, HostedBy: s.hostedBy}, true)
	}
	c.reply(wire.MCPRegisterAck{Type: wire.TypeMCPRegisterAck, ServerName: s.name, ToolCount: len(s.tools), ReqID: reqID})
}

// mcpUnregister withdraws a service: the member's own, or anybody's for an admin.
func (c *conn) mcpUnregister(data []byte, reqID string) {
	var f wire.MCPRegister
	if !c.decode(data, reqID, &f) {
		return
	}
	c.b.mu.RLock()
	s := c.mesh.services[f.ServerName]
	own := s == nil || s.owner == c.member
	c.b.mu.RUnlock()
	if s == nil {
		c.fail(reqID, wire.CodeNotFound, fmt.Sprintf("no service %q", f.ServerName))
		return
	}
	if no := c.mayTouch(wire.TypeMCPUnregister, own); no != nil {
		c.fail(reqID, no.code, no.message)
		return
	}
	c.b.mu.Lock()
	if c.mesh.services[s.name] == s {
		delete(c.mesh.services, s.name)
	}
	c.b.mu.Unlock()
	c.b.broadcast(c, wire.EventServiceUnregistered, wire.ServiceEvent{ServerName: s.name, HostedBy: s.hostedBy}, true)
	c.done(reqID)
}

func (c *conn) mcpList(_ []byte, reqID string) {
	c.b.mu.RLock()
	servers := []wire.MCPServer{}
	for _, s := range c.mesh.services {
		row := wire.MCPServer{Name: s.name, Description: s.description, HostedBy: s.hostedBy, Tools: make([]wire.Tool, len(s.tools)), Online: s.host != nil}
		for i, t := range s.tools {
			row.Tools[i] = wire.Tool{Name: t.Name, Description: t.Description}
		}
		if s.host == nil {
			row.OfflineSince = wire.Timestamp(s.offline)
		}
		servers = append(servers, row)
	}
	c.b.mu.RUnlock()
	slices.SortFunc(servers, func(a, b wire.MCPServer) int { return strings.Compare(a.Name, b.Name) })
	c.reply(wire.MCPListResult{Type: wire.TypeMCPListResult, Servers: servers, ReqID: reqID})
}

func (c *conn) mcpSchema(data []byte, reqID string) {
	var f wire.MCPSchema
	if !c.decode(data, reqID, &f) {
		return
	}
	tools := []wire.Tool{}
	c.b.mu.RLock()
	if s := c.mesh.services[f.ServerName]; s != nil {
		for _, t := range s.tools {
			if f.ToolName == "" || t.Name == f.ToolName {
				tools = append(tools, t)
			}
		}
	}
	c.b.mu.RUnlock()
	c.reply(wire.MCPSchemaResult{Type: wire.TypeMCPSchemaResult, ServerName: f.ServerName, Tools: tools, ReqID: reqID})
}

func (c *conn) mcpCatalog(_ []byte, reqID string) {
	c.b.mu.RLock()
	rows := []wire.CatalogEntry{}
	for _, s := range c.mesh.services {
		rows = append(rows, wire.CatalogEntry{
			Name: s.name, Type: "mcp", Description: s.description, Status: s.status(), ToolCount: len(s.tools), DeployedBy: s.hostedBy,
			Scope: catalogMeshScope, SourceType: catalogLive, CreatedAt: wire.Timestamp(s.since),
		})
	}
	c.b.mu.RUnlock()
	slices.SortFunc(rows, func(a, b wire.CatalogEntry) int { return strings.Compare(a.Name, b.Name) })
	c.reply(wire.MCPCatalogResult{Type: wire.TypeMCPCatalogResult, Services: rows, ReqID: reqID})
}

// mcpDeploy refuses what the reference does with a runner beside the broker: this broker runs nobody's code.
func (c *conn) mcpDeploy(_ []byte, reqID string) {
	c.fail(reqID, wire.CodeDeployError, "this broker runs no services: publish one from a machine of yours with claudemesh service publish")
}

func (c *conn) mcpUndeploy(_ []byte, reqID string) {
	c.fail(reqID, wire.CodeUndeployError, "this broker runs no services: end the claudemesh service publish that offers it")
}

func (s *service) status() string {
	if s.host == nil {
		return serviceStopped
	}
	return serviceRunning
}

// running lists the services that can be called now, for hello_ack. Called under the lock.
func (m *meshState) running() []wire.Service {
	rows := []wire.Service{}
	for _, s := range m.services {
		if s.host != nil {
			rows = append(rows, wire.Service{Name: s.name, Description: s.description, Status: serviceRunning, Tools: s.tools, DeployedBy: s.hostedBy})
		}
	}
	slices.SortFunc(rows, func(a, b wire.Service) int { return strings.Compare(a.Name, b.Name) })
	return rows
}

// mcpCall carries a call to the service's host. Its answer comes later: from the host, or as an error after callTimeout, or when the host goes.
func (c *conn) mcpCall(data []byte, reqID string) {
	var f wire.MCPCall
	if !c.decode(data, reqID, &f) {
		return
	}
	id, err := uuid.NewRandomFromReader(c.b.cfg.Rand)
	if err != nil {
		c.log.Error("call not forwarded", "err", err)
		c.fail(reqID, wire.CodeInternal, "internal error")
		return
	}
	call := &serviceCall{id: id.String(), caller: c, reqID: reqID, service: f.ServerName}
	if problem := c.b.beginCall(call); problem != "" {
		c.reply(wire.MCPCallResult{Type: wire.TypeMCPCallResult, Error: problem, ReqID: reqID})
		return
	}
	if len(f.Args) == 0 {
		f.Args = []byte("{}")
	}
	forward, err := wire.Encode(wire.MCPCallForward{
		Type: wire.TypeMCPCallForward, CallID: call.id, ServerName: f.ServerName, ToolName: f.ToolName, Args: f.Args, CallerName: c.name, CallerKey: c.member.Pubkey,
	})
	switch {
	case err != nil:
		c.b.endCall(call.id, nil, wire.MCPCallResult{Error: "the call is too large to be forwarded"})
	case !call.host.offer(frame{data: forward}):
		c.b.endCall(call.id, nil, wire.MCPCallResult{Error: fmt.Sprintf("MCP server %q does not take calls now: its host does not keep up", f.ServerName)})
	}
}

// beginCall notes a call, or says why it cannot be made.
func (b *Broker) beginCall(call *serviceCall) (problem string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := call.caller.mesh.services[call.service]
	if s == nil {
		return fmt.Sprintf("MCP server %q not found in mesh", call.service)
	}
	if s.host == nil {
		ago := b.now().Sub(s.offline).Round(time.Second)
		return fmt.Sprintf("Server '%s' is offline — hosted by %s who disconnected %s ago. It will restore when they reconnect.", s.name, s.hostedBy, ago)
	}
	mine, theirs := 0, 0
	for _, o := range b.calls {
		if o.caller == call.caller {
			mine++
		}
		if o.host == s.host {
			theirs++
		}
	}
	switch {
	case mine >= callsPerCaller:
		return fmt.Sprintf("%d calls of this connection wait for their answer already", mine)
	case theirs >= callsPerHost:
		return fmt.Sprintf("the host of %q is busy with %d calls", s.name, theirs)
	}
	call.host = s.host
	b.calls[call.id] = call
	call.timer = b.clock.AfterFunc(callTimeout, func() { b.endCall(call.id, nil, wire.MCPCallResult{Error: "MCP call timed out (30s)"}) })
	return ""
}

// endCall answers a call, once. by is the connection that answers, nil for the broker itself; another host's answer is not taken.
func (b *Broker) endCall(id string, by *conn, result wire.MCPCallResult) bool {
	b.mu.Lock()
	call := b.calls[id]
	if call == nil || by != nil && call.host != by {
		b.mu.Unlock()
		return false
	}
	delete(b.calls, id)
	b.mu.Unlock()
	call.timer.Stop()
	result.Type, result.ReqID = wire.TypeMCPCallResult, call.reqID
	data, err := wire.Encode(result)
	if err != nil {
		data, _ = wire.Encode(wire.MCPCallResult{Type: wire.TypeMCPCallResult, Error: "the answer is too large to be carried", ReqID: call.reqID})
	}
	if answer := (frame{data: data}); !call.caller.offer(answer) {
		b.conns.Go(func() { call.caller.push(answer) }) // neither the host nor the clock may wait for a slow caller
	}
	return true
}

// mcpCallResponse takes a host's answer. An answer to a call that is not this connection's, or is over, is refused.
func (c *conn) mcpCallResponse(data []byte, reqID string) {
	var f wire.MCPCallResponse
	if !c.decode(data, reqID, &f) {
		return
	}
	if !c.b.endCall(f.CallID, c, wire.MCPCallResult{Result: f.Result, Error: f.Error}) {
		c.fail(reqID, wire.CodeNotFound, "no such call waits for this connection")
		return
	}
	c.done(reqID)
}

// withdraw ends the services and calls of a connection that has ended.
func (b *Broker) withdraw(c *conn) {
	b.mu.Lock()
	var gone []*service
	for name, s := range c.mesh.services {
		switch {
		case s.host != c:
		case s.persistent:
			s.host, s.offline = nil, b.now()
		default:
			delete(c.mesh.services, name)
			gone = append(gone, s)
		}
	}
	var lost []*serviceCall
	for id, call := range b.calls {
		if call.caller == c {
			call.timer.Stop()
			delete(b.calls, id)
		} else if call.host == c {
			lost = append(lost, call)
		}
	}
	closing := b.closed
	b.mu.Unlock()
	for _, call := range lost {
		b.endCall(call.id, nil, wire.MCPCallResult{Error: fmt.Sprintf("MCP server %q host disconnected", call.service)})
	}
	if closing {
		return
	}
	for _, s := range gone {
		b.broadcast(c, wire.EventServiceUnregistered, wire.ServiceEvent{ServerName: s.name, HostedBy: s.hostedBy}, true)
	}
}
