package daemon

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/daemon/inbox"
	"claudemesh/daemon/session"
	"claudemesh/wire"
)

// scheduled is what the daemon answers to a schedule.
type scheduled struct {
	wire.ScheduledAck
	To     string
	Sealed bool
}

// request asks for a broker operation as the bus does.
func request[T any](t testing.TB, d *Daemon, actor, op string, in any) (out T, err error) {
	t.Helper()
	data, err := json.Marshal(in)
	must(t, err)
	v, err := d.call(t.Context(), &bus.Call{Actor: actor, Slug: "team", Op: op, Data: data})
	if err != nil {
		return out, err
	}
	data, err = json.Marshal(v)
	must(t, err)
	must(t, json.Unmarshal(data, &out))
	return out, nil
}

func (d *Daemon) inboxOf(t testing.TB, actor string) []bus.InboxItem {
	t.Helper()
	l, err := ask[bus.InboxList](t, d.listInbox, actor, "", "", bus.InboxQuery{})
	must(t, err)
	return l.Items
}

func TestScheduledMessages(t *testing.T) {
	d, m := running(t)
	now := time.Now().UnixMilli()
	find := func(actor, body string) (item bus.InboxItem) {
		eventually(t, body, func() bool {
			for _, it := range d.inboxOf(t, actor) {
				if it.Body == body {
					item = it
					return true
				}
			}
			return false
		})
		return item
	}
	t.Run("the user's to itself is in its inbox, though no session runs, and the broker never saw it", func(t *testing.T) {
		ack, err := request[scheduled](t, d, bus.User, wire.TypeSchedule, map[string]any{"message": "water the plants", "deliverAt": now + 1000})
		must(t, err)
		if !ack.Sealed || ack.To != m.joined.Pubkey {
			t.Errorf("%+v", ack)
		}
		list, err := request[wire.ScheduledList](t, d, bus.User, wire.TypeListScheduled, nil)
		must(t, err)
		// It may have been sent by now.
		if len(list.Messages) == 1 && (list.Messages[0].Message != "water the plants" || list.Messages[0].Ciphertext != "") {
			t.Errorf("listed %+v", list)
		}
		if it := find(bus.User, "water the plants"); it.Subtype != wire.SubtypeReminder || it.Priority != wire.PriorityNow || it.To != "member" {
			t.Errorf("%+v", it)
		}
	})
	alice, err := ask[bus.SessionInfo](t, d.startSession, bus.User, "", "", bus.SessionStart{Mesh: "team", Name: "alice", PID: 1})
	must(t, err)
	bob, err := ask[bus.SessionInfo](t, d.startSession, bus.User, "", "", bus.SessionStart{Mesh: "team", Name: "bob", PID: 1})
	must(t, err)
	eventually(t, "the links of the sessions", func() bool {
		for _, id := range []string{alice.ID, bob.ID} {
			if l, ok := m.links.Session(id); !ok || l.State().Phase != bridge.Open {
				return false
			}
		}
		return true
	})
	for _, c := range []struct{ to, body, hears string }{
		{"self", "a session to itself", alice.ID},
		{"alice", "by its own name", alice.ID},
		{"bob", "to another by name", bob.ID},
		{"*", "to everybody", alice.ID},
		{m.joined.Pubkey, "to the member", bob.ID},
	} {
		t.Run(c.body, func(t *testing.T) {
			ack, err := request[scheduled](t, d, alice.ID, wire.TypeSchedule, map[string]any{"to": c.to, "message": c.body, "deliverAt": 0})
			must(t, err)
			if ack.Sealed == (c.to == "*") {
				t.Errorf("%+v", ack)
			}
			if it := find(c.hears, c.body); it.FromKey != alice.Pubkey || it.Subtype != wire.SubtypeReminder {
				t.Errorf("%+v", it)
			}
		})
	}
	t.Run("the list shows the text of what was sealed here", func(t *testing.T) {
		_, err := request[scheduled](t, d, alice.ID, wire.TypeSchedule, map[string]any{"to": "bob", "message": "tomorrow", "deliverAt": now + 86_400_000})
		must(t, err)
		list, err := request[wire.ScheduledList](t, d, bus.User, wire.TypeListScheduled, nil)
		must(t, err)
		if len(list.Messages) != 1 || list.Messages[0].Message != "tomorrow" || !list.Messages[0].Sealed {
			t.Errorf("%+v", list)
		}
		raw, err := m.links.Member().Call(t.Context(), wire.TypeListScheduled, nil)
		if err != nil || strings.Contains(string(raw), "tomorrow") {
			t.Errorf("the broker lists %s, %v", raw, err)
		}
	})
	for _, c := range []struct {
		name   string
		fields map[string]any
		code   int
		reason string
	}{
		{"nothing", map[string]any{"deliverAt": 0}, 400, "bad_schedule"},
		{"at no time", map[string]any{"message": "x"}, 400, "bad_schedule"},
		{"too long", map[string]any{"message": strings.Repeat("x", wire.MaxScheduledBytes+1), "deliverAt": 0}, 413, "payload_too_large"},
		{"to nobody known", map[string]any{"message": "x", "deliverAt": 0, "to": "zoe"}, 404, "peer_not_found"},
		{"to a topic", map[string]any{"message": "x", "deliverAt": 0, "to": "#t"}, 400, "bad_target"},
		{"by a cron that is none", map[string]any{"message": "x", "cron": "daily"}, 502, "broker_refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := request[scheduled](t, d, bus.User, wire.TypeSchedule, c.fields)
			refusedWith(t, err, c.code, c.reason)
		})
	}
}

func TestOpeningWhatTheBrokerSays(t *testing.T) {
	m := still(t)
	alice := newIdentity(t)
	sessions := []session.Session{live("a", "alice", alice)}
	byAlice, byMember := bridge.Source{Session: "a", Key: alice.PublicKey()}, bridge.Source{Key: m.joined.Pubkey}
	plain := base64.StdEncoding.EncodeToString([]byte("stand up"))
	system := func(event, data string) wire.Push {
		return wire.Push{Type: wire.TypePush, Subtype: wire.SubtypeSystem, Event: event, EventData: json.RawMessage(data), MessageID: "m", ClientMessageID: "c", SenderPubkey: "system", TargetSpec: m.joined.Pubkey}
	}
	reminder := func(spec, data string) wire.Push {
		return wire.Push{Type: wire.TypePush, Subtype: wire.SubtypeReminder, EventData: json.RawMessage(data), MessageID: "m", ClientMessageID: "c", SenderPubkey: alice.PublicKey(), SenderMemberPubkey: m.joined.Pubkey, TargetSpec: spec, Ciphertext: plain}
	}
	hook := wire.Push{Type: wire.TypePush, Subtype: wire.SubtypeWebhook, Event: "ci", EventData: json.RawMessage("{\"a\": [1,\n 2]}"), MessageID: "m", SenderPubkey: "webhook:ci"}
	sealedLate := sealed(t, alice, alice.PublicKey(), "sealed")
	sealedLate.Subtype, sealedLate.EventData = wire.SubtypeReminder, json.RawMessage(`{"deliverAt":0,"late":true,"missed":3}`)
	for name, c := range map[string]struct {
		src                                     bridge.Source
		push                                    wire.Push
		body, kind, subtype, sender, concerning string
	}{
		"a watch":                     {byMember, system("watch_triggered", `{"watchId":"w_1","url":"https://x","label":"site","mode":"status","oldValue":"200","newValue":"503"}`), "site (https://x): status was 200, is 503 [w_1]", inbox.ToMember, "watch_triggered", "watch", "a"},
		"a schedule that failed":      {byMember, system("schedule_failed", `{"scheduledId":"s","to":"@x","reason":"gone"}`), "the message scheduled for @x could not be sent: gone [s]", inbox.ToMember, "schedule_failed", "schedule", "a"},
		"an event of a later version": {byMember, system("news", `{"a": 1}`), `news {"a":1}`, inbox.ToMember, "news", "mesh", "a"},
		"a webhook":                   {byMember, hook, `{"a":[1,2]}`, inbox.ToAll, "webhook", "webhook:ci", "a"},
		"a plain reminder to a key":   {byAlice, reminder(alice.PublicKey(), `{}`), "stand up", inbox.ToSession, "reminder", alice.PublicKey()[:8], "a"},
		"one to everybody":            {byMember, reminder("*", ``), "stand up", inbox.ToAll, "reminder", alice.PublicKey()[:8], "a"},
		"one that is late":            {byAlice, reminder(alice.PublicKey(), `{"deliverAt":0,"late":true}`), "stand up\n[late: this was due at 1970-01-01T00:00:00Z]", inbox.ToSession, "reminder", alice.PublicKey()[:8], "a"},
		"a sealed one that is late":   {byAlice, sealedLate, "sealed\n[late: this was due at 1970-01-01T00:00:00Z; 3 further times of it have passed since and are not made up for]", inbox.ToSession, "reminder", "sender", "a"},
	} {
		t.Run(name, func(t *testing.T) {
			if !c.push.Kept() {
				t.Fatal("it is not kept")
			}
			msg := m.open(c.src, c.push, sessions)
			got := fmt.Sprint(msg.Body, "|", msg.ToKind, "|", msg.Subtype, "|", msg.SenderName, "|", strings.Join(m.concerned(msg, sessions), " "), msg.Undecryptable)
			if want := fmt.Sprint(c.body, "|", c.kind, "|", c.subtype, "|", c.sender, "|", c.concerning, false); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
	t.Run("a reminder of one's own is no echo, a multicast is", func(t *testing.T) {
		p := reminder("*", ``)
		if m.echo(m.open(byMember, p, nil)) {
			t.Error("the reminder would be dropped")
		}
		p.Subtype = ""
		if !m.echo(m.open(byMember, p, nil)) {
			t.Error("the multicast would be kept")
		}
	})
	t.Run("live events are not kept", func(t *testing.T) {
		p := system(wire.EventPeerJoined, `{}`)
		if p.ClientMessageID = ""; p.Kept() {
			t.Error("kept")
		}
	})
}
