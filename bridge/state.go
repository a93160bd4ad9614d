package bridge

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Phase is where a link stands.
type Phase string

// Phases. A link starts and ends in Closed; Waiting is the pause before the next attempt.
const (
	Connecting Phase = "connecting"
	Open       Phase = "open"
	Waiting    Phase = "waiting"
	Closed     Phase = "closed"
)

// State is a snapshot of a link.
type State struct {
	Phase Phase
	// Err says why the last connection or attempt ended: the broker's code (timestamp_skew, session_replaced, …) or an error text. Empty while open.
	Err string
	// Since is when the phase began.
	Since time.Time
	// Retry is when the next attempt is due, on the link's clock; zero unless waiting.
	Retry time.Time
	// Attempts counts the attempts that failed in a row; 0 while open.
	Attempts int
	// Capabilities are what the broker announced in hello_ack: nil until a broker was reached, and for a reference broker.
	Capabilities []string
	// MessageMode is what the member has chosen, as the broker said it last: push, inbox or off; "" until a broker was reached.
	MessageMode string
}

// Has reports whether the broker announced the capability.
func (s State) Has(capability string) bool { return slices.Contains(s.Capabilities, capability) }

// status keeps the state and wakes those who wait for a change. Run's goroutine is the only writer.
type status struct {
	mu      sync.Mutex
	state   State
	err     error // why Run ended, once it has
	ended   bool
	changed chan struct{}
}

func (s *status) get() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

func (s *status) set(st State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = st
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *status) end(st State, err error) {
	s.mu.Lock()
	s.ended, s.err = true, err
	s.mu.Unlock()
	s.set(st)
}

// waitOpen returns nil once the link is open, the error that ended Run, or ctx's.
func (s *status) waitOpen(ctx context.Context) error {
	for {
		s.mu.Lock()
		phase, ended, err, changed := s.state.Phase, s.ended, s.err, s.changed
		s.mu.Unlock()
		switch {
		case phase == Open:
			return nil
		case ended:
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
