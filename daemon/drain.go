package daemon

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"claudemesh/bridge"
	"claudemesh/daemon/outbox"
	"claudemesh/wire"
)

// The drain moves accepted rows of one mesh to its broker. Rows leave in accept order per recipient, several at a time; each is settled by the broker's
// answer to exactly its id. A row is sealed here, right before it leaves: with the key of the link that carries it, for the recipient as known now.

const (
	drainWindow = 256 // frames on their way at once
	claimBatch  = 16
	// ackTimeout is how long one frame waits for the broker's ack before it is sent again under the same id. The broker's dedupe makes that harmless.
	ackTimeout = 30 * time.Second
	// sessionGrace is how long a row of a live session waits for the session's own link before the next try.
	sessionGrace = 250 * time.Millisecond
	// limiterPause is how long the whole mesh rests when the broker's rate limiter refuses a send and does not say for how long. It counts per member, so
	// every row would be refused.
	limiterPause    = 1 * time.Second
	limiterPauseMax = time.Minute
)

func (m *meshRun) drain() {
	slots := make(chan struct{}, drainWindow)
	defer func() { // wait for the frames that are still out
		for range drainWindow {
			slots <- struct{}{}
		}
	}()
	for m.ctx.Err() == nil {
		n, err := m.drainOnce(slots)
		if err != nil && m.ctx.Err() == nil {
			m.d.opt.Log.Error("drain_failed", "mesh", m.joined.Slug, "error", err)
		}
		if n == 0 && !m.idle() {
			return
		}
	}
}

// drainOnce claims and dispatches one batch and says how many rows it took.
func (m *meshRun) drainOnce(slots chan struct{}) (int, error) {
	if !m.online() || m.resting() {
		return 0, nil
	}
	free := 0
	select {
	case slots <- struct{}{}:
		free++
	case <-m.ctx.Done():
		return 0, nil
	}
	for free < claimBatch {
		select {
		case slots <- struct{}{}:
			free++
			continue
		default:
		}
		break
	}
	rows, err := m.d.outbox.Claim(m.ctx, m.joined.Slug, free)
	for range free - len(rows) {
		<-slots
	}
	if err != nil {
		return 0, fmt.Errorf("claim rows: %w", err)
	}
	held := map[lane]error{}
	for _, row := range rows {
		m.dispatch(row, held, func() { <-slots })
	}
	return len(rows), nil
}

// idle waits until something may be due. It reports false when the mesh ends.
func (m *meshRun) idle() bool {
	var due <-chan time.Time
	if m.online() {
		at, ok, err := m.d.outbox.NextDue(m.ctx, m.joined.Slug)
		if rest := m.restUntil(); ok && at.Before(rest) {
			at = rest
		}
		switch {
		case err != nil:
			due = m.d.opt.Clock.After(time.Second)
		case ok:
			due = m.d.opt.Clock.After(max(at.Sub(m.d.opt.Clock.Now()), time.Millisecond))
		}
	}
	select {
	case <-m.ctx.Done():
		return false
	case <-m.wake:
	case <-due:
	}
	return true
}

// lane is what one sender has for one recipient, as typed or as resolved.
type lane struct{ sender, recipient string }

// dispatch puts one claimed row on its link, in order, and settles it when the broker has answered. held are the lanes of this batch of which an earlier row
// could not leave, and why: the later ones must not overtake it, though the reason may be gone by now. Other senders are not held up by it. done is called
// exactly once, at the end.
func (m *meshRun) dispatch(row outbox.Row, held map[lane]error, done func()) {
	var pending *bridge.Pending
	typed, resolved := lane{row.SenderKey, row.Target}, lane{row.SenderKey, row.Recipient()}
	err := cmp.Or(held[resolved], held[typed])
	begin := m.d.opt.Clock.Now()
	if err == nil {
		pending, err = m.begin(row)
	}
	if err != nil {
		if v, _ := judge(wire.Ack{}, err); v != refused {
			held[resolved], held[typed] = err, err
		}
		m.settle(row, begin, wire.Ack{}, err)
		done()
		return
	}
	m.tasks.Go(func() {
		defer done()
		ctx, cancel := context.WithTimeout(m.ctx, ackTimeout)
		defer cancel()
		ack, err := pending.Wait(ctx)
		m.settle(row, begin, ack, err)
		pending.Settle()
	})
}
