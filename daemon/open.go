package daemon

import (
	"encoding/base64"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"claudemesh/bridge"
	"claudemesh/daemon/inbox"
	"claudemesh/daemon/session"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// Turning a push into a message.

// open turns a push into a message: its text, or the reason why there is none. What fails to open is never shown as text.
func (m *meshRun) open(src bridge.Source, p wire.Push, holders []session.Session) inbox.Message {
	msg := inbox.Message{
		Mesh: m.joined.Slug, ClientMessageID: p.ClientMessageID, BrokerMessageID: p.MessageID, SenderKey: p.SenderPubkey,
		SenderMemberKey: p.SenderMemberPubkey, SenderName: p.SenderName, TargetSpec: p.TargetSpec, Topic: p.Topic, Subtype: p.Subtype,
		Priority: p.Priority, ReplyTo: p.ReplyToID,
	}
	if t, err := time.Parse(time.RFC3339Nano, p.CreatedAt); err == nil {
		msg.CreatedAt = t
	}
	if msg.ClientMessageID == "" {
		msg.ClientMessageID = p.MessageID
	}
	// A reference broker names neither the sender's member nor its display name on direct messages; the roster may know both.
	if msg.SenderMemberKey == "" {
		msg.SenderMemberKey = m.roster.memberOf(p.SenderPubkey)
	}
	if msg.SenderName == "" {
		msg.SenderName = m.roster.name(p.SenderPubkey)
	}
	if msg.SenderName == "" {
		msg.SenderName = p.SenderPubkey[:min(8, len(p.SenderPubkey))]
	}
	msg.SenderName = printable(msg.SenderName)
	msg.Sender = msg.SenderMemberKey
	if msg.Sender == "" {
		msg.Sender = p.SenderPubkey
	}
	if !wire.ValidPriority(msg.Priority) {
		msg.Priority = wire.PriorityNext
	}
	if !multicast(p.TargetSpec) { // what cannot be opened is for whom it came to
		msg.RecipientKey, msg.ToKind = src.Key, inbox.ToMember
		if src.Session != "" {
			msg.ToKind = inbox.ToSession
		}
	}
	if told(p) {
		return openEvent(msg, p)
	}
	if strings.HasPrefix(p.TargetSpec, "#") {
		msg.ToKind, msg.Topic = inbox.ToTopic, printable(msg.Topic)
	}
	box, err := base64.StdEncoding.DecodeString(p.Ciphertext)
	if err != nil {
		return undecryptable(msg, "the ciphertext is not base64", nil, []byte(p.Ciphertext))
	}
	nonce, err := base64.StdEncoding.DecodeString(p.Nonce)
	if err != nil {
		return undecryptable(msg, "the nonce is not base64", nil, box)
	}
	if msg.ToKind == inbox.ToTopic && p.BodyVersion == wire.BodySealed {
		return m.openPost(msg, nonce, box)
	}
	if multicast(p.TargetSpec) {
		return late(openText(msg, box), p)
	}
	if p.Subtype == wire.SubtypeReminder && p.Nonce == "" {
		return late(openReminder(msg, box), p)
	}
	for _, key := range m.keys(src, p.TargetSpec, holders) {
		if text, err := m.d.boxes.Open(key, p.SenderPubkey, nonce, box); err == nil && utf8.Valid(text) {
			msg.Body, msg.RecipientKey, msg.ToKind = string(text), key.PublicKey(), inbox.ToMember
			if key.PublicKey() != m.joined.Pubkey {
				msg.ToKind = inbox.ToSession
			}
			return late(msg, p)
		}
	}
	// A reference broker does not say what was addressed. Its multicasts are plain text; what is left of a sealed message is not.
	if p.TargetSpec == "" && plausibleText(box) {
		return openText(msg, box)
	}
	return undecryptable(msg, "no key of this machine opens it: it was sealed for another key, or damaged on the way", nonce, box)
}

func undecryptable(msg inbox.Message, reason string, nonce, box []byte) inbox.Message {
	msg.Body, msg.Undecryptable, msg.Reason, msg.Nonce, msg.Ciphertext = "", true, reason, nonce, box
	if msg.ToKind == "" {
		msg.ToKind = inbox.ToMember
	}
	return msg
}

// openPost opens a sealed post with the keys of its topic that are here. One that is not here yet may come: the post is kept as it is until then.
func (m *meshRun) openPost(msg inbox.Message, nonce, box []byte) inbox.Message {
	text, err := m.topics.open(strings.TrimPrefix(msg.TargetSpec, "#"), nonce, box)
	switch {
	case err != nil:
		return undecryptable(msg, "the topic's key has not been sealed for this member yet, or this is not sealed with it", nonce, box)
	case !utf8.Valid(text):
		return undecryptable(msg, "the text is not UTF-8", nil, text)
	}
	msg.Body = string(text)
	return msg
}

func openText(msg inbox.Message, text []byte) inbox.Message {
	switch {
	case strings.HasPrefix(msg.TargetSpec, "@") && msg.TargetSpec != "@all":
		msg.ToKind = inbox.ToGroup
	case strings.HasPrefix(msg.TargetSpec, "#"):
		msg.ToKind = inbox.ToTopic
	default:
		msg.ToKind = inbox.ToAll
	}
	if !utf8.Valid(text) {
		return undecryptable(msg, "the text is not UTF-8", nil, text)
	}
	msg.Body = string(text)
	return msg
}

func multicast(spec string) bool {
	return spec == "*" || strings.HasPrefix(spec, "@") || strings.HasPrefix(spec, "#")
}

// plausibleText reports whether bytes are text a person could have written: UTF-8 without control characters other than white space.
func plausibleText(b []byte) bool {
	return len(b) > 0 && utf8.Valid(b) && !strings.ContainsFunc(string(b), func(r rune) bool { return unicode.IsControl(r) && !unicode.IsSpace(r) })
}

// printable makes a name from outside safe for a terminal and a subject line.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError {
			return -1
		}
		return r
	}, s)
	if len(s) > wire.MaxNameBytes {
		s = strings.ToValidUTF8(s[:wire.MaxNameBytes], "")
	}
	return s
}

// printables is printable for a list that is absent, or has a bounded number of items.
func printables(list *[]string) *[]string {
	if list == nil {
		return nil
	}
	out := make([]string, 0, min(len(*list), mesh.MaxAllowedCaps))
	for _, s := range *list {
		if len(out) == cap(out) {
			break
		}
		out = append(out, printable(s))
	}
	return &out
}

// keys are the secret keys to try, the addressed one first.
func (m *meshRun) keys(src bridge.Source, target string, holders []session.Session) []mesh.Identity {
	var out []mesh.Identity
	add := func(secret string) {
		if id, err := mesh.IdentityFromSecret(secret); err == nil {
			out = append(out, id)
		}
	}
	for _, s := range holders {
		if s.PublicKey == target || s.PublicKey == src.Key {
			add(s.KeySecret.Reveal())
		}
	}
	return append(out, m.member)
}
