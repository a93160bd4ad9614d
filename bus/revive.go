package bus

import (
	"path/filepath"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// The server turns its streams off for good at the first write that fails, for instance because the disk is full: clients then wait in vain until the
// process is restarted. The caretaker turns them on again when there is room. What was stored before is read back from the files; what was not
// acknowledged is for the publisher to repeat.

const (
	reviveEvery = time.Second
	reviveMost  = time.Minute // between attempts that keep failing
	reviveRoom  = 8 << 20     // bytes that must be free
)

// caretaker runs until quit is closed.
func (s *Server) caretaker(cfg natsserver.JetStreamConfig, quit <-chan struct{}) {
	tick := s.cfg.Clock.NewTicker(reviveEvery)
	defer tick.Stop()
	wait, next, down := reviveEvery, time.Time{}, false
	for {
		select {
		case <-quit:
			return
		case <-tick.Chan():
		}
		// The configuration is gone when the shutdown of the streams is complete.
		if s.ns.JetStreamConfig() != nil {
			continue
		}
		if !down {
			down = true
			s.cfg.Log.Error("the store was turned off by a failed write; it comes back when the disk has room", "dir", s.cfg.Dir)
		}
		now := s.cfg.Clock.Now()
		if now.Before(next) {
			continue
		}
		if free, err := freeSpace(filepath.Join(s.cfg.Dir, natsserver.JetStreamStoreDir)); err == nil && free < reviveRoom {
			continue // with an error the attempt itself will tell
		}
		if now.Sub(next) > reviveMost {
			wait = reviveEvery
		}
		next, wait = now.Add(wait), min(2*wait, reviveMost)
		if err := s.ns.EnableJetStream(&cfg); err != nil {
			s.cfg.Log.Error("the store cannot be opened again", "err", err)
			_ = s.ns.ShutdownJetStream() // half of it may be up
			continue
		}
		down = false
		s.cfg.Log.Info("the store is open again")
	}
}

// startCaretaker runs it; stop ends it and waits.
func (s *Server) startCaretaker() (stop func()) {
	cfg := *s.ns.JetStreamConfig()
	cfg.StoreDir = s.cfg.Dir // the server adds its own directory to it
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		s.caretaker(cfg, quit)
	}()
	return func() {
		close(quit)
		<-done
	}
}
