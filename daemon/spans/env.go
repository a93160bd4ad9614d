package spans

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// collector is where spans go. The headers may hold a credential: they are in no log.
type collector struct {
	endpoint *url.URL
	headers  map[string]string
	timeout  time.Duration
}

// shown is the endpoint without what may be a secret.
func (c collector) shown() string {
	return c.endpoint.Scheme + "://" + c.endpoint.Host + c.endpoint.Path
}

// collectorOf reads the variables of https://opentelemetry.io/docs/specs/otel/protocol/exporter/. nil: no spans are wanted.
func collectorOf(getenv func(string) string) (*collector, error) {
	first := func(names ...string) string {
		for _, n := range names {
			if v := getenv(n); v != "" {
				return v
			}
		}
		return ""
	}
	exporter := getenv("OTEL_TRACES_EXPORTER")
	whole, base := getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), getenv("OTEL_EXPORTER_OTLP_ENDPOINT")
	switch {
	case strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true"), exporter == "none":
		return nil, nil
	case exporter != "" && exporter != "otlp":
		return nil, fmt.Errorf("OTEL_TRACES_EXPORTER is %q; only otlp is known", exporter)
	case exporter == "" && whole == "" && base == "":
		return nil, nil
	}
	if p := first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); p == "grpc" {
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL is grpc; only http/json is spoken here, usually at port 4318")
	}
	if whole == "" {
		if base == "" {
			base = "http://localhost:4318"
		}
		whole = strings.TrimSuffix(base, "/") + "/v1/traces"
	}
	c := &collector{headers: map[string]string{}, timeout: 10 * time.Second}
	var err error
	if c.endpoint, err = url.Parse(whole); err != nil || c.endpoint.Host == "" || c.endpoint.Scheme != "http" && c.endpoint.Scheme != "https" {
		return nil, fmt.Errorf("the endpoint of the OTEL variables is no http or https URL")
	}
	for _, pair := range strings.Split(first("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"), ",") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			continue
		}
		if plain, err := url.PathUnescape(strings.TrimSpace(value)); err == nil {
			c.headers[strings.TrimSpace(name)] = plain
		}
	}
	if ms, err := strconv.Atoi(first("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")); err == nil && ms > 0 {
		c.timeout = time.Duration(ms) * time.Millisecond
	}
	return c, nil
}
