package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"claudemesh/wire"
)

// What a scheduled message becomes when it is due: mail like any other, routed as things are then.

var (
	errNobodyLeft   = errors.New("the member who scheduled it, or its mesh, is gone")
	errWaitsForRoom = errors.New("the recipient's mailbox is full")
)

// post sends what is due. errNobodyLeft: nothing was sent, and nothing ever will be. errWaitsForRoom: later.
func (t *timers) post(ctx context.Context, meshID string, rec scheduleRecord, now time.Time) error {
	b := t.b
	b.mu.RLock()
	m := b.meshes[meshID]
	var who *member
	if m != nil {
		who = m.active(rec.MemberPubkey)
	}
	b.mu.RUnlock()
	if who == nil || who.ID != rec.MemberID {
		return errNobodyLeft
	}
	data, err := reminderData(rec, now)
	if err != nil {
		return err
	}
	out := &accepted{
		CMID: rec.ID + ":" + strconv.FormatInt(rec.Due, 10), Mesh: meshID, MemberID: rec.MemberID, MemberPubkey: rec.MemberPubkey, SessionKey: rec.SessionKey,
		Name: rec.Name, Target: rec.To, Priority: wire.PriorityNow, Nonce: rec.Nonce, Ciphertext: rec.text(), At: now.UnixMilli(),
		Subtype: rec.Subtype, EventData: data,
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeDeadline)
	defer cancel()
	reason, err := b.addressScheduled(ctx, m, who, out)
	switch {
	case err != nil:
		return err
	case reason != "":
		return b.scheduleFailed(ctx, out, rec, reason)
	}
	return b.post(ctx, out)
}

// addressScheduled fills in the mailboxes. Unlike a send it may go to the sender's own key. reason says why there are none.
func (b *Broker) addressScheduled(ctx context.Context, m *meshState, who *member, out *accepted) (reason string, err error) {
	if group, all, ok := isMulticast(out.Target); ok {
		b.mu.RLock()
		to := m.multicast(who, group, all, b.now())
		b.mu.RUnlock()
		out.Multicast = true
		out.To = slices.DeleteFunc(to, func(key string) bool { return b.store.full(ctx, mailSubject(out.Mesh, key), b.lim.MailboxDepth) })
		return "", nil
	}
	b.mu.RLock()
	known, blocked := m.addressable(out.Target), m.blocked(who, out.Target)
	b.mu.RUnlock()
	switch {
	case !known:
		return "nobody of this mesh has that key any more", nil
	case blocked != nil:
		return blocked.message, nil
	case b.store.full(ctx, mailSubject(out.Mesh, out.Target), b.lim.MailboxDepth):
		return "", errWaitsForRoom
	}
	out.To = []string{out.Target}
	return "", nil
}

// scheduleFailed tells the author instead of the recipient.
func (b *Broker) scheduleFailed(ctx context.Context, out *accepted, rec scheduleRecord, reason string) error {
	data, err := json.Marshal(wire.ScheduleFailed{ScheduledID: rec.ID, To: rec.To, Reason: reason})
	if err != nil {
		return fmt.Errorf("encode failure: %w", err)
	}
	return b.post(ctx, &accepted{
		CMID: out.CMID, Mesh: out.Mesh, SessionKey: senderSystem, Name: senderSystem, Target: rec.MemberPubkey, To: []string{rec.MemberPubkey},
		Priority: wire.PriorityNow, At: out.At, Subtype: wire.SubtypeSystem, Event: wire.EventScheduleFailed, EventData: data,
	})
}

// senderSystem is the sender of what the broker itself has to say.
const senderSystem = "system"

// missed counts the times of a cron between its due time and now.
func missed(rec scheduleRecord, now time.Time) (n int) {
	for at := rec.Due; rec.Cron != "" && n < maxMissed; n++ {
		next, err := nextDue(rec, unixMilli(at))
		if err != nil || next > now.UnixMilli() {
			break
		}
		at = next
	}
	return n
}

func reminderData(rec scheduleRecord, now time.Time) (json.RawMessage, error) {
	data, err := json.Marshal(wire.ReminderData{
		ScheduledID: rec.ID, DeliverAt: rec.Due, Cron: rec.Cron, Missed: missed(rec, now),
		// What was due in the past when it was made is sent at once, and not late.
		Late: now.Sub(unixMilli(max(rec.Due, rec.CreatedAt))) > lateAfter,
	})
	if err != nil {
		return nil, fmt.Errorf("encode reminder: %w", err)
	}
	return data, nil
}
