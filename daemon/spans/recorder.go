// Package spans tells an OpenTelemetry collector how messages travel: accept, send and broker ack on the sender's machine, receive and surface on the recipient's.
//
// The frames of the protocol have no field for a trace, so the trace is made of what both sides know: its id, and the id of its first span, are a hash of the mesh and the
// client message id. Spans of any daemon about one message are therefore in one trace, whichever is exported first. A caller's own span (traceparent) is linked.
// No span holds text, a name or a key of anybody.
//
// A nil *Recorder records nothing; that is what a daemon has when no OTEL variable asks for one.
package spans

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// The names of spans.
const (
	Accept  = "accept"  // a message was accepted into the outbox: the first span of its trace
	Send    = "send"    // one attempt, from the seal to the broker's answer
	Receive = "receive" // a message was opened and stored
	Surface = "surface" // it was handed to a session, from when it was received
)

// Span is one step of one message.
type Span struct {
	Name        string
	MeshID, ID  string // the mesh and the client message id, which make the trace
	Begin, End  time.Time
	Parent      string // W3C traceparent of the caller, "" if there is none
	Attributes  map[string]string
	FailureText string // why the step failed, "" when it did not
}

// Recorder sends spans to a collector in the background.
type Recorder struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
}

// New makes a recorder that exports to a collector. Close sends what waits.
func New(exporter sdk.SpanExporter, version string) *Recorder {
	attributes := resource.NewSchemaless(attribute.String("service.name", "claudemesh"), attribute.String("service.version", version))
	if r, err := resource.Merge(attributes, resource.Environment()); err == nil { // OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES
		attributes = r
	}
	p := sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithIDGenerator(ids{}), sdk.WithResource(attributes))
	return &Recorder{provider: p, tracer: p.Tracer("claudemesh")}
}

// Record takes a step that is over. It never waits: what does not fit is dropped by the batcher.
func (r *Recorder) Record(s Span) {
	if r == nil || s.ID == "" {
		return
	}
	first := origin(s.MeshID, s.ID)
	options := []trace.SpanStartOption{trace.WithTimestamp(s.Begin), trace.WithSpanKind(kindOf(s.Name))}
	for k, v := range s.Attributes {
		options = append(options, trace.WithAttributes(attribute.String(k, v)))
	}
	options = append(options, trace.WithAttributes(attribute.String("messaging.system", "claudemesh"), attribute.String("messaging.message.id", s.ID)))
	if caller := remote(s.Parent); caller.IsValid() {
		options = append(options, trace.WithLinks(trace.Link{SpanContext: caller}))
	}
	ctx := context.Background()
	if s.Name == Accept {
		ctx = context.WithValue(ctx, firstKey{}, first)
	} else {
		ctx = trace.ContextWithRemoteSpanContext(ctx, first)
	}
	_, span := r.tracer.Start(ctx, s.Name, options...)
	if s.FailureText != "" {
		span.SetStatus(codes.Error, s.FailureText)
	}
	span.End(trace.WithTimestamp(s.End))
}

func kindOf(name string) trace.SpanKind {
	switch name {
	case Accept, Send:
		return trace.SpanKindProducer
	case Receive, Surface:
		return trace.SpanKindConsumer
	}
	return trace.SpanKindInternal
}

// Close sends what waits, at most until ctx ends.
func (r *Recorder) Close(ctx context.Context) error {
	if r == nil {
		return nil
	}
	if err := r.provider.Shutdown(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("send spans: %w", err)
	}
	return nil
}

// origin is the first span of a message's trace, as everybody can compute it who knows the message's id.
func origin(meshID, id string) trace.SpanContext {
	sum := sha256.Sum256([]byte("claudemesh trace\x00" + meshID + "\x00" + id))
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID(sum[:16]), SpanID: trace.SpanID(sum[16:24]), TraceFlags: trace.FlagsSampled, Remote: true,
	})
}

// remote reads a traceparent; the result is not valid if it is none.
func remote(parent string) trace.SpanContext {
	if parent == "" {
		return trace.SpanContext{}
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": parent})
	return trace.SpanContextFromContext(ctx)
}

type firstKey struct{}

// ids gives the first span of a trace the ids that origin computes, every other a random one.
type ids struct{}

// NewIDs is called for a span without a parent.
func (g ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	if first, ok := ctx.Value(firstKey{}).(trace.SpanContext); ok {
		return first.TraceID(), first.SpanID()
	}
	var t trace.TraceID
	_, _ = rand.Read(t[:])
	return t, g.NewSpanID(ctx, t)
}

// NewSpanID is called for a span with one.
func (ids) NewSpanID(context.Context, trace.TraceID) trace.SpanID {
	var s trace.SpanID
	_, _ = rand.Read(s[:])
	return s
}

// FromEnv makes the recorder that the OTEL variables ask for: nil when they ask for none, or for something that this program has not.
func FromEnv(getenv func(string) string, version string, log *slog.Logger) *Recorder {
	to, err := collectorOf(getenv)
	if err != nil {
		log.Warn("spans_not_exported", "why", err)
	}
	if to == nil {
		return nil
	}
	log.Info("spans_exported", "endpoint", to.shown())
	return New(newExporter(*to, log), version)
}
