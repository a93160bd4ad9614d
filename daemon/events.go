package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"claudemesh/daemon/inbox"
	"claudemesh/wire"
)

// Messages that the broker itself makes: what a webhook was told, what a watch saw, and reminders. The first two have no ciphertext; their text is made here.

// told reports whether a push carries its news in eventData.
func told(p wire.Push) bool {
	return p.Subtype == wire.SubtypeWebhook || p.Subtype == wire.SubtypeSystem
}

// maxEventText bounds the text made of an event, in bytes; the broker takes no more.
const maxEventText = 2 * wire.MaxHookBody

// openEvent makes a message of an event. Its subtype is what it is about: a kept system event is shown by its name.
func openEvent(msg inbox.Message, p wire.Push) inbox.Message {
	msg.SenderName = printable(p.SenderPubkey)
	if p.Subtype == wire.SubtypeWebhook {
		msg.ToKind, msg.RecipientKey = inbox.ToAll, ""
		msg.Body = eventJSON(p)
		return msg
	}
	msg.Subtype, msg.SenderName = printable(p.Event), "mesh"
	var w wire.WatchTriggered
	var f wire.ScheduleFailed
	switch {
	case p.Event == wire.EventWatchTriggered && p.Data(&w) == nil:
		msg.SenderName = "watch"
		name := w.URL
		if w.Label != "" {
			name = w.Label + " (" + w.URL + ")"
		}
		msg.Body = fmt.Sprintf("%s: %s was %s, is %s [%s]", name, w.Mode, w.OldValue, w.NewValue, w.WatchID)
	case p.Event == wire.EventScheduleFailed && p.Data(&f) == nil:
		msg.SenderName = "schedule"
		msg.Body = fmt.Sprintf("the message scheduled for %s could not be sent: %s [%s]", f.To, f.Reason, f.ScheduledID)
	default:
		msg.Body = p.Event + " " + eventJSON(p)
	}
	msg.Body = strings.ToValidUTF8(msg.Body, "\uFFFD")
	return msg
}

// eventJSON is an event's data on one line.
func eventJSON(p wire.Push) string {
	var b bytes.Buffer
	if len(p.EventData) > maxEventText || json.Compact(&b, p.EventData) != nil || !utf8.Valid(b.Bytes()) {
		return fmt.Sprintf("(an event of %d bytes that is not readable)", len(p.EventData))
	}
	return b.String()
}

// openReminder takes a reminder to one key that came as plain text: the broker vouches for it, nobody else. Clients of the reference make no others.
func openReminder(msg inbox.Message, text []byte) inbox.Message {
	if len(text) == 0 || !utf8.Valid(text) {
		return undecryptable(msg, "the text is not UTF-8", nil, text)
	}
	msg.Body = string(text)
	return msg
}

// late says below a reminder that it is late, or stands for several times. The text above is the author's.
func late(msg inbox.Message, p wire.Push) inbox.Message {
	var d wire.ReminderData
	if msg.Undecryptable || p.Subtype != wire.SubtypeReminder || len(p.EventData) == 0 || p.Data(&d) != nil || !d.Late && d.Missed == 0 {
		return msg
	}
	msg.Body += "\n[late: this was due at " + time.UnixMilli(d.DeliverAt).UTC().Format(time.RFC3339)
	if d.Missed > 0 {
		msg.Body += fmt.Sprintf("; %d further times of it have passed since and are not made up for", d.Missed)
	}
	msg.Body += "]"
	return msg
}
