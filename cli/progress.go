package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/jonboulle/clockwork"
)

// What takes longer than a second shows that it goes on: one line on stderr, drawn over itself and wiped at the end. Nothing is shown when stderr is no
// terminal, or with --json.
const (
	meterAfter = time.Second
	meterEvery = 200 * time.Millisecond
)

// meter shows how far one thing has come.
type meter struct {
	ui    *ui
	clock clockwork.Clock
	on    bool
	begun time.Time
	drawn time.Time
	label string
}

// meter makes one. label says what is going on: "uploading plan.pdf".
func (c *call) meter(label string) *meter {
	return &meter{ui: c.ui, clock: c.clock, on: !c.ui.json && terminal(c.stderr), begun: c.clock.Now(), label: cleanLine(label)}
}

// set draws, at most every meterEvery. total 0 means that the end is not known.
func (m *meter) set(done, total int64) {
	now := m.clock.Now()
	if !m.on || now.Sub(m.begun) < meterAfter || now.Sub(m.drawn) < meterEvery {
		return
	}
	m.drawn = now
	line := fmt.Sprintf("%s  %s", m.label, now.Sub(m.begun).Round(time.Second))
	if total > 0 {
		line = fmt.Sprintf("%s  %s of %s, %d %%", m.label, byteSize(done), byteSize(total), min(done, total)*100/total)
	}
	fmt.Fprintf(m.ui.err, "\r\x1b[2K%s", line)
}

// clear wipes the line.
func (m *meter) clear() {
	if !m.drawn.IsZero() {
		fmt.Fprint(m.ui.err, "\r\x1b[2K")
		m.drawn = time.Time{}
	}
}

// during runs work and meanwhile asks how far it has come; a question that fails is passed over. poll may be nil: then the time is shown.
func (m *meter) during(ctx context.Context, poll func(context.Context) (done, total int64, err error), work func(context.Context) error) error {
	if !m.on {
		return work(ctx)
	}
	defer m.clear()
	ended := make(chan error, 1)
	go func() { ended <- work(ctx) }()
	for {
		select {
		case err := <-ended:
			return err
		case <-m.clock.After(meterEvery):
		}
		var done, total int64
		if poll != nil {
			var err error
			if done, total, err = poll(ctx); err != nil {
				continue
			}
		}
		m.set(done, total)
	}
}

// byteSize is a size for people: "512 B", "1.5 KiB", "50.0 MiB".
func byteSize(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	default:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
}
