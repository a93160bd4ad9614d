package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"claudemesh/wire"
)

// One check of a watch, and what comes of it.

// check makes one check and takes its result.
func (w *watches) check(ctx context.Context, one *watch) {
	began := w.b.now()
	var err error
	if w.owned(one) {
		var value string
		if value, err = w.fetch.value(ctx, one.spec); ctx.Err() == nil {
			err = w.settle(ctx, one, value, err)
		}
	} else {
		err = w.remove(one)
	}
	if err != nil && ctx.Err() == nil {
		w.log.Warn("watch not served", "id", one.spec.ID, "err", err)
	}
	random, err := w.random()
	if err != nil {
		w.log.Warn("watch not spread", "err", err)
	}
	w.mu.Lock()
	defer w.poke()
	defer w.mu.Unlock()
	one.busy = false
	w.total--
	if w.running[one.spec.MemberID]--; w.running[one.spec.MemberID] == 0 {
		delete(w.running, one.spec.MemberID)
	}
	// From when it was due, so that the time a check takes does not add up; but what was missed is not made up for.
	pause := one.spec.interval(random)
	next := unixMilli(one.due).Add(pause)
	if !next.After(began) {
		next = began.Add(pause)
	}
	one.due = next.UnixMilli()
}

// owned reports whether the mesh still has the member whose watch it is.
func (w *watches) owned(one *watch) bool {
	w.b.mu.RLock()
	defer w.b.mu.RUnlock()
	m := w.b.meshes[one.mesh]
	if m == nil {
		return false
	}
	who := m.active(one.spec.MemberPubkey)
	return who != nil && who.ID == one.spec.MemberID
}

// settle compares a value with the last, tells the owner and stores the new one. What cannot be told stays untold until the next check.
func (w *watches) settle(ctx context.Context, one *watch, value string, failed error) error {
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.gone {
		return nil
	}
	one.checked, one.problem = w.b.now(), ""
	if failed != nil {
		one.problem = problemOf(failed)
		return nil // the owner sees it in the list
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeDeadline)
	defer cancel()
	rec := one.rec
	first, changed, news := rec.Checked == 0, value != rec.Value, rec.notifies(value)
	if news {
		rec.Told++
		switch told, err := w.tell(ctx, one.mesh, rec, value); {
		case err != nil:
			one.problem = "the result could not be stored"
			return err
		case !told:
			one.problem = "the owner's mailbox is full"
			return nil
		}
	}
	rec.Value, rec.Checked = value, one.checked.UnixMilli()
	if first || changed || news { // else there is nothing in it that must outlive the process
		if err := w.b.store.putRecord(ctx, one.key, rec); err != nil {
			return err
		}
	}
	one.rec = rec
	return nil
}

// problemOf is a failure as the owner may see it.
func problemOf(err error) string {
	switch {
	case errors.Is(err, errPrivate):
		return errPrivate.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer within %s", fetchDeadline)
	}
	return bounded(err.Error())
}

// tell mails a result to the watch's owner; false when there is no room for it.
func (w *watches) tell(ctx context.Context, meshID string, rec watchRecord, value string) (bool, error) {
	b := w.b
	if b.store.full(ctx, mailSubject(meshID, rec.MemberPubkey), b.lim.MailboxDepth) {
		return false, nil
	}
	data, err := json.Marshal(wire.WatchTriggered{WatchID: rec.ID, URL: rec.URL, Label: rec.Label, Mode: rec.Mode, OldValue: rec.Value, NewValue: value})
	if err != nil {
		return false, fmt.Errorf("encode watch: %w", err)
	}
	return true, b.post(ctx, &accepted{
		// With the time it was made, because a short id may come again.
		CMID: strings.Join([]string{rec.ID, strconv.FormatInt(rec.CreatedAt, 10), strconv.Itoa(rec.Told)}, ":"),
		Mesh: meshID, SessionKey: senderSystem, Name: senderSystem, Target: rec.MemberPubkey, To: []string{rec.MemberPubkey}, Priority: wire.PriorityNow,
		Subtype: wire.SubtypeSystem, Event: wire.EventWatchTriggered, EventData: data,
	})
}
