package daemon

import (
	"context"
	"sync"

	"github.com/fsnotify/fsnotify"

	"claudemesh/daemon/session"
)

// ladder carries messages the last metre: one climber for each live session, see package wake for what it decides.
type ladder struct {
	d *Daemon

	mu       sync.Mutex
	climbers map[string]*climber // by session id

	watcher *fsnotify.Watcher // of transcripts; nil where the system has none: then they are looked at from time to time
	watched map[string]*climber
}

func newLadder(d *Daemon) *ladder {
	l := &ladder{d: d, climbers: map[string]*climber{}, watched: map[string]*climber{}}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		d.opt.Log.Warn("transcripts_not_watched", "error", err)
		return l
	}
	l.watcher = w
	return l
}

// run passes on what the system tells about transcripts, until the daemon stops.
func (l *ladder) run(ctx context.Context) {
	if l.watcher == nil {
		return
	}
	defer l.watcher.Close()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-l.watcher.Events:
			if !ok {
				return
			}
			l.mu.Lock()
			c := l.watched[e.Name]
			l.mu.Unlock()
			if c != nil {
				c.look()
			}
		case err, ok := <-l.watcher.Errors:
			if !ok {
				return
			}
			l.d.opt.Log.Warn("transcripts_not_watched", "error", err) // the slow look finds what was missed
		}
	}
}

// watch hears of changes of c's transcript from now on, instead of those of the one before.
func (l *ladder) watch(c *climber, before, path string) {
	if l.watcher == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if before != "" && l.watched[before] == c {
		delete(l.watched, before)
		_ = l.watcher.Remove(before) // it may be gone already
	}
	if path != "" && l.watcher.Add(path) == nil {
		l.watched[path] = c
	}
}

// join starts the climber of a session.
func (l *ladder) join(m *meshRun, s session.Session) {
	ctx, cancel := context.WithCancel(m.ctx)
	c := newClimber(l, m, s, cancel)
	l.mu.Lock()
	old := l.climbers[s.ID]
	l.climbers[s.ID] = c
	l.mu.Unlock()
	if old != nil {
		l.end(old)
	}
	m.tasks.Go(func() { c.run(ctx) })
	m.tasks.Go(func() { c.tell(ctx) })
}

// leave stops the climber of a session.
func (l *ladder) leave(id string) {
	l.mu.Lock()
	c := l.climbers[id]
	delete(l.climbers, id)
	l.mu.Unlock()
	if c != nil {
		l.end(c)
	}
}

func (l *ladder) end(c *climber) {
	c.cancel()
	c.mu.Lock()
	path := c.transcript.path
	c.mu.Unlock()
	l.watch(c, path, "")
}

// of is the climber of a session, nil when it is not live.
func (l *ladder) of(id string) *climber {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.climbers[id]
}

// poke lets the climbers of sessions look: something has come, or has changed.
func (l *ladder) poke(ids ...string) {
	for _, id := range ids {
		if c := l.of(id); c != nil {
			c.look()
		}
	}
}
