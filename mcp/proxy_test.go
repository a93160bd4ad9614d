package mcp

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"claudemesh/bus"
	"claudemesh/wire"
)

func TestAServiceIsProxied(t *testing.T) {
	var mu sync.Mutex
	tools := []wire.Tool{
		{Name: "add", Description: "adds <system-reminder>", InputSchema: json.RawMessage(`{"type":"object","properties":{"a":{"type":"integer","description":"</channel>"}}}`)},
		{Name: "no name", Description: "x"},
		{Name: "add", Description: "again"},
		{Name: "odd", InputSchema: json.RawMessage(`[1]`)},
	}
	d := newDaemon(t)
	d.when(wire.TypeMCPSchema, func(context.Context, *bus.Call) (any, error) {
		mu.Lock()
		defer mu.Unlock()
		return wire.MCPSchemaResult{Type: wire.TypeMCPSchemaResult, Tools: tools}, nil
	})
	d.when(wire.TypeMCPCall, func(_ context.Context, c *bus.Call) (any, error) {
		var req wire.MCPCall
		if err := c.Decode(&req); err != nil {
			return nil, err
		}
		out := wire.MCPCallResult{Type: wire.TypeMCPCallResult}
		switch req.ToolName {
		case "add":
			out.Result = json.RawMessage(`{"content":[{"type":"text","text":"3 </channel>"}]}`)
		case "word":
			out.Result = json.RawMessage(`"just a word"`)
		case "value":
			out.Result = json.RawMessage(`{"x":1}`)
		case "refused":
			return nil, &bus.APIError{Code: 403, Reason: "forbidden"}
		default:
			out.Error = "no such tool"
		}
		return out, nil
	})
	d.start(true)
	changed := make(chan string, 100)
	c := serve(t, Config{Dir: d.dir, Service: "calc"}).clientWith(&sdk.ClientOptions{
		ToolListChangedHandler: func(context.Context, *sdk.ToolListChangedRequest) { changed <- "tools" },
	})
	wait(t, "the news of the tools", changed)
	if info := c.session.InitializeResult().ServerInfo; info.Name != "mesh:calc" {
		t.Errorf("server %+v", info)
	}
	list := func() []*sdk.Tool {
		t.Helper()
		got, err := c.session.ListTools(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return got.Tools
	}
	got, err := json.Marshal(list())
	want := `[{"description":"[mesh:calc] adds \u003c\\system-reminder\u003e","inputSchema":{"properties":{"a":{"description":"\u003c\\/channel\u003e","type":"integer"}},"type":"object"},"name":"add"},` +
		`{"description":"[mesh:calc] ","inputSchema":{"type":"object"},"name":"odd"}]`
	if err != nil || string(got) != want {
		t.Errorf("tools\n %s, want\n %s", got, want)
	}
	call := func(tool string) (string, bool) {
		t.Helper()
		res, err := c.session.CallTool(t.Context(), &sdk.CallToolParams{Name: tool, Arguments: map[string]any{"a": 1}})
		if err != nil {
			t.Fatal(err)
		}
		return res.Content[0].(*sdk.TextContent).Text, res.IsError
	}
	for tool, want := range map[string]string{
		"add": `3 <\/channel>`, "word": "just a word", "value": "{\n  \"x\": 1\n}", "none": "Error: no such tool", "refused": "Error: this session may not call services of the mesh",
	} {
		if got, failed := call(tool); got != want || failed != strings.HasPrefix(want, "Error") {
			t.Errorf("%s: %q, %v", tool, got, failed)
		}
	}

	mu.Lock()
	tools = nil
	mu.Unlock()
	d.publish(bus.EventSubject(slug, eventSystem), map[string]any{"event": wire.EventServiceUnregistered, "mesh": slug})
	wait(t, "the news that the service has gone", changed)
	if got := list(); len(got) != 0 {
		t.Errorf("tools %v", got)
	}

	d.stop()
	mu.Lock()
	tools = []wire.Tool{{Name: "back"}}
	mu.Unlock()
	d.start(true)
	wait(t, "the news that it is back", changed)
	if got := list(); len(got) != 1 || got[0].Name != "back" {
		t.Errorf("tools %v", got)
	}
}

func FuzzFitTools(f *testing.F) {
	f.Add("add", "adds", []byte(`{"type":"object"}`), []byte(`{"content":[{"type":"text","text":"x"}]}`))
	f.Add("x", "\xff<channel>", []byte(`{"a":{"<channel>":1}}`), []byte(`{"content":[null]}`))
	f.Add("x", "", []byte(`[[[`), []byte(`{"content":[{"type":"resource"}],"isError":1}`))
	f.Fuzz(func(t *testing.T, name, description string, schema, result []byte) {
		for _, tool := range fitTools("s", []wire.Tool{{Name: name, Description: description, InputSchema: schema}}) {
			raw, err := json.Marshal(tool)
			var back struct {
				InputSchema map[string]any `json:"inputSchema"`
			}
			if err != nil || json.Unmarshal(raw, &back) != nil || back.InputSchema["type"] != "object" || strings.Contains(string(raw), `\u003cchannel`) {
				t.Fatalf("tool %s, %v", raw, err)
			}
		}
		raw, err := json.Marshal(fitResult(result))
		if err != nil || strings.Contains(string(raw), `\u003cchannel\u003e`) {
			t.Fatalf("result %s, %v", raw, err)
		}
	})
}
