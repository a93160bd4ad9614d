package spans

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// OTLP over HTTP as JSON, https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding. The stock exporter brings gRPC and the protobuf of every signal along: 8 MB
// of binary along, and some milliseconds of the start of every command, for a feature that few turn on. Spans here are few and plain.

type exporter struct {
	to     collector
	client *http.Client
	log    *slog.Logger
	failed atomic.Bool // the last batch: only a change is logged
}

func newExporter(to collector, log *slog.Logger) *exporter {
	return &exporter{to: to, client: &http.Client{Timeout: to.timeout}, log: log}
}

// ExportSpans sends a batch. One that does not arrive is lost: the library would log every failure by itself, so it is told of none.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := e.send(ctx, spans)
	if was := e.failed.Swap(err != nil); err != nil && !was {
		e.log.Warn("spans_lost", "endpoint", e.to.shown(), "spans", len(spans), "error", err)
	} else if err == nil && was {
		e.log.Info("spans_arrive_again", "endpoint", e.to.shown())
	}
	return nil
}

func (e *exporter) send(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	body, err := json.Marshal(encode(spans))
	if err != nil {
		return fmt.Errorf("encode spans: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.to.endpoint.String(), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("send spans: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	for k, v := range e.to.headers {
		req.Header.Set(k, v)
	}
	res, err := e.client.Do(req)
	var failed *url.Error
	if errors.As(err, &failed) { // it repeats the URL, in whose query there may be a key
		err = failed.Err
	}
	if err != nil {
		return fmt.Errorf("send spans: %w", err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // so that the connection can be used again
	if res.StatusCode >= 300 {
		return fmt.Errorf("send spans: the collector answered %d", res.StatusCode)
	}
	return nil
}

// Shutdown ends the connections.
func (e *exporter) Shutdown(context.Context) error {
	e.client.CloseIdleConnections()
	return nil
}

type (
	otlpRequest struct {
		ResourceSpans []otlpResource `json:"resourceSpans"`
	}
	otlpResource struct {
		Resource   otlpAttributes `json:"resource"`
		ScopeSpans []otlpScope    `json:"scopeSpans"`
	}
	otlpAttributes struct {
		Attributes []otlpAttribute `json:"attributes"`
	}
	otlpScope struct {
		Scope struct {
			Name string `json:"name"`
		} `json:"scope"`
		Spans []otlpSpan `json:"spans"`
	}
	otlpSpan struct {
		TraceID      string          `json:"traceId"`
		SpanID       string          `json:"spanId"`
		ParentSpanID string          `json:"parentSpanId,omitempty"`
		Name         string          `json:"name"`
		Kind         int             `json:"kind"`
		Begin        string          `json:"startTimeUnixNano"`
		End          string          `json:"endTimeUnixNano"`
		Attributes   []otlpAttribute `json:"attributes"`
		Links        []otlpLink      `json:"links,omitempty"`
		Status       otlpStatus      `json:"status"`
	}
	otlpLink struct {
		TraceID string `json:"traceId"`
		SpanID  string `json:"spanId"`
	}
	otlpStatus struct {
		Code    int    `json:"code,omitempty"` // 1 ok, 2 error
		Message string `json:"message,omitempty"`
	}
	otlpAttribute struct {
		Key   string    `json:"key"`
		Value otlpValue `json:"value"`
	}
	otlpValue struct {
		String string `json:"stringValue"`
	}
)

func encode(spans []sdk.ReadOnlySpan) otlpRequest {
	var scope otlpScope
	scope.Scope.Name = "claudemesh"
	var about otlpAttributes
	for _, s := range spans {
		about.Attributes = attributesOf(s.Resource().Attributes())
		o := otlpSpan{
			TraceID: s.SpanContext().TraceID().String(), SpanID: s.SpanContext().SpanID().String(), Name: s.Name(), Kind: int(s.SpanKind()),
			Begin: nanos(s.StartTime()), End: nanos(s.EndTime()), Attributes: attributesOf(s.Attributes()),
		}
		if s.Parent().IsValid() {
			o.ParentSpanID = s.Parent().SpanID().String()
		}
		for _, l := range s.Links() {
			o.Links = append(o.Links, otlpLink{l.SpanContext.TraceID().String(), l.SpanContext.SpanID().String()})
		}
		if s.Status().Code == codes.Error {
			o.Status = otlpStatus{2, s.Status().Description}
		}
		scope.Spans = append(scope.Spans, o)
	}
	return otlpRequest{[]otlpResource{{about, []otlpScope{scope}}}}
}

func attributesOf(all []attribute.KeyValue) []otlpAttribute {
	out := make([]otlpAttribute, 0, len(all))
	for _, a := range all {
		out = append(out, otlpAttribute{string(a.Key), otlpValue{a.Value.String()}})
	}
	return out
}

func nanos(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }
