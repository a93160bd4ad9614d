package bus

import (
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
)

// User is the actor of the local user; every other actor is a session id.
const User = "user"

// Kinds of a send, the last token of mesh.<slug>.<actor>.send.<kind>; mesh.Target.SendKind yields them.
const (
	SendDM    = "dm"
	SendGroup = "group"
	SendTopic = "topic"
	SendAll   = "all"
)

// ErrBadSubject means that a string is not a subject of this bus in its canonical spelling.
var ErrBadSubject = errors.New("not a subject of this bus")

// reserved are the words that stand in the actor's place of other subjects: a session of such a name could speak as something else.
var reserved = map[string]bool{User: true, "tap": true, "msg": true, "event": true, "receipt": true, "send": true, "call": true, "wake": true}

// SendSubject is where actor asks for a message to be accepted: mesh.<slug>.<actor>.send.<kind>.
func SendSubject(slug, actor, kind string) string { return join("mesh", slug, actor, "send", kind) }

// CallSubject is where actor asks for a broker operation: mesh.<slug>.<actor>.call.<op>.
func CallSubject(slug, actor, op string) string { return join("mesh", slug, actor, "call", op) }

// SessionMsgSubject carries messages for one session: mesh.<slug>.msg.session.<id>.
func SessionMsgSubject(slug, id string) string { return join("mesh", slug, "msg", "session", id) }

// WakeSubject is where a session's programs are poked: mesh.<slug>.wake.<session id>.<rung>. On RungChannel it carries an [InboxItem] to be shown, on RungWake
// nothing (ask with hook-wait), on RungNudge a [Nudge]. No stream keeps it: what is missed is asked for. Rung may be "*".
func WakeSubject(slug, id, rung string) string { return pattern("mesh", slug, "wake", id, rung) }

// MemberMsgSubject carries messages for the member of this home: mesh.<slug>.msg.member.
func MemberMsgSubject(slug string) string { return join("mesh", slug, "msg", "member") }

// GroupMsgSubject carries messages for a group: mesh.<slug>.msg.group.<g>.
func GroupMsgSubject(slug, group string) string { return join("mesh", slug, "msg", "group", group) }

// TopicMsgSubject carries the posts of a topic: mesh.<slug>.msg.topic.<t>.
func TopicMsgSubject(slug, topic string) string { return join("mesh", slug, "msg", "topic", topic) }

// AllMsgSubject carries broadcasts: mesh.<slug>.msg.all.
func AllMsgSubject(slug string) string { return join("mesh", slug, "msg", "all") }

// AnyMsgSubject is the pattern of every message of a mesh, mesh.<slug>.msg.>; slug "*" means every mesh.
func AnyMsgSubject(slug string) string { return pattern("mesh", slug, "msg", ">") }

// EventSubject carries what happens in a mesh: mesh.<slug>.event.<kind>. Slug and kind may be "*".
func EventSubject(slug, kind string) string { return pattern("mesh", slug, "event", kind) }

// ReceiptSubject carries changes of state of actor's own message: mesh.<slug>.receipt.<actor>.<message id>. Slug and msgID may be "*".
func ReceiptSubject(slug, actor, msgID string) string {
	return pattern("mesh", slug, "receipt", actor, msgID)
}

// DaemonSubject is where actor asks the daemon itself: daemon.<actor>.<op>.
func DaemonSubject(actor, op string) string { return join("daemon", actor, op) }

// InboxPrefix is the first part of every reply subject of actor: _INBOX.<actor>.
func InboxPrefix(actor string) string { return join("_INBOX", actor) }

// Patterns under which the daemon registers its handlers.
const (
	AnySend   = "mesh.*.*.send.*"
	AnyCall   = "mesh.*.*.call.*"
	AnyDaemon = "daemon.*.*"
)

// AnyDaemonOp is the pattern of one daemon operation by any actor: daemon.*.<op>.
func AnyDaemonOp(op string) string { return pattern("daemon", "*", op) }

// Subject is a subject of the bus taken apart. Fields that its Kind does not have are empty.
type Subject struct {
	Kind SubjectKind
	// Slug of the mesh; Actor who asks or, for a receipt, whose message it is; for a wake, who is to wake.
	Slug, Actor string
	// Name is the send kind, the operation, the session id, group, topic, event kind or message id.
	Name string
}

// SubjectKind tells what a subject is for.
type SubjectKind string

// The kinds of subject.
const (
	KindSend       SubjectKind = "send"
	KindCall       SubjectKind = "call"
	KindSessionMsg SubjectKind = "msg.session"
	KindMemberMsg  SubjectKind = "msg.member"
	KindGroupMsg   SubjectKind = "msg.group"
	KindTopicMsg   SubjectKind = "msg.topic"
	KindAllMsg     SubjectKind = "msg.all"
	KindEvent      SubjectKind = "event"
	KindReceipt    SubjectKind = "receipt"
	KindWake       SubjectKind = "wake"
	KindDaemon     SubjectKind = "daemon"
)

// String builds the subject; it is the inverse of ParseSubject and empty for an unknown Kind.
func (s Subject) String() string {
	switch s.Kind {
	case KindSend:
		return SendSubject(s.Slug, s.Actor, s.Name)
	case KindCall:
		return CallSubject(s.Slug, s.Actor, s.Name)
	case KindSessionMsg:
		return SessionMsgSubject(s.Slug, s.Name)
	case KindMemberMsg:
		return MemberMsgSubject(s.Slug)
	case KindGroupMsg:
		return GroupMsgSubject(s.Slug, s.Name)
	case KindTopicMsg:
		return TopicMsgSubject(s.Slug, s.Name)
	case KindAllMsg:
		return AllMsgSubject(s.Slug)
	case KindEvent:
		return join("mesh", s.Slug, "event", s.Name)
	case KindReceipt:
		return join("mesh", s.Slug, "receipt", s.Actor, s.Name)
	case KindWake:
		return join("mesh", s.Slug, "wake", s.Actor, s.Name)
	case KindDaemon:
		return DaemonSubject(s.Actor, s.Name)
	}
	return ""
}

// ParseSubject takes a subject apart. It accepts only the spelling that the builders produce, so that one thing has one subject; anything else,
// patterns included, is ErrBadSubject.
func ParseSubject(subject string) (Subject, error) {
	raw := strings.Split(subject, ".")
	t := make([]string, len(raw))
	for i, r := range raw {
		v, err := decodeToken(r)
		if err != nil {
			return Subject{}, fmt.Errorf("%w: %q", err, subject)
		}
		t[i] = v
	}
	// The fixed words are compared in their raw spelling: an escaped "mesh" is not the word mesh.
	is := func(i int, word string) bool { return i < len(raw) && raw[i] == word }
	switch {
	case is(0, "daemon") && len(t) == 3:
		return Subject{Kind: KindDaemon, Actor: t[1], Name: t[2]}, nil
	case !is(0, "mesh"):
	case is(2, "msg") && len(t) == 4 && is(3, "member"):
		return Subject{Kind: KindMemberMsg, Slug: t[1]}, nil
	case is(2, "msg") && len(t) == 4 && is(3, "all"):
		return Subject{Kind: KindAllMsg, Slug: t[1]}, nil
	case is(2, "msg") && len(t) == 5 && (is(3, "session") || is(3, "group") || is(3, "topic")):
		return Subject{Kind: SubjectKind("msg." + raw[3]), Slug: t[1], Name: t[4]}, nil
	case is(2, "event") && len(t) == 4:
		return Subject{Kind: KindEvent, Slug: t[1], Name: t[3]}, nil
	case is(2, "receipt") && len(t) == 5:
		return Subject{Kind: KindReceipt, Slug: t[1], Actor: t[3], Name: t[4]}, nil
	case is(2, "wake") && len(t) == 5:
		return Subject{Kind: KindWake, Slug: t[1], Actor: t[3], Name: t[4]}, nil
	case is(2, "msg") || is(2, "event"):
	case len(t) == 5 && (is(3, "send") || is(3, "call")):
		return Subject{Kind: SubjectKind(raw[3]), Slug: t[1], Actor: t[2], Name: t[4]}, nil
	}
	return Subject{}, fmt.Errorf("%w: %q", ErrBadSubject, subject)
}

// escaped starts a token that is not written as it is. It cannot start a plain one.
const escaped = "="

var tokenEncoding = base32.HexEncoding.WithPadding(base32.NoPadding)

// encodeToken makes one subject token of any string: letters, digits, "_" and "-" stay as they are, everything else becomes "=" and lower-case base32hex.
func encodeToken(s string) string {
	if plainToken(s) {
		return s
	}
	return escaped + strings.ToLower(tokenEncoding.EncodeToString([]byte(s)))
}

func decodeToken(s string) (string, error) {
	if plainToken(s) {
		return s, nil
	}
	enc, ok := strings.CutPrefix(s, escaped)
	if !ok {
		return "", ErrBadSubject
	}
	b, err := tokenEncoding.DecodeString(strings.ToUpper(enc))
	if err != nil || encodeToken(string(b)) != s {
		return "", ErrBadSubject
	}
	return string(b), nil
}

func plainToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return s != ""
}

func join(fixed string, tokens ...string) string {
	var b strings.Builder
	b.WriteString(fixed)
	for _, t := range tokens {
		b.WriteByte('.')
		b.WriteString(encodeToken(t))
	}
	return b.String()
}

// pattern is join that lets the wildcards "*" and ">" through.
func pattern(fixed string, tokens ...string) string {
	var b strings.Builder
	b.WriteString(fixed)
	for _, t := range tokens {
		b.WriteByte('.')
		if t == "*" || t == ">" {
			b.WriteString(t)
		} else {
			b.WriteString(encodeToken(t))
		}
	}
	return b.String()
}
