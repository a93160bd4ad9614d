package bridge

import (
	"context"
	"errors"
	"time"

	"github.com/gorilla/websocket"

	"claudemesh/wire"
)

// Run connects and reconnects until ctx ends (it returns ctx's error) or the broker closes the door for good (ErrKicked, ErrBanned). It may be called once.
//
// Pauses, in units of Backoff (one second unless said otherwise), each drawn uniformly from its range: 0.1 to 0.25 after the loss of a connection that
// was open for at least 5; otherwise 0.1 to 1, 2, 4, 8, 16, 30 by attempt; from 5 up to at least 10 when the broker refused the hello or replaced the
// session.
//
// After a refusal for good, what was received before is still handed over. When Run returns, its goroutines are gone and no handler runs.
func (l *Link) Run(ctx context.Context) error {
	if !l.started.CompareAndSwap(false, true) {
		return ErrRunning
	}
	noMore, done := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); l.mail.run(ctx, noMore) }()
	err := l.connectUntil(ctx)
	st := l.State()
	st.Phase, st.Since, st.Retry = Closed, l.clock.Now(), time.Time{}
	if ctx.Err() == nil {
		st.Err = err.Error()
	}
	l.status.end(st, err)
	l.cfg.OnState(st)
	close(noMore)
	<-done
	return err
}

func (l *Link) connectUntil(ctx context.Context) error {
	pauses := &backoff{base: l.cfg.Backoff, rand: l.rand}
	for first := true; ; first = false {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !first {
			l.counts.reconnects.Add(1)
		}
		l.enter(func(s *State) { s.Phase = Connecting })
		open, cause := l.connect(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		end, why, terminal := l.judge(cause, open)
		if terminal != nil {
			return terminal
		}
		if open >= 600*l.cfg.Backoff {
			pauses.attempts = 0 // the troubles before it are history
		}
		pause := pauses.next(end)
		l.enter(func(s *State) {
			s.Phase, s.Err, s.Attempts, s.Retry = Waiting, why, pauses.attempts, l.clock.Now().Add(pause)
		})
		l.log.Info("broker link down", "reason", why, "retry_in", pause, "attempts", pauses.attempts)
		if err := l.pause(ctx, pause); err != nil {
			return err
		}
	}
}

func (l *Link) enter(edit func(*State)) {
	st := l.State()
	st.Retry = time.Time{}
	edit(&st)
	st.Since = l.clock.Now()
	l.status.set(st)
	l.cfg.OnState(st)
}

func (l *Link) pause(ctx context.Context, d time.Duration) error {
	t := l.clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.Chan():
	case <-l.kick:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// closeReplaced is the reason of close 1000 when another connection took this one's session id. Coming back fast would only evict the other one.
const closeReplaced = "session_replaced"

// judge tells how a connection ended: how long to wait, what to show, and whether to give up.
func (l *Link) judge(cause error, open time.Duration) (end ending, why string, terminal error) {
	end = endFailed
	if open >= 5*l.cfg.Backoff {
		end = endLost
	}
	if c := new(websocket.CloseError); errors.As(cause, &c) {
		switch {
		case c.Code == wire.CloseKicked:
			return end, "kicked", ErrKicked
		case c.Code == wire.CloseBanned && c.Text == wire.CodeMeshDeleted:
			return end, c.Text, ErrMeshDeleted
		case c.Code == wire.CloseBanned && c.Text == wire.CodeLeft:
			return end, c.Text, ErrLeft
		case c.Code == wire.CloseBanned:
			return end, "banned", ErrBanned
		case c.Code == websocket.CloseNormalClosure && c.Text == closeReplaced, c.Code == websocket.ClosePolicyViolation && c.Text != "":
			cause = &refusal{clean(c.Text, 64)}
		}
	}
	if r := new(refusal); errors.As(cause, &r) {
		switch r.code {
		case wire.CodeRevoked:
			return end, r.code, ErrBanned
		case wire.CodeMeshDeleted:
			return end, r.code, ErrMeshDeleted
		}
		return endRefused, r.code, nil
	}
	return end, clean(cause.Error(), 256), nil
}
