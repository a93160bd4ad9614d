package daemon

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/daemon/outbox"
	"claudemesh/daemon/spans"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// What becomes of a row after an attempt.

// settle writes down what became of one attempt.
func (m *meshRun) settle(row outbox.Row, begin time.Time, ack wire.Ack, err error) {
	ctx := context.WithoutCancel(m.ctx) // an answer that arrived while stopping is still true
	store := m.d.outbox
	var failed error
	verdict, reason := judge(ack, err)
	m.step(spans.Span{
		Name: spans.Send, ID: row.ClientMessageID, Begin: begin, FailureText: verdict.String(),
		Attributes: map[string]string{"claudemesh.kind": row.Kind, "claudemesh.attempt": strconv.Itoa(row.Attempts), "claudemesh.broker_message_id": ack.MessageID},
	})
	switch verdict {
	case sent:
		failed = store.Sent(ctx, row.ID, ack.MessageID)
		if failed == nil {
			m.publishReceipt(row, bus.Receipt{State: bus.StateSent, BrokerMessageID: ack.MessageID})
		}
	case refused:
		failed = store.Kill(ctx, row.ID, reason)
		if failed == nil {
			m.publishReceipt(row, bus.Receipt{State: bus.StateFailed, Reason: reason})
		}
	case again:
		failed = store.Release(ctx, row.ID, m.d.opt.Clock.Now(), reason)
	case soon:
		failed = store.Release(ctx, row.ID, m.d.opt.Clock.Now().Add(sessionGrace), reason)
	case limited:
		pause := limiterPause
		if ms := ack.RetryAfterMS; ms > 0 {
			pause = min(time.Duration(ms)*time.Millisecond, limiterPauseMax)
		}
		m.rest(pause)
		failed = store.Postpone(ctx, row.ID, m.d.opt.Clock.Now().Add(pause), reason)
	case later:
		failed = store.Release(ctx, row.ID, m.d.opt.Clock.Now().Add(m.backoff(row.Attempts)), reason)
	}
	// ErrState: the row was requeued meanwhile; what happened to the old attempt does not matter any more.
	if failed != nil && !errors.Is(failed, outbox.ErrState) {
		m.d.opt.Log.Error("outbox_update_failed", "mesh", m.joined.Slug, "id", row.ID, "error", failed)
	}
	if verdict != sent && verdict != refused {
		m.signal() // the drain may be idle, and knows nothing of this row's next time
	}
}

type verdict int

const (
	sent    verdict = iota // the broker has it
	refused                // never
	again                  // the connection went: as soon as there is one
	soon                   // the session's link is opening
	limited                // the broker's limiter
	later                  // with backoff
)

// String names a verdict for traces, which hold no reason: one may have the name of a peer in it. Success is "".
func (v verdict) String() string {
	return map[verdict]string{refused: "refused", again: "connection lost", soon: "session's link not open", limited: "rate limit", later: "not taken"}[v]
}

// judge classifies the outcome of one attempt. A reference broker names its refusals only in sentences; they are told apart by their fixed beginnings.
func judge(ack wire.Ack, err error) (verdict, string) {
	var unknown *mesh.ErrNotFound
	var ambiguous *mesh.ErrAmbiguous
	switch {
	case err == nil && ack.Queued:
		return sent, ""
	case errors.Is(err, bridge.ErrNotOpen), errors.Is(err, bridge.ErrLost):
		return again, "the connection to the broker was lost before it answered"
	case errors.Is(err, errLinkClosed), errors.Is(err, errNotListed), errors.Is(err, errTopicsNotListed), errors.Is(err, bridge.ErrBehind):
		return soon, err.Error()
	case errors.As(err, &unknown):
		return later, err.Error() + " yet"
	case errors.As(err, &ambiguous), errors.Is(err, mesh.ErrSelf), errors.Is(err, errUnsealable), errors.Is(err, mesh.ErrBadTarget),
		errors.Is(err, errNoTopic), errors.Is(err, errNotInTopic), errors.Is(err, errKeyWithdrawn):
		return refused, err.Error()
	case errors.Is(err, context.Canceled):
		return again, "the daemon stopped before the broker answered"
	case errors.Is(err, context.DeadlineExceeded):
		return later, "the broker did not acknowledge in time"
	case err != nil:
		return later, err.Error()
	}
	text := ack.Error
	switch {
	case ack.Code == wire.AckRateLimited, strings.HasPrefix(text, "rate_limit"):
		return limited, text
	case ack.Code == wire.AckPayloadTooLarge, strings.HasPrefix(text, "payload too large"),
		ack.Code == wire.AckIDReused, ack.Code == wire.AckInvalid, ack.Code == wire.AckForbidden, ack.Code == wire.AckNotFound, strings.HasPrefix(text, "blocked by recipient grants"):
		return refused, text
	case text == "":
		return later, "the broker refused it without a reason"
	default:
		return later, text
	}
}

func (m *meshRun) backoff(attempts int) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return outbox.Backoff(attempts, m.rng)
}

func (m *meshRun) rest(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if end := m.d.opt.Clock.Now().Add(d); end.After(m.restEnd) {
		m.restEnd = end
	}
}

func (m *meshRun) restUntil() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.restEnd
}

func (m *meshRun) resting() bool { return m.d.opt.Clock.Now().Before(m.restUntil()) }
