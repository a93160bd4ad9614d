package bus

import (
	"path/filepath"
	"strings"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// A stream of the server takes nothing any more after the first write that fails, for instance because the disk is full, and stays so until the process is
// restarted. The caretaker notices it and, when there is room, has the server close its store and open it again. What was stored is read back from the
// files; what was not acknowledged is for the publisher to repeat.

const (
	reviveEvery = 2 * time.Second // between looks
	reviveMost  = time.Minute     // between attempts that keep failing
	reviveRoom  = 8 << 20         // bytes that must be free
)

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

func (s *Server) caretaker(cfg natsserver.JetStreamConfig, quit <-chan struct{}) {
	tick := s.cfg.Clock.NewTicker(reviveEvery)
	defer tick.Stop()
	var next time.Time // no attempt before
	wait, told := reviveEvery, false
	for {
		select {
		case <-quit:
			return
		case <-tick.Chan():
		}
		why := s.storeFailure()
		if why == "" {
			told = false
			continue
		}
		if !told {
			told = true
			s.cfg.Log.Error("the store takes no more; it is opened again when the disk has room", "dir", s.cfg.Dir, "why", why)
		}
		now := s.cfg.Clock.Now()
		free, err := freeSpace(filepath.Join(s.cfg.Dir, natsserver.JetStreamStoreDir))
		if now.Before(next) || err == nil && free < reviveRoom {
			continue
		}
		if now.Sub(next) > reviveMost {
			wait = reviveEvery
		}
		next, wait = now.Add(wait), min(2*wait, reviveMost)
		if err := s.reopenStore(cfg); err != nil {
			s.cfg.Log.Error("the store cannot be opened again", "err", err)
			continue
		}
		s.cfg.Log.Info("the store was opened again")
	}
}

// storeFailure says why a stream takes no more messages, "" when all of them do.
func (s *Server) storeFailure() string {
	if !s.ns.JetStreamEnabled() {
		return "streams are turned off"
	}
	for _, e := range s.ns.Healthz(&natsserver.HealthzOptions{Details: true}).Errors {
		if e.Type == natsserver.HealthzErrorStream && strings.Contains(e.Error, "write error") {
			return e.Error
		}
	}
	return ""
}

// reopenStore closes what is open of the store and opens it.
func (s *Server) reopenStore(cfg natsserver.JetStreamConfig) error {
	if err := s.ns.ShutdownJetStream(); err != nil {
		return err
	}
	if s.ns.JetStreamConfig() != nil {
		return nil // the server is closing it itself, and is not done; the next look will find it closed
	}
	return s.ns.EnableJetStream(&cfg)
}
