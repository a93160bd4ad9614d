package testenv_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"claudemesh/bus"
	"claudemesh/daemon"
	"claudemesh/daemon/spans"
	"claudemesh/testenv"
)

// collected is a span as a collector gets it.
type collected struct {
	TraceID      string `json:"traceId"`
	SpanID       string `json:"spanId"`
	ParentSpanID string `json:"parentSpanId"`
	Name         string `json:"name"`
	Links        []struct {
		TraceID string `json:"traceId"`
	} `json:"links"`
	Attributes []struct {
		Key   string `json:"key"`
		Value struct {
			String string `json:"stringValue"`
		} `json:"value"`
	} `json:"attributes"`
}

func (c collected) attribute(key string) string {
	for _, a := range c.Attributes {
		if a.Key == key {
			return a.Value.String
		}
	}
	return ""
}

// collector is an OTLP/HTTP endpoint that keeps what it gets.
type collector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []collected
	raw   strings.Builder
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var req struct {
			ResourceSpans []struct {
				ScopeSpans []struct {
					Spans []collected `json:"spans"`
				} `json:"scopeSpans"`
			} `json:"resourceSpans"`
		}
		if err := json.Unmarshal(body, &req); err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("X-Key") != "a secret" {
			t.Errorf("%s %v %v: %s", r.URL, r.Header, err, body)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.raw.Write(body)
		for _, rs := range req.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				c.spans = append(c.spans, ss.Spans...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// recorder makes the daemon's recorder as the program does.
func (c *collector) recorder(t *testing.T) *spans.Recorder {
	env := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": c.URL, "OTEL_EXPORTER_OTLP_HEADERS": "X-Key=a%20secret"}
	r := spans.FromEnv(func(name string) string { return env[name] }, "0.0.0-test", slog.New(slog.DiscardHandler))
	if r == nil {
		t.Fatal("no recorder")
	}
	return r
}

func TestAMessageIsOneTraceOnBothMachines(t *testing.T) {
	c := newCollector(t)
	near, far := c.recorder(t), c.recorder(t)
	m := testenv.NewMachine(t, func(o *daemon.Options) { o.Spans = near })
	n := testenv.NewMachine(t, func(o *daemon.Options) { o.Spans = far })
	team := m.Create("team")
	n.Join(m.Share(team), "far")
	n.WaitLink(team)
	bob := n.Session(team, "bob")
	m.WaitPeer(team, "bob")

	const caller = "4bf92f3577b34da6a3ce929d0e0e4736"
	ctx := bus.WithTrace(t.Context(), "00-"+caller+"-00f067aa0ba902b7-01")
	var sent bus.SendReply
	if err := m.User().Do(ctx, bus.SendSubject(team, bus.User, bus.SendDM), bus.SendRequest{To: "bob", Body: "words of nobody's business"}, &sent); err != nil {
		t.Fatal(err)
	}
	got := bob.WaitMessage("words of nobody's business")
	bob.Do(bus.OpInboxSurfaced, bus.MessageIDs{IDs: []string{got.ID}, Via: bus.ViaInbox}, nil)
	m.WaitState(team, sent.ClientMessageID, bus.StateSurfaced)
	for _, r := range []*spans.Recorder{near, far} { // it sends what waits
		if err := r.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	byName := map[string]collected{}
	for _, s := range c.spans {
		if s.attribute("messaging.message.id") == sent.ClientMessageID {
			byName[s.Name] = s
		}
	}
	first := byName[spans.Accept]
	if first.TraceID == "" || first.ParentSpanID != "" || len(first.Links) != 1 || first.Links[0].TraceID != caller {
		t.Errorf("the first span is %+v", first)
	}
	for _, name := range []string{spans.Send, spans.Receive, spans.Surface} {
		if s := byName[name]; s.TraceID != first.TraceID || s.ParentSpanID != first.SpanID {
			t.Errorf("%s is %+v, not below %+v", name, s, first)
		}
	}
	if via := byName[spans.Surface].attribute("claudemesh.via"); via != bus.ViaInbox {
		t.Errorf("surfaced by %q", via)
	}
	for _, private := range []string{"words of", "bob", bob.Info.Pubkey, m.MemberKey(team)} {
		if strings.Contains(c.raw.String(), private) {
			t.Errorf("a span holds %q", private)
		}
	}
}

func TestSpansAreRecordedOnlyWhereTheyAreAskedFor(t *testing.T) {
	for name, c := range map[string]struct {
		env map[string]string
		on  bool
	}{
		"nothing is set":         {nil, false},
		"an endpoint":            {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, true},
		"an endpoint for traces": {map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://example.com/x"}, true},
		"the exporter by name":   {map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, true},
		"switched off":           {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, false},
		"no traces":              {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}, false},
		"another exporter":       {map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}, false},
		"gRPC":                   {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, false},
		"no URL":                 {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "::"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var log testenv.Log
			r := spans.FromEnv(func(name string) string { return c.env[name] }, "1", slog.New(slog.NewJSONHandler(&log, nil)))
			if (r != nil) != c.on {
				t.Errorf("recorder %v, want %v; log: %s", r, c.on, log.String())
			}
			if err := r.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
