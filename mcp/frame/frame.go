// Package frame is how a message is put before a model: as a channel notification of the MCP shim ([Channel]), and as the text that hooks give their client
// ([Batch]).
//
// The invariant it keeps: what a peer wrote (text, names, topics, ids) is data inside of one frame. It cannot close the frame, open another one, pass for the
// introduction in front of them or for a notice of the client, hide or reorder characters. Whatever goes in, one message is one frame, and its text can be
// told from ours.
//
// Packages mcp and cli show messages with it; daemon asks it which id to look for in a transcript.
package frame

import (
	"encoding/hex"
	"fmt"
	"strings"

	"claudemesh/bus"
)

// Kinds of a message that no peer wrote just now; the others say how it was addressed. KindDigest is of a notification that only counts messages.
const (
	KindReminder = "reminder"
	KindEvent    = "event"
	KindDigest   = "digest"
)

// Subtypes of messages that the broker makes, as bus.InboxItem has them; any other one is the name of an event.
const (
	subtypeReminder = "reminder"
	subtypeWebhook  = "webhook"
)

// What bus.InboxItem.Trust says when there is something to say.
const (
	trustNew     = "new"
	trustChanged = "changed"
)

// Channel renders a message as the parameters of notifications/claude/channel. A client drops a notification with a meta value that is no string, and a key
// that is not of the form [a-zA-Z_][a-zA-Z0-9_]*, without a word; the key "source" is its own. Things that are absent have no key.
func Channel(item bus.InboxItem) (content string, meta map[string]string) {
	var b strings.Builder
	for _, n := range notes(item) {
		b.WriteString(n + "\n")
	}
	switch item.Priority {
	case "now":
		b.WriteString("[URGENT] ")
	case "low":
		b.WriteString("[low] ")
	}
	b.WriteString(from(item) + ": " + body(item))
	meta = map[string]string{}
	for _, a := range attributes(item) {
		meta[a.key] = a.value
	}
	return b.String(), meta
}

// MessageID is the id under which a message is shown, and found again in a client's transcript: the broker's, else the local one. Characters that could be
// written in more than one way are replaced.
func MessageID(item bus.InboxItem) string {
	id := item.BrokerMessageID
	if id == "" {
		id = item.ID
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.', r == ':':
			return r
		}
		return '_'
	}, head(id, maxField))
}

type attribute struct{ key, value string }

// attributes are what is told of a message beside its text; those that are empty are left out.
func attributes(item bus.InboxItem) []attribute {
	all := []attribute{
		{"message_id", MessageID(item)},
		{"from_name", field(item.FromName, maxName)},
		{"from_key", field(item.FromKey, maxField)},
		{"from_member", field(item.FromMemberKey, maxField)},
		{"mesh", field(item.Mesh, maxField)},
		{"kind", kind(item)},
		{"priority", field(item.Priority, maxField)},
		{"topic", field(item.Topic, maxField)},
		{"reply_to", field(item.ReplyTo, maxField)},
		{"trust", ""},
		{"repeat", ""},
	}
	for i := range all {
		switch a := &all[i]; {
		case a.key == "trust" && (item.Trust == trustNew || item.Trust == trustChanged):
			a.value = item.Trust
		case a.key == "repeat" && item.Repeat:
			a.value = "yes"
		}
	}
	some := all[:0]
	for _, a := range all {
		if a.value != "" {
			some = append(some, a)
		}
	}
	return some
}

// kind is how a message was addressed, or what it is.
func kind(item bus.InboxItem) string {
	switch {
	case item.Kind != "":
		return field(item.Kind, maxField)
	case item.Subtype == subtypeReminder:
		return KindReminder
	case item.Subtype != "":
		return KindEvent
	}
	return ""
}

// from says in words where a message comes from.
func from(item bus.InboxItem) string {
	name := field(item.FromName, maxName)
	if name == "" {
		name = "unknown"
	}
	switch {
	case kind(item) == KindReminder:
		name = "reminder by " + name
	case kind(item) == KindEvent && item.Subtype == subtypeWebhook:
		name = "event of the webhook " + name
	case kind(item) == KindEvent && item.Subtype != "":
		name = "event " + field(item.Subtype, maxName) + " of " + name
	case kind(item) == KindEvent:
		name = "event of " + name
	}
	if topic := field(item.Topic, maxField); topic != "" {
		name += " (#" + topic + ")"
	}
	return name
}

// ours begins every line that is not a peer's. No text of a peer has it: see guard.
const ours = "[claudemesh"

// notes are what must be known before a message is read. Each is one line.
func notes(item bus.InboxItem) []string {
	var all []string
	if item.Repeat {
		all = append(all, ours+": shown again: it may have been shown before; do not act on it twice]")
	}
	switch item.Trust {
	case trustNew:
		all = append(all, ours+": first contact: nothing from this member has been received on this machine before]")
	case trustChanged:
		who := "PEER"
		if key, err := hex.DecodeString(item.FromMemberKey); err == nil && len(key) > 0 {
			who = head(item.FromMemberKey, 16)
		}
		all = append(all, ours+": WARNING: another member key used this name before, so this may be somebody else; compare with: claudemesh verify "+who+"]")
	}
	return all
}

// body is the text of a message as it is shown.
func body(item bus.InboxItem) string {
	if item.State == bus.StateUndecryptable {
		return ours + ": this message could not be opened: it has no readable text, and never will; ask the sender to send it again]"
	}
	s, whole := text(item.Body)
	if !whole {
		s += "\n" + ours + ": cut here, the message is longer; read it all with: claudemesh inbox]"
	}
	return s
}

// Digest is the notification that n further messages like last wait in the inbox and are not shown, because too many came at once.
func Digest(last bus.InboxItem, n int) (content string, meta map[string]string) {
	name := Line(last.FromName)
	meta = map[string]string{"kind": KindDigest}
	for _, a := range attributes(last) {
		switch a.key {
		case "from_name", "from_key", "from_member", "mesh":
			meta[a.key] = a.value
		}
	}
	if name == "" {
		name = "unknown"
	}
	what := "more messages"
	if n == 1 {
		what = "more message"
	}
	return fmt.Sprintf("%s] %d %s from %s: claudemesh inbox --unread", ours, n, what, name), meta
}

// Text is a longer text that a stranger wrote, fit to stand where a model reads it: cleaned and guarded as the text of a message is, and not bounded.
func Text(s string) string { return guard(clean(s)) }

// Note is a line of ours. No text of a peer can pass for one; what it says of a peer must have gone through [Line].
func Note(text string) string { return ours + ": " + text + "]" }
