package daemon

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/daemon/outbox"
	"claudemesh/mesh"
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
	// limiterPause is how long the whole mesh rests when the broker's rate limiter refuses a send. It counts per member, so every row would be refused.
	limiterPause = 1 * time.Second
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
	if err == nil {
		pending, err = m.begin(row)
	}
	if err != nil {
		if v, _ := judge(wire.Ack{}, err); v != refused {
			held[resolved], held[typed] = err, err
		}
		m.settle(row, wire.Ack{}, err)
		done()
		return
	}
	m.tasks.Go(func() {
		defer done()
		ctx, cancel := context.WithTimeout(m.ctx, ackTimeout)
		defer cancel()
		ack, err := pending.Wait(ctx)
		m.settle(row, ack, err)
	})
}

// Reasons why a row cannot leave now, or ever.
var (
	errLinkClosed = errors.New("the session's link is not open yet")
	errNotListed  = errors.New("the broker has not listed the peers yet")
	errUnsealable = errors.New("the message cannot be sealed for this key")
)

func (m *meshRun) begin(row outbox.Row) (*bridge.Pending, error) {
	if row.TargetSpec == "" {
		key, err := m.lateTarget(row)
		if err != nil {
			return nil, err
		}
		row.TargetSpec = key
	}
	link, identity := m.carrier(row)
	if link == nil {
		return nil, errLinkClosed
	}
	frame := wire.Send{
		Type: wire.TypeSend, ID: row.ClientMessageID, ClientMessageID: row.ClientMessageID, RequestFingerprint: fmt.Sprintf("%x", row.Fingerprint),
		TargetSpec: row.TargetSpec, Priority: row.Priority, ReplyToID: row.ReplyTo,
	}
	if frame.Priority == "" {
		frame.Priority = wire.PriorityNext
	}
	nonce, box, err := m.seal(identity, row)
	if err != nil {
		return nil, err
	}
	frame.Nonce, frame.Ciphertext = base64.StdEncoding.EncodeToString(nonce), base64.StdEncoding.EncodeToString(box)
	return link.Begin(m.ctx, frame)
}

// seal closes a direct message for its recipient. Multicasts travel as base64 of the text with an unused random nonce: the protocol has no key that all
// their recipients share, and the broker can read them (docs/decisions.md).
func (m *meshRun) seal(from mesh.Identity, row outbox.Row) (nonce, box []byte, err error) {
	if row.Kind == "dm" {
		nonce, box, err = m.d.boxes.Seal(from, row.TargetSpec, row.Payload, m.d.opt.Rand)
		if errors.Is(err, mesh.ErrWeakKey) {
			err = errUnsealable
		}
		return nonce, box, err
	}
	nonce = make([]byte, 24)
	if _, err := m.d.opt.Rand.Read(nonce); err != nil {
		return nil, nil, fmt.Errorf("make nonce: %w", err)
	}
	return nonce, row.Payload, nil
}

// carrier chooses link and key for a row: the session's while it lives, the member's otherwise. A live session whose link is still opening is waited for,
// so that the recipient sees the true sender.
func (m *meshRun) carrier(row outbox.Row) (*bridge.Link, mesh.Identity) {
	if row.SenderKey != m.joined.Pubkey {
		if link, id, own := m.links.LinkFor(row.SenderKey); own {
			if link.State().Phase != bridge.Open {
				return nil, mesh.Identity{}
			}
			return link, id
		}
	}
	return m.links.Member(), m.member
}

// lateTarget resolves a name that could not be looked up when the row was accepted.
func (m *meshRun) lateTarget(row outbox.Row) (string, error) {
	t, err := mesh.ParseTarget(row.Target)
	if err != nil {
		return "", err
	}
	peer, settled, err := m.roster.lookup(m.ctx, t, row.SenderKey)
	if !settled {
		return "", errNotListed
	}
	if err != nil {
		return "", err
	}
	if err := m.d.outbox.Resolved(m.ctx, row.ID, peer.Key); err != nil {
		return "", fmt.Errorf("record resolved target: %w", err)
	}
	return peer.Key, nil
}

// settle writes down what became of one attempt.
func (m *meshRun) settle(row outbox.Row, ack wire.Ack, err error) {
	ctx := context.WithoutCancel(m.ctx) // an answer that arrived while stopping is still true
	store := m.d.outbox
	var failed error
	verdict, reason := judge(ack, err)
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
		m.rest(limiterPause)
		failed = store.Release(ctx, row.ID, m.d.opt.Clock.Now().Add(limiterPause), reason)
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

// judge classifies the outcome of one attempt. A reference broker names its refusals only in sentences; they are told apart by their fixed beginnings.
func judge(ack wire.Ack, err error) (verdict, string) {
	var unknown *mesh.ErrNotFound
	var ambiguous *mesh.ErrAmbiguous
	switch {
	case err == nil && ack.Queued:
		return sent, ""
	case errors.Is(err, bridge.ErrNotOpen), errors.Is(err, bridge.ErrLost):
		return again, "the connection to the broker was lost before it answered"
	case errors.Is(err, errLinkClosed), errors.Is(err, errNotListed):
		return soon, err.Error()
	case errors.As(err, &unknown):
		return later, err.Error() + " yet"
	case errors.As(err, &ambiguous), errors.Is(err, mesh.ErrSelf), errors.Is(err, errUnsealable), errors.Is(err, mesh.ErrBadTarget):
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
	case strings.HasPrefix(text, "rate_limit"):
		return limited, text
	case ack.Code == wire.AckPayloadTooLarge, strings.HasPrefix(text, "payload too large"),
		ack.Code == wire.AckIDReused, ack.Code == wire.AckInvalid, strings.HasPrefix(text, "blocked by recipient grants"):
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
	m.restEnd = m.d.opt.Clock.Now().Add(d)
}

func (m *meshRun) restUntil() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.restEnd
}

func (m *meshRun) resting() bool { return m.d.opt.Clock.Now().Before(m.restUntil()) }
