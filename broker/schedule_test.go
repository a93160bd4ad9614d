package broker

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"claudemesh/wire"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// reminder schedules a message and returns its id.
func (c *client) reminder(to, text string, at time.Time, more ...map[string]any) wire.ScheduledAck {
	c.t.Helper()
	f := map[string]any{"to": to, "message": text, "deliverAt": at.UnixMilli(), "subtype": "reminder"}
	for _, m := range more {
		for k, v := range m {
			f[k] = v
		}
	}
	ack := into[wire.ScheduledAck](c, c.call(wire.TypeSchedule, f))
	if ack.Type != wire.TypeScheduledAck || ack.ScheduledID == "" {
		c.t.Fatalf("%+v", ack)
	}
	return ack
}

func (c *client) scheduled() []wire.Scheduled {
	c.t.Helper()
	return into[wire.ScheduledList](c, c.call(wire.TypeListScheduled, nil)).Messages
}

// nothingScheduled waits until the broker is done with everything that was due.
func (r *rig) nothingScheduled() {
	r.t.Helper()
	r.until("the schedule to be empty", func() bool {
		t := r.broker.timers
		t.mu.Lock()
		defer t.mu.Unlock()
		return len(t.all) == 0
	})
}

func reminderOf(t *testing.T, p wire.Push) wire.ReminderData {
	t.Helper()
	var d wire.ReminderData
	if err := p.Data(&d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestAReminderIsSentWhenItIsDue(t *testing.T) {
	clock, useClock := fakeClock(noon)
	r := newRig(t, useClock)
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	for _, c := range []struct {
		name, to string
		in       time.Duration
		hears    *client
	}{
		{"to a peer", bob.PublicKey(), time.Minute, b},
		{"to oneself", r.owner.PublicKey(), time.Minute, a},
		{"to everybody", "*", time.Hour, b},
		{"farther ahead than a 32-bit timer reaches", bob.PublicKey(), 60 * 24 * time.Hour, b},
		{"in the past: at once", bob.PublicKey(), -time.Hour, b},
	} {
		t.Run(c.name, func(t *testing.T) {
			due := clock.Now().Add(c.in)
			ack := a.reminder(c.to, c.name, due)
			if ack.DeliverAt != due.UnixMilli() {
				t.Errorf("due at %d, want %d", ack.DeliverAt, due.UnixMilli())
			}
			if c.in > time.Second {
				clock.Advance(c.in - time.Second)
				c.hears.settle()
				c.hears.quiet()
				clock.Advance(time.Second)
			}
			p := c.hears.message()
			if text(p) != c.name || p.Subtype != wire.SubtypeReminder || p.Priority != wire.PriorityNow || p.Nonce != "" || p.SenderPubkey != r.owner.PublicKey() || p.SenderName != "alice" {
				t.Errorf("%+v", p)
			}
			if d := reminderOf(t, p); d.ScheduledID != ack.ScheduledID || d.Late || d.Missed != 0 {
				t.Errorf("%+v", d)
			}
			c.hears.clientAck(p, "")
			r.nothingScheduled()
			if list := a.scheduled(); len(list) != 0 {
				t.Errorf("still listed: %+v", list)
			}
		})
	}
	t.Run("also when whoever made it has gone, to a peer that is not there", func(t *testing.T) {
		carol := r.addMember("carol")
		a.reminder(carol.PublicKey(), "later", clock.Now().Add(time.Minute))
		a.close()
		clock.Advance(time.Minute)
		r.mailIn(r.mailboxOf(carol), 1)
		if p := r.member(carol).message(); text(p) != "later" {
			t.Errorf("%+v", p)
		}
	})
}

func TestAReminderOutlivesTheProcess(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	r.stop()
	url, kill := startChild(t, r.dir)
	a := r.dialURL(url, r.owner)
	due := time.Now().Add(time.Hour)
	ack := a.reminder(bob.PublicKey(), "after the crash", due)
	hourly := a.reminder(bob.PublicKey(), "hourly", time.Time{}, map[string]any{"cron": "0 * * * *", "tz": "UTC"})
	kill()
	a.close()

	clock, useClock := fakeClock(due.Add(5 * time.Hour))
	useClock(&r.cfg)
	r.start()
	b := r.member(bob)
	seen := map[string]bool{}
	for range 2 {
		p := b.fresh(seen)
		switch d := reminderOf(t, p); d.ScheduledID {
		case ack.ScheduledID:
			if !d.Late || d.Missed != 0 || d.DeliverAt != due.UnixMilli() || text(p) != "after the crash" {
				t.Errorf("the one that was overdue: %s", p.EventData)
			}
		case hourly.ScheduledID:
			if !d.Late || d.Missed != 5 && d.Missed != 4 || d.DeliverAt != hourly.DeliverAt {
				t.Errorf("the cron that missed five hours: %s", p.EventData)
			}
		default:
			t.Errorf("unknown: %s", p.EventData)
		}
	}
	t.Run("and is sent once, however often the broker starts", func(t *testing.T) {
		r.restart()
		a, b := r.member(r.owner), r.member(bob)
		if list := a.scheduled(); len(list) != 1 || list[0].ID != hourly.ScheduledID || *list[0].FiredCount != 1 || list[0].DeliverAt <= clock.Now().UnixMilli() {
			t.Errorf("%+v", list)
		}
		a.mustSend(sendFrame("end", bob.PublicKey(), "x"))
		if p := b.fresh(seen); p.ClientMessageID != "end" {
			t.Errorf("again: %+v", p)
		}
	})
	t.Run("also if it died after the message was stored and before the record was gone", func(t *testing.T) {
		a, b := r.member(r.owner, withSession("2")), r.member(bob, withSession("2"))
		again := a.reminder(bob.PublicKey(), "twice", clock.Now().Add(time.Minute))
		before, err := getRecord[scheduleRecord](t.Context(), r.broker.store, scheduleKey(r.mesh.ID, again.ScheduledID))
		if err != nil {
			t.Fatal(err)
		}
		clock.Advance(time.Minute)
		if p := b.fresh(seen); text(p) != "twice" {
			t.Errorf("%+v", p)
		}
		r.until("the record to go", func() bool { _, known := r.broker.timers.owner(r.mesh.ID, again.ScheduledID); return !known })
		if err := r.broker.store.putRecord(t.Context(), before.Key, before.Value); err != nil {
			t.Fatal(err)
		}
		clock.Advance(time.Second)
		r.restart()
		r.until("the record to go again", func() bool { _, known := r.broker.timers.owner(r.mesh.ID, again.ScheduledID); return !known })
		a, b = r.member(r.owner), r.member(bob)
		a.mustSend(sendFrame("end2", bob.PublicKey(), "x"))
		if p := b.fresh(seen); p.ClientMessageID != "end2" {
			t.Errorf("again: %+v", p)
		}
	})
}

func TestACronIsSentAtEachOfItsTimes(t *testing.T) {
	clock, useClock := fakeClock(noon)
	r := newRig(t, useClock)
	a := r.member(r.owner)
	ack := a.reminder(r.owner.PublicKey(), "stand up", time.Time{}, map[string]any{"cron": "30 9 * * *", "tz": "Europe/Madrid", "recurring": true})
	want := time.Date(2026, 11, 23, 8, 30, 0, 0, time.UTC)
	for i := range 3 {
		clock.Advance(want.Sub(clock.Now()))
		p := a.message()
		if d := reminderOf(t, p); d.DeliverAt != want.UnixMilli() || d.Late || d.Missed != 0 || d.Cron == "" {
			t.Errorf("%d: %s", i, p.EventData)
		}
		a.clientAck(p, "")
		want = want.Add(24 * time.Hour)
		r.until("the next time to stand", func() bool {
			list := a.scheduled()
			return len(list) == 1 && list[0].DeliverAt == want.UnixMilli() && *list[0].FiredCount == i+1
		})
	}
	if got := into[wire.CancelScheduledAck](a, a.call(wire.TypeCancelScheduled, map[string]any{"scheduledId": ack.ScheduledID})); !got.OK {
		t.Errorf("%+v", got)
	}
	clock.Advance(48 * time.Hour)
	a.settle()
	a.quiet()
}

func TestCancelling(t *testing.T) {
	clock, useClock := fakeClock(noon)
	r := newRig(t, useClock)
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	cancel := func(c *client, id string) []byte {
		return c.call(wire.TypeCancelScheduled, map[string]any{"scheduledId": id})
	}
	own := b.reminder(bob.PublicKey(), "own", clock.Now().Add(time.Minute))
	kept := a.reminder(bob.PublicKey(), "kept", clock.Now().Add(time.Minute))
	t.Run("another member's is not for a member to cancel", func(t *testing.T) {
		if e := into[wire.Error](b, cancel(b, kept.ScheduledID)); e.Code != wire.CodeForbidden {
			t.Errorf("%+v", e)
		}
		if list := b.scheduled(); len(list) != 1 || list[0].ID != own.ScheduledID {
			t.Errorf("listed %+v", list)
		}
	})
	t.Run("but for an admin", func(t *testing.T) {
		found := r.broker.timers.find(r.mesh.ID, own.ScheduledID) // as the loop may have, at that moment
		defer r.broker.timers.fire(t.Context(), found)
		if got := into[wire.CancelScheduledAck](a, cancel(a, own.ScheduledID)); !got.OK {
			t.Errorf("%+v", got)
		}
	})
	t.Run("twice is no", func(t *testing.T) {
		if got := into[wire.CancelScheduledAck](b, cancel(b, own.ScheduledID)); got.OK {
			t.Errorf("%+v", got)
		}
	})
	clock.Advance(time.Minute)
	if p := b.message(); text(p) != "kept" {
		t.Errorf("%+v", p)
	}
	r.nothingScheduled()
	t.Run("what was sent cannot be cancelled", func(t *testing.T) {
		if got := into[wire.CancelScheduledAck](a, cancel(a, kept.ScheduledID)); got.OK {
			t.Errorf("%+v", got)
		}
	})
}

func TestWhatCannotBeScheduled(t *testing.T) {
	_, useClock := fakeClock(noon)
	r := newRig(t, useClock, func(c *Config) { c.Limits.SchedulesPerMember = 2 })
	a := r.member(r.owner)
	key := r.owner.PublicKey()
	later := noon.Add(time.Hour).UnixMilli()
	for _, c := range []struct {
		name   string
		fields map[string]any
		code   string
	}{
		{"nothing", map[string]any{"to": key, "deliverAt": later}, wire.CodeInvalid},
		{"to nobody", map[string]any{"message": "x", "deliverAt": later}, wire.CodeInvalid},
		{"to a name", map[string]any{"to": "bob", "message": "x", "deliverAt": later}, wire.CodeInvalid},
		{"to a topic", map[string]any{"to": "#t", "message": "x", "deliverAt": later}, wire.CodeInvalid},
		{"too far ahead", map[string]any{"to": key, "message": "x", "deliverAt": 1e300}, wire.CodeInvalid},
		{"too long", map[string]any{"to": key, "message": strings.Repeat("x", wire.MaxScheduledBytes+1), "deliverAt": later}, wire.CodeInvalid},
		{"sealed for many", map[string]any{"to": "*", "nonce": "eHg=", "ciphertext": "eHg=", "deliverAt": later}, wire.CodeInvalid},
		{"a box without a nonce", map[string]any{"to": key, "ciphertext": "eHg=", "deliverAt": later}, wire.CodeInvalid},
		{"a box that is not base64", map[string]any{"to": key, "nonce": "eHg=", "ciphertext": "%", "deliverAt": later}, wire.CodeInvalid},
		{"a cron that is none", map[string]any{"to": key, "message": "x", "cron": "@daily"}, wire.CodeInvalidCron},
		{"a cron that never comes", map[string]any{"to": key, "message": "x", "cron": "0 0 31 2 *"}, wire.CodeInvalidCron},
		{"a zone that is none", map[string]any{"to": key, "message": "x", "cron": "* * * * *", "tz": "Moon"}, wire.CodeInvalid},
		{"another kind of message", map[string]any{"to": key, "message": "x", "deliverAt": later, "subtype": "system"}, wire.CodeInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			if e := into[wire.Error](a, a.call(wire.TypeSchedule, c.fields)); e.Code != c.code {
				t.Errorf("%+v", e)
			}
		})
	}
	t.Run("more than the limit", func(t *testing.T) {
		for i := range 2 {
			a.reminder(key, fmt.Sprint(i), noon.Add(time.Hour))
		}
		if e := into[wire.Error](a, a.call(wire.TypeSchedule, map[string]any{"to": key, "message": "x", "deliverAt": later})); e.Code != wire.CodeLimit {
			t.Errorf("%+v", e)
		}
	})
	t.Run("by a session that may not send there", func(t *testing.T) {
		s := r.session(r.owner, newIdentity(t))
		s.settle()
		r.broker.mu.Lock()
		for c := range r.broker.meshes[r.mesh.ID].conns {
			if c.isSession {
				c.caps = []string{"schedule", "dm"}
			}
		}
		r.broker.mu.Unlock()
		if e := into[wire.Error](s, s.call(wire.TypeSchedule, map[string]any{"to": "*", "message": "x", "deliverAt": later})); e.Code != wire.CodeForbidden {
			t.Errorf("%+v", e)
		}
	})
}

func TestAReminderThatReachesNobody(t *testing.T) {
	clock, useClock := fakeClock(noon)
	r := newRig(t, useClock)
	a := r.member(r.owner)
	t.Run("comes back to who made it", func(t *testing.T) {
		stranger := newIdentity(t).PublicKey()
		ack := a.reminder(stranger, "hello?", noon.Add(time.Minute))
		clock.Advance(time.Minute)
		p := a.event(wire.EventScheduleFailed)
		var f wire.ScheduleFailed
		if err := json.Unmarshal(p.EventData, &f); err != nil || f.ScheduledID != ack.ScheduledID || f.To != stranger || f.Reason == "" || !p.Kept() {
			t.Errorf("%+v", p)
		}
	})
	t.Run("ends with its member", func(t *testing.T) {
		bob := r.addMember("bob")
		b := r.member(bob)
		b.reminder(r.owner.PublicKey(), "from beyond", clock.Now().Add(time.Minute))
		r.broker.mu.Lock()
		r.broker.meshes[r.mesh.ID].members[bob.PublicKey()].RevokedAt = 1
		r.broker.mu.Unlock()
		clock.Advance(time.Minute)
		r.nothingScheduled()
		a.settle()
		a.quiet()
	})
}

func TestAReminderWaitsForRoomInTheMailbox(t *testing.T) {
	clock, useClock := fakeClock(noon)
	r := newRig(t, useClock, func(c *Config) { c.Limits.MailboxDepth = 1 })
	bob := r.addMember("bob")
	a := r.member(r.owner)
	a.mustSend(sendFrame("full", bob.PublicKey(), "x"))
	r.mailIn(r.mailboxOf(bob), 1)
	a.reminder(bob.PublicKey(), "in the end", noon.Add(time.Minute))
	clock.Advance(time.Minute)
	r.until("the reminder to be put off", func() bool {
		t := r.broker.timers
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, one := range t.all {
			return one.next > clock.Now().UnixMilli()
		}
		return false
	})
	b := r.member(bob)
	b.clientAck(b.message(), "")
	r.mailIn(r.mailboxOf(bob), 0)
	clock.Advance(retryAfter)
	if p := b.message(); text(p) != "in the end" {
		t.Errorf("%+v", p)
	}
}

func TestASealedReminderIsPassedOnUnseen(t *testing.T) {
	clock, useClock := fakeClock(noon)
	r := newRig(t, useClock)
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	a.reminder(bob.PublicKey(), "", noon.Add(time.Minute), map[string]any{"nonce": "bm9uY2U=", "ciphertext": "c2VhbGVk"})
	if l := a.scheduled(); !l[0].Sealed || l[0].Message != "" || l[0].Ciphertext != "c2VhbGVk" || l[0].SenderPubkey != r.owner.PublicKey() {
		t.Errorf("%+v", l)
	}
	clock.Advance(time.Minute)
	if p := b.message(); p.Nonce != "bm9uY2U=" || p.Ciphertext != "c2VhbGVk" {
		t.Errorf("%+v", p)
	}
}

func TestALongListFitsIntoAFrame(t *testing.T) {
	_, useClock := fakeClock(noon)
	r := newRig(t, useClock)
	a := r.member(r.owner)
	worst := strings.Repeat("\x01", wire.MaxScheduledBytes) // six bytes each in JSON
	for range 128 {
		a.reminder("*", worst, noon.Add(time.Hour))
	}
	list := a.scheduled()
	if len(list) != 128 || !list[0].Truncated || len(list[0].Message) < 500 {
		t.Errorf("%d entries, the first has %d bytes", len(list), len(list[0].Message))
	}
}
