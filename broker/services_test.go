package broker

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"claudemesh/wire"
)

func registerFrame(name, req string) wire.MCPRegister {
	return wire.MCPRegister{
		Type: wire.TypeMCPRegister, ServerName: name, Description: "adds", ReqID: req,
		Tools: []wire.Tool{{Name: "add", Description: "a+b", InputSchema: json.RawMessage(`{"type":"object"}`)}},
	}
}

func (c *client) request(v any, reqID string) []byte {
	c.t.Helper()
	c.write(v)
	return c.next(func(h wire.Head, _ []byte) bool { return h.ReqID == reqID })
}

func (c *client) refusal(v any, reqID string) wire.Error {
	c.t.Helper()
	return into[wire.Error](c, c.request(v, reqID))
}

func (c *client) list(reqID string) []wire.MCPServer {
	c.t.Helper()
	return into[wire.MCPListResult](c, c.request(wire.Head{Type: wire.TypeMCPList, ReqID: reqID}, reqID)).Servers
}

func TestServices(t *testing.T) {
	clock, withClock := fakeClock(time.Now())
	r := newRig(t, withClock)
	bob, carol := r.addMember("bob"), r.addMember("carol")
	a, b, c := r.member(r.owner), r.member(bob), r.member(carol)
	call := func(name, req string) wire.MCPCall {
		return wire.MCPCall{Type: wire.TypeMCPCall, ServerName: name, ToolName: "add", Args: json.RawMessage(`{"a":1}`), ReqID: req}
	}
	if ack := into[wire.MCPRegisterAck](b, b.request(registerFrame("calc", "r1"), "r1")); ack.ToolCount != 1 {
		t.Fatalf("%+v", ack)
	}

	t.Run("a name belongs to who has it, until it is given up", func(t *testing.T) {
		if e := c.refusal(registerFrame("calc", "r2"), "r2"); e.Code != wire.CodeNameTaken {
			t.Errorf("%+v", e)
		}
		if e := c.refusal(wire.MCPRegister{Type: wire.TypeMCPUnregister, ServerName: "calc", ReqID: "u1"}, "u1"); e.Code != wire.CodeForbidden {
			t.Errorf("%+v", e)
		}
	})
	t.Run("bad names, too many tools and services are refused", func(t *testing.T) {
		if e := c.refusal(registerFrame("no spaces", "r3"), "r3"); e.Code != wire.CodeInvalidName {
			t.Errorf("%+v", e)
		}
		many := registerFrame("many", "r4")
		for i := range wire.MaxServiceTools {
			many.Tools = append(many.Tools, wire.Tool{Name: fmt.Sprint(i)})
		}
		if e := c.refusal(many, "r4"); e.Code != wire.CodeInvalid {
			t.Errorf("%+v", e)
		}
	})
	t.Run("the tools are shown with what they take", func(t *testing.T) {
		got := into[wire.MCPSchemaResult](a, a.request(wire.MCPSchema{Type: wire.TypeMCPSchema, ServerName: "calc", ReqID: "s1"}, "s1"))
		if len(got.Tools) != 1 || string(got.Tools[0].InputSchema) != `{"type":"object"}` {
			t.Errorf("%+v", got)
		}
	})
	t.Run("only the host may answer a call, and once", func(t *testing.T) {
		a.write(call("calc", "c1"))
		f := into[wire.MCPCallForward](b, b.wait(wire.TypeMCPCallForward))
		if f.CallerKey != r.owner.PublicKey() || string(f.Args) != `{"a":1}` {
			t.Errorf("%+v", f)
		}
		answer := wire.MCPCallResponse{Type: wire.TypeMCPCallResponse, CallID: f.CallID, Result: json.RawMessage(`3`), ReqID: "x"}
		if e := c.refusal(answer, "x"); e.Code != wire.CodeNotFound {
			t.Errorf("%+v", e)
		}
		b.write(answer)
		if got := into[wire.MCPCallResult](a, a.next(func(h wire.Head, _ []byte) bool { return h.ReqID == "c1" })); string(got.Result) != "3" || got.Error != "" {
			t.Errorf("%+v", got)
		}
		b.next(func(h wire.Head, _ []byte) bool { return h.ReqID == "x" })
		if e := b.refusal(answer, "x"); e.Code != wire.CodeNotFound {
			t.Errorf("%+v", e)
		}
	})
	t.Run("a host that is silent for 30 s is not waited for", func(t *testing.T) {
		a.write(call("calc", "c2"))
		b.wait(wire.TypeMCPCallForward)
		clock.Advance(callTimeout)
		if got := into[wire.MCPCallResult](a, a.next(func(h wire.Head, _ []byte) bool { return h.ReqID == "c2" })); got.Error != "MCP call timed out (30s)" {
			t.Errorf("%+v", got)
		}
	})
	t.Run("a caller has a bounded number of calls", func(t *testing.T) {
		for i := range callsPerCaller {
			c.write(call("calc", fmt.Sprint("many", i)))
			b.wait(wire.TypeMCPCallForward)
		}
		if got := into[wire.MCPCallResult](c, c.request(call("calc", "over"), "over")); got.Error == "" {
			t.Errorf("%+v", got)
		}
	})
	t.Run("a host that goes fails its calls, and its service is no longer listed", func(t *testing.T) {
		a.write(call("calc", "c3"))
		b.wait(wire.TypeMCPCallForward)
		b.close()
		if got := into[wire.MCPCallResult](a, a.next(func(h wire.Head, _ []byte) bool { return h.ReqID == "c3" })); got.Error != `MCP server "calc" host disconnected` {
			t.Errorf("%+v", got)
		}
		if rows := a.list("l1"); len(rows) != 0 {
			t.Errorf("%+v", rows)
		}
	})
	t.Run("a persistent one stays, offline, and comes back", func(t *testing.T) {
		b2 := r.member(bob)
		f := registerFrame("calc", "r5")
		f.Persistent = true
		b2.request(f, "r5")
		b2.close()
		a.next(func(_ wire.Head, data []byte) bool { return into[wire.Push](a, data).Event == wire.EventPeerLeft })
		a.next(func(_ wire.Head, data []byte) bool { return into[wire.Push](a, data).Event == wire.EventPeerLeft })
		if rows := a.list("l2"); len(rows) != 1 || rows[0].Online || rows[0].OfflineSince == "" {
			t.Errorf("%+v", rows)
		}
		if got := into[wire.MCPCallResult](a, a.request(call("calc", "c4"), "c4")); got.Error == "" {
			t.Errorf("%+v", got)
		}
		b3 := r.member(bob)
		b3.request(registerFrame("calc", "r6"), "r6")
		a.next(func(_ wire.Head, data []byte) bool {
			return into[wire.Push](a, data).Event == wire.EventServiceRestored
		})
		d := r.dial()
		d.write(r.helloFrame(carol, withSession("other")))
		if ack := into[wire.HelloAck](d, d.wait(wire.TypeHelloAck)); ack.Services == nil || len(*ack.Services) != 1 || (*ack.Services)[0].Name != "calc" {
			t.Errorf("%+v", ack.Services)
		}
		if e := a.request(wire.MCPRegister{Type: wire.TypeMCPUnregister, ServerName: "calc", ReqID: "u2"}, "u2"); into[wire.Ack](a, e).Type != wire.TypeAck {
			t.Errorf("the owner of the mesh may not withdraw it: %s", e)
		}
	})
	t.Run("nothing is run on the broker", func(t *testing.T) {
		if e := a.refusal(wire.Head{Type: wire.TypeMCPDeploy, ReqID: "d"}, "d"); e.Code != wire.CodeDeployError {
			t.Errorf("%+v", e)
		}
	})
}
