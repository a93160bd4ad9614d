package bus

import "context"

// traceHeader carries the span that a request belongs to: W3C Trace Context, https://www.w3.org/TR/trace-context/. NATS headers keep their case, and
// OpenTelemetry writes it in lower case.
const traceHeader = "traceparent"

type traceKey struct{}

// WithTrace makes requests with the context part of a trace: parent is a W3C traceparent. What is none is left out.
func WithTrace(ctx context.Context, parent string) context.Context {
	if parent = cleanTrace(parent); parent == "" {
		return ctx
	}
	return context.WithValue(ctx, traceKey{}, parent)
}

func traceOf(ctx context.Context) string {
	s, _ := ctx.Value(traceKey{}).(string)
	return s
}

// cleanTrace is a traceparent of version 00, "" for anything else.
func cleanTrace(s string) string {
	if len(s) != 55 || !isTraceparent(s) {
		return ""
	}
	return s
}

// isTraceparent looks at 00-<32 hex>-<16 hex>-<2 hex>.
func isTraceparent(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case i == 2 || i == 35 || i == 52:
			if c != '-' {
				return false
			}
		case i < 2:
			if c != '0' {
				return false
			}
		case !('0' <= c && c <= '9' || 'a' <= c && c <= 'f'):
			return false
		}
	}
	return true
}
