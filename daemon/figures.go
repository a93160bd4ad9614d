package daemon

import (
	"bytes"
	"fmt"
	"net/http"

	"github.com/VictoriaMetrics/metrics"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/daemon/outbox"
	"claudemesh/daemon/spans"
)

// figures counts what happens to messages since the daemon's start. Counting is an addition and always on; the figures are served only when asked for
// (Options.Metrics). Labels are states and slugs of this machine, never what a peer chose.
type figures struct {
	set      *metrics.Set
	own      map[string]*metrics.Counter // messages of ours, by the state they came to
	received *metrics.Counter            // messages stored here
	shown    *metrics.Counter            // of those, handed to a session with evidence
	closed   *metrics.Counter            // of those, that could not be opened
}

func newFigures() *figures {
	set := metrics.NewSet()
	f := &figures{
		set: set, own: map[string]*metrics.Counter{}, received: set.NewCounter("claudemesh_daemon_received_total"),
		shown: set.NewCounter("claudemesh_daemon_shown_total"), closed: set.NewCounter("claudemesh_daemon_undecryptable_total"),
	}
	for _, state := range []string{bus.StateAccepted, bus.StateSent, bus.StateDelivered, bus.StateSurfaced, bus.StateAnswered, bus.StateFailed} {
		f.own[state] = set.NewCounter(fmt.Sprintf("claudemesh_daemon_messages_total{state=%q}", state))
	}
	return f
}

// reached counts a message of ours that came to a state. One to a group comes to delivered and surfaced once for each recipient.
func (f *figures) reached(state string) {
	if c := f.own[state]; c != nil {
		c.Inc()
	}
}

// step tells whoever follows the traces of a message's step on this mesh, which ends now.
func (m *meshRun) step(s spans.Span) {
	if m.d.opt.Spans == nil {
		return
	}
	s.MeshID, s.End = m.joined.MeshID, m.d.opt.Clock.Now()
	s.Attributes["claudemesh.mesh"] = m.joined.Slug
	m.d.opt.Spans.Record(s)
}

// serveFigures writes them in the Prometheus text format, with what is looked up now: outbox, links, sessions.
func (d *Daemon) serveFigures(w http.ResponseWriter, r *http.Request) {
	var out bytes.Buffer
	gauge := func(name string, v int) { metrics.WriteGaugeUint64(&out, name, uint64(max(v, 0))) }
	gauge(fmt.Sprintf("claudemesh_daemon_info{version=%q}", d.opt.Version), 1)
	gauge("claudemesh_daemon_uptime_seconds", int(d.opt.Clock.Since(d.started).Seconds()))
	var all []bus.MeshStatus
	d.each(func(m *meshRun) { all = append(all, m.status(r.Context())) })
	gauge("claudemesh_daemon_meshes", len(all))
	// One metric after the other: a family's lines must stand together.
	each := func(name string, value func(bus.MeshStatus) int) {
		for _, m := range all {
			gauge(fmt.Sprintf("claudemesh_daemon_%s{mesh=%q}", name, m.Mesh), value(m))
		}
	}
	each("link_open", func(m bus.MeshStatus) int {
		if m.Link == string(bridge.Open) {
			return 1
		}
		return 0
	})
	each("sessions", func(m bus.MeshStatus) int { return m.Sessions })
	each("peers", func(m bus.MeshStatus) int { return m.Peers })
	each("inbox_unread", func(m bus.MeshStatus) int { return m.Unread })
	each("outbox_depth", func(m bus.MeshStatus) int {
		return m.Outbox[string(outbox.Pending)] + m.Outbox[string(outbox.Inflight)]
	})
	for _, m := range all {
		for _, s := range []outbox.Status{outbox.Pending, outbox.Inflight, outbox.Done, outbox.Dead, outbox.Aborted} {
			gauge(fmt.Sprintf("claudemesh_daemon_outbox_rows{mesh=%q,status=%q}", m.Mesh, s), m.Outbox[string(s)])
		}
	}
	metrics.WriteCounterUint64(&out, "claudemesh_daemon_publications_dropped_total", d.journal.Dropped())
	d.figures.set.WritePrometheus(&out)
	metrics.WriteProcessMetrics(&out)
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	w.Header().Set("Cache-Control", "no-store")
	if _, err := out.WriteTo(w); err != nil {
		d.opt.Log.Debug("figures_not_written", "error", err)
	}
}
