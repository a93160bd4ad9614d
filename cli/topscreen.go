package cli

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/charmbracelet/x/ansi"

	"claudemesh/bus"
)

const (
	flowKept  = 500              // lines of what passed
	flowRate  = 10 * time.Second // what the rate is taken over
	flowTwice = 64               // messages back in which one is recognised that is published on several subjects
	flowLeast = 5                // lines of the screen that are kept for what passes, however long the tables are
)

// topScreen is what is drawn: a function of what was heard, the size of the terminal, and nothing else.
type topScreen struct {
	now           topJSON
	width, height int
	plain         bool // no terminal: no emphasis, nothing is cut
	mute          bool // what messages say is not shown
	trouble       string
	flow          []string
	recent        []string    // ids of messages
	times         []time.Time // when messages passed
	missed        atomic.Uint64
}

// pass takes in what was published on the bus.
func (s *topScreen) pass(subject string, data []byte, at time.Time) {
	line, id, ok := flowLine(subject, data, s.mute)
	if !ok || id != "" && slices.Contains(s.recent, id) {
		return
	}
	if id != "" {
		s.recent = newest(append(s.recent, id), flowTwice)
		s.times = append(s.times, at)
	}
	s.flow = newest(append(s.flow, at.Format(time.TimeOnly)+"  "+line), flowKept)
}

// newest keeps the last n.
func newest[T any](list []T, n int) []T { return slices.Clone(list[max(0, len(list)-n):]) }

// draw is the whole screen. The newest of what passed stands last.
func (s *topScreen) draw(held bool) string {
	if s.width == 0 || s.now.at.IsZero() && s.trouble == "" {
		return "" // the first look is under way
	}
	foot := "q quit   p hold   m hide texts"
	if held {
		foot = s.strong("held") + "   " + foot
	}
	if n := s.missed.Load(); n > 0 {
		foot += fmt.Sprintf("   %d came too fast to be shown", n)
	}
	lines := s.tables()
	if s.trouble != "" {
		lines = append([]string{s.strong("! " + s.trouble)}, lines...)
	}
	if most := max(1, s.height-flowLeast-3); len(lines) > most {
		lines = append(lines[:most:most], fmt.Sprintf("  … %d lines more", len(lines)-most))
	}
	lines = append(lines, "", s.strong("PASSING"))
	if room := s.height - len(lines) - 1; room > 0 {
		flow := newest(s.flow, room)
		lines = append(lines, flow...)
		lines = append(lines, make([]string, room-len(flow))...)
	}
	lines = append(lines[:min(len(lines), max(0, s.height-1))], foot)
	for i, l := range lines {
		lines[i] = ansi.Truncate(l, s.width, "…")
	}
	return strings.Join(lines, "\n")
}

// tables are the header and the three tables.
func (s *topScreen) tables() []string {
	d := s.now.Daemon
	up := s.now.at.Sub(time.UnixMilli(d.StartedAt)).Truncate(time.Second)
	unsent, unread := 0, 0
	meshes := [][]string{{"MESH", "LINK", "PEERS", "UNREAD", "WAITING", "FAILED", "BROKER"}}
	for _, m := range d.Meshes {
		waiting := m.Outbox["pending"] + m.Outbox["inflight"]
		unsent, unread = unsent+waiting, unread+m.Unread
		link := m.Link
		if m.Error != "" {
			link += " (" + cleanLine(m.Error) + ")"
		}
		meshes = append(meshes, []string{m.Mesh, link, fmt.Sprint(m.Peers), fmt.Sprint(m.Unread), fmt.Sprint(waiting), fmt.Sprint(m.Outbox["dead"]), cleanLine(m.BrokerURL)})
	}
	said := map[string]bus.Peer{}
	peers := [][]string{{"PEER", "MESH", "STATUS", "HOST", "DOING"}}
	for _, p := range s.now.Peers {
		said[p.Pubkey] = p
		if p.IsSelf {
			continue
		}
		doing := ""
		if p.Summary != nil {
			doing = cleanLine(*p.Summary)
		}
		peers = append(peers, []string{cleanLine(p.DisplayName), p.Mesh, cleanLine(p.Status), cleanLine(p.Hostname), doing})
	}
	sessions := [][]string{{"SESSION", "MESH", "STATUS", "LINK", "UNREAD", "WOKEN BY", "DIRECTORY"}}
	for _, i := range s.now.Sessions {
		woken := "-"
		if i.Wake != nil {
			woken = strings.TrimPrefix(wakeText(*i.Wake), "woken by ")
		}
		sessions = append(sessions, []string{cleanLine(i.Name), i.Mesh, cleanLine(said[i.Pubkey].Status), i.Link, fmt.Sprint(i.Unread), woken, cleanLine(i.Cwd)})
	}
	lines := []string{fmt.Sprintf("daemon %s  pid %d  up %s  %s  %s  %d unread  %d not sent yet  %.1f messages/s",
		cleanLine(d.Version), d.PID, up, counted(len(d.Meshes), "mesh", "meshes"), plural(len(s.now.Sessions), "session"), unread, unsent, s.rate())}
	for _, n := range d.Notices {
		lines = append(lines, "! "+cleanLine(n))
	}
	for _, t := range [][][]string{meshes, sessions, peers} {
		if len(t) > 1 {
			lines = append(append(lines, ""), s.table(t)...)
		}
	}
	return lines
}

// rate is how many messages a second have passed lately.
func (s *topScreen) rate() float64 {
	since := s.now.at.Add(-flowRate)
	s.times = slices.DeleteFunc(s.times, func(t time.Time) bool { return t.Before(since) })
	return float64(len(s.times)) / flowRate.Seconds()
}

// table aligns rows; the first is their head.
func (s *topScreen) table(rows [][]string) []string {
	const widest = 32 // of a column that is not the last
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r[:len(r)-1] {
			widths[i] = max(widths[i], min(ansi.StringWidth(cell), widest))
		}
	}
	lines := make([]string, 0, len(rows))
	for n, r := range rows {
		var b strings.Builder
		for i, cell := range r {
			if i < len(r)-1 {
				cell = ansi.Truncate(cell, widest, "…")
				cell += strings.Repeat(" ", widths[i]-ansi.StringWidth(cell)+2)
			}
			b.WriteString(cell)
		}
		line := strings.TrimRight(b.String(), " ")
		if n == 0 {
			line = s.strong(line)
		}
		lines = append(lines, line)
	}
	return lines
}

func (s *topScreen) strong(text string) string { return paint(!s.plain, bold, text) }
