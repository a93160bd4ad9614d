package broker

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/VictoriaMetrics/metrics"

	"claudemesh/wire"
)

// What the broker tells operators about itself: health to anybody, figures to whoever has the admin token, or to everybody where the broker is reachable from
// its own machine only (Config.OpenStatus). Names that begin with broker_ are the reference's.

// figures counts events. Labels come from the program, never from a client, so their number is bounded.
type figures struct {
	set    *metrics.Set
	hellos *metrics.Counter
	stalls *metrics.Counter            // times a connection's pushes waited for acknowledgements
	routed map[string]*metrics.Counter // by priority
	asked  map[string]*metrics.Counter // requests, by type
}

func newFigures() *figures {
	set := metrics.NewSet()
	f := &figures{
		set: set, hellos: set.NewCounter("broker_connections_total"), stalls: set.NewCounter("claudemesh_broker_push_stalls_total"),
		routed: map[string]*metrics.Counter{}, asked: map[string]*metrics.Counter{},
	}
	for _, p := range []string{wire.PriorityNow, wire.PriorityNext, wire.PriorityLow} {
		f.routed[p] = set.NewCounter(fmt.Sprintf("broker_messages_routed_total{priority=%q}", p))
	}
	for op := range ops {
		f.asked[op] = set.NewCounter(fmt.Sprintf("claudemesh_broker_requests_total{type=%q}", op))
	}
	return f
}

func (f *figures) turnedAway(code string) {
	f.set.GetOrCreateCounter(fmt.Sprintf("broker_connections_rejected_total{reason=%q}", code)).Inc()
}

func (f *figures) rejected(code string) {
	f.set.GetOrCreateCounter(fmt.Sprintf("broker_messages_rejected_total{reason=%q}", code)).Inc()
}

// storeUp reports whether the store takes mail.
func (b *Broker) storeUp() bool { return !b.fan.broken.Load() && b.cfg.NC.IsConnected() }

func (b *Broker) healthNow() wire.BrokerHealth {
	return wire.BrokerHealth{Version: b.cfg.Version, GitSHA: revision(), Uptime: int64(b.clock.Since(b.started).Seconds())}
}

// revision is the commit this program was built from, 7 digits, "" when the build does not know.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value[:min(7, len(s.Value))]
		}
	}
	return ""
}

// health is always 200 while the process answers; db says whether the store takes mail.
func (b *Broker) health(w http.ResponseWriter, _ *http.Request) {
	h := b.healthNow()
	if h.Status, h.DB = "ok", "up"; !b.storeUp() {
		h.DB = "down"
	}
	answer(w, http.StatusOK, h)
}

// ready is 200 only while the store takes mail.
func (b *Broker) ready(w http.ResponseWriter, _ *http.Request) {
	h, status := b.healthNow(), http.StatusOK
	if h.Status = "ready"; !b.storeUp() {
		h.Status, h.Reason, status = "not_ready", "db_down", http.StatusServiceUnavailable
	}
	answer(w, status, h)
}

// operators serves a route to those who hold the admin token.
func (b *Broker) operators(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !b.cfg.OpenStatus {
			if status, problem := b.authorize(r); problem != "" {
				answer(w, status, map[string]any{"error": problem})
				return
			}
		}
		serve(w, r)
	}
}

func (b *Broker) serveStatus(w http.ResponseWriter, _ *http.Request) {
	ctx, cancel := b.deadline()
	defer cancel()
	s, err := b.status(ctx)
	if err != nil {
		b.log.Error("status not known", "err", err)
		s.Status, s.Error = "degraded", wire.CodeUnavailable
	}
	answer(w, http.StatusOK, s)
}

// status looks at everything once. With an error it holds what is known without the store.
func (b *Broker) status(ctx context.Context) (wire.BrokerStatus, error) {
	h := b.healthNow()
	s := wire.BrokerStatus{Status: "ok", Version: h.Version, GitSHA: h.GitSHA, Uptime: h.Uptime, Streams: []wire.StreamStatus{}}
	if !b.storeUp() {
		s.Status = "degraded"
	}
	b.mu.RLock()
	s.Sockets, s.Meshes, s.Invites = len(b.sockets), len(b.meshes), len(b.codes)
	for _, m := range b.meshes {
		d := m.describe()
		s.Members += d.Members
		s.Connections += d.Online
	}
	b.mu.RUnlock()
	s.QueueDepth, s.Mailboxes, s.DeepestMailbox = b.store.depth.sum(mailPrefix)
	list := b.store.js.ListStreams(ctx)
	for info := range list.Info() {
		s.Streams = append(s.Streams, wire.StreamStatus{Name: info.Config.Name, Messages: info.State.Msgs, Bytes: info.State.Bytes, MaxBytes: info.Config.MaxBytes})
		s.Bytes += info.State.Bytes
		if info.Config.Name == acceptStream {
			s.Messages = info.State.Msgs
			if at := b.fan.reached.Load(); info.State.LastSeq > at {
				s.FanoutLag = info.State.LastSeq - at
			}
		}
	}
	slices.SortFunc(s.Streams, func(a, b wire.StreamStatus) int { return strings.Compare(a.Name, b.Name) })
	return s, list.Err()
}

// serveMetrics writes the figures in the Prometheus text format.
func (b *Broker) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	ctx, cancel := b.deadline()
	defer cancel()
	s, err := b.status(ctx)
	if err != nil {
		b.log.Error("figures of the store not known", "err", err)
	}
	var out bytes.Buffer
	gauge := func(name string, v uint64) { metrics.WriteGaugeUint64(&out, name, v) }
	healthy := uint64(0)
	if s.Status == "ok" && err == nil {
		healthy = 1
	}
	gauge("broker_db_healthy", healthy)
	gauge("broker_connections_active", uint64(s.Connections))
	gauge("broker_queue_depth", uint64(s.QueueDepth))
	gauge(fmt.Sprintf("claudemesh_broker_info{version=%q}", s.Version), 1)
	gauge("claudemesh_broker_uptime_seconds", uint64(s.Uptime))
	gauge("claudemesh_broker_sockets", uint64(s.Sockets))
	gauge("claudemesh_broker_meshes", uint64(s.Meshes))
	gauge("claudemesh_broker_members", uint64(s.Members))
	gauge("claudemesh_broker_mailboxes", uint64(s.Mailboxes))
	gauge("claudemesh_broker_mailbox_depth_max", uint64(s.DeepestMailbox))
	gauge("claudemesh_broker_fanout_lag", s.FanoutLag)
	for _, st := range s.Streams {
		gauge(fmt.Sprintf("claudemesh_broker_store_messages{stream=%q}", st.Name), st.Messages)
	}
	for _, st := range s.Streams {
		gauge(fmt.Sprintf("claudemesh_broker_store_bytes{stream=%q}", st.Name), st.Bytes)
	}
	metrics.WriteCounterUint64(&out, "claudemesh_broker_events_dropped_total", uint64(b.dropped.Load()))
	b.figures.set.WritePrometheus(&out)
	metrics.WriteProcessMetrics(&out)
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	w.Header().Set("Cache-Control", "no-store")
	if _, err := out.WriteTo(w); err != nil {
		b.log.Debug("figures not written", "err", err)
	}
}
