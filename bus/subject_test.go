package bus

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestSubjects(t *testing.T) {
	for name, c := range map[string]struct {
		got, want string
	}{
		"a send":                            {SendSubject("demo", "s1", SendDM), "mesh.demo.s1.send.dm"},
		"a call":                            {CallSubject("demo", User, "list_peers"), "mesh.demo.user.call.list_peers"},
		"a session's message":               {SessionMsgSubject("demo", "s1"), "mesh.demo.msg.session.s1"},
		"a member's message":                {MemberMsgSubject("demo"), "mesh.demo.msg.member"},
		"a group's message":                 {GroupMsgSubject("demo", "ops"), "mesh.demo.msg.group.ops"},
		"a group of any name is one token":  {GroupMsgSubject("demo", "a.b >"), "mesh.demo.msg.group.=c4n6481u"},
		"a wildcard is not a group":         {GroupMsgSubject("demo", "*"), "mesh.demo.msg.group.=58"},
		"an empty name is a token too":      {TopicMsgSubject("demo", ""), "mesh.demo.msg.topic.="},
		"a broadcast":                       {AllMsgSubject("demo"), "mesh.demo.msg.all"},
		"any message of every mesh":         {AnyMsgSubject("*"), "mesh.*.msg.>"},
		"an event":                          {EventSubject("demo", "peer_join"), "mesh.demo.event.peer_join"},
		"a receipt":                         {ReceiptSubject("demo", "s1", "m1"), "mesh.demo.receipt.s1.m1"},
		"a daemon operation":                {DaemonSubject("s1", OpVersion), "daemon.s1.version"},
		"an inbox":                          {InboxPrefix("s1"), "_INBOX.s1"},
		"an operation of every actor":       {AnyDaemonOp(OpStatus), "daemon.*.status"},
		"an actor cannot add tokens":        {SendSubject("demo", "s1.send.dm", SendDM), "mesh.demo.=ecoissr5dpi2sp3d.send.dm"},
		"the escape itself is escaped":      {GroupMsgSubject("demo", "=58"), "mesh.demo.msg.group.=7kqjg"},
		"letters beyond ASCII are escaped":  {GroupMsgSubject("demo", "é"), "mesh.demo.msg.group.=oekg"},
		"upper case and digits stay plain":  {ReceiptSubject("demo", User, "Ab9"), "mesh.demo.receipt.user.Ab9"},
		"all receipts of one of the actors": {ReceiptSubject("*", "s1", "*"), "mesh.*.receipt.s1.*"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.got != c.want {
				t.Errorf("got %s, want %s", c.got, c.want)
			}
		})
	}
}

func TestWhatIsNoSubject(t *testing.T) {
	for _, s := range []string{
		"", ".", "mesh", "mesh.demo", "mesh.demo.user.send", "mesh.demo.user.send.dm.x", "mesh.*.user.send.dm", "mesh.demo.>", "mesh..user.send.dm",
		"mesh.demo.msg.send.dm", "mesh.demo.event.send.dm", "mesh.demo.msg.other.x", "daemon.user", "daemon.user.a.b", "_INBOX.user.x", "$SYS.x", "=dlin6q0.demo.msg.all",
		"mesh.demo.msg.group.=C4", "mesh.demo.msg.group.=c5", "mesh.demo.msg.group.=!", "mesh.demo.msg.group.=c4======",
		"mesh.demo.msg.group." + escaped + "c5h66", // the plain word "ab" escaped: not its canonical spelling
	} {
		if got, err := ParseSubject(s); !errors.Is(err, ErrBadSubject) {
			t.Errorf("%q parsed as %+v, %v", s, got, err)
		}
	}
}

func TestSubjectsRoundTrip(t *testing.T) {
	kinds := []SubjectKind{
		KindSend, KindCall, KindSessionMsg, KindMemberMsg, KindGroupMsg, KindTopicMsg, KindAllMsg, KindEvent, KindReceipt, KindDaemon,
	}
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-z0-9-]{1,8}`), rapid.SampledFrom([]string{"", "*", ">", "=", ".", "send", "msg"}))
		s := Subject{Kind: rapid.SampledFrom(kinds).Draw(t, "kind")}
		if s.Kind != KindDaemon {
			s.Slug = word.Draw(t, "slug")
		}
		if s.Kind == KindSend || s.Kind == KindCall || s.Kind == KindReceipt || s.Kind == KindDaemon {
			s.Actor = word.Filter(func(a string) bool { return !reserved[a] || a == User }).Draw(t, "actor")
		}
		if s.Kind != KindMemberMsg && s.Kind != KindAllMsg {
			s.Name = word.Draw(t, "name")
		}
		text := s.String()
		got, err := ParseSubject(text)
		if err != nil || got != s {
			t.Fatalf("%+v became %q became %+v (%v)", s, text, got, err)
		}
		if strings.ContainsAny(text, "*> \t\r\n") {
			t.Fatalf("%q has a wildcard or a space", text)
		}
	})
}

func FuzzParseSubject(f *testing.F) {
	f.Add("mesh.demo.user.send.dm")
	f.Add("mesh.demo.msg.group.=c4n6481u")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseSubject(s)
		if err == nil && got.String() != s {
			t.Fatalf("%q parsed as %+v, which is %q", s, got, got.String())
		}
	})
}
