package mcp

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"claudemesh/bus"
)

// methodChannel is the notification that Claude Code shows to its model as a channel message.
const methodChannel = "notifications/claude/channel"

// channelRoom is what a notification's own JSON-RPC wrapping may take of a line.
const channelRoom = 4 << 10

// channelParams are the parameters of methodChannel. Every value of Meta must be a string and every key of the form [a-zA-Z_][a-zA-Z0-9_]*, or the client
// drops the whole notification without a word; the key "source" is the client's own.
type channelParams struct {
	Content string            `json:"content"`
	Meta    map[string]string `json:"meta"`
}

// channelMessage renders an inbound message: who it is from, then its text. A text too long for a line is cut, and says so; all other fields are bounded.
func channelMessage(item bus.InboxItem) (json.RawMessage, error) {
	p := channelParams{Content: content(item, item.Body), Meta: meta(item)}
	raw, err := json.Marshal(p)
	for keep := len(item.Body); err == nil && len(raw) > maxLineOut-channelRoom && keep > 0; {
		// A byte of text takes up to six of JSON, hence halving and not subtracting.
		keep /= 2
		p.Content = content(item, cut(item.Body, keep))
		raw, err = json.Marshal(p)
	}
	if err != nil {
		return nil, fmt.Errorf("encode channel message: %w", err)
	}
	return raw, nil
}

func content(item bus.InboxItem, body string) string {
	var b strings.Builder
	switch item.Priority {
	case "now":
		b.WriteString("[URGENT] ")
	case "low":
		b.WriteString("[low] ")
	}
	from := bounded(oneLine(item.FromName))
	if from == "" {
		from = "unknown"
	}
	b.WriteString(from)
	if item.Topic != "" {
		b.WriteString(" (#" + bounded(oneLine(item.Topic)) + ")")
	}
	b.WriteString(": ")
	if item.State == bus.StateUndecryptable {
		b.WriteString("(this message could not be opened: it has no readable text, and never will; ask the sender to send it again)")
	} else {
		b.WriteString(body)
	}
	return b.String()
}

func meta(item bus.InboxItem) map[string]string {
	member := item.FromMemberKey
	if member == "" {
		member = item.FromKey
	}
	id := item.BrokerMessageID
	if id == "" {
		id = item.ID
	}
	m := map[string]string{
		"from_id": member, "from_pubkey": member, "from_session_pubkey": item.FromKey, "from_name": item.FromName,
		"mesh_slug": item.Mesh, "priority": item.Priority, "message_id": id, "client_message_id": item.ClientMessageID,
	}
	for key, value := range map[string]string{"to": item.To, "topic": item.Topic, "reply_to_id": item.ReplyTo, "subtype": item.Subtype} {
		if value != "" {
			m[key] = value
		}
	}
	for key, value := range m {
		m[key] = bounded(oneLine(value))
	}
	if item.State == bus.StateUndecryptable {
		m["state"] = bus.StateUndecryptable
	}
	return m
}

// oneLine keeps what a stranger chose from looking like more than one line: names are shown before the text.
func oneLine(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s))
}

// bounded keeps a field of the meta short, whatever a broker let through.
func bounded(s string) string {
	const most = 512
	if len(s) <= most {
		return s
	}
	return head(s, most)
}

func cut(s string, n int) string {
	h := head(s, n)
	return fmt.Sprintf("%s\n[cut here: the message has %d bytes; `claudemesh inbox` shows it all]", h, len(s))
}

// head is the longest beginning of s of at most n bytes that does not split a character.
func head(s string, n int) string {
	for n > 0 && n < len(s) && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:min(n, len(s))]
}
