package daemon

import (
	"crypto/rand"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/daemon/inbox"
	"claudemesh/daemon/session"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// sealed is a push to a key as a broker delivers it.
func sealed(t *testing.T, from mesh.Identity, to, text string) wire.Push {
	t.Helper()
	nonce, box, err := mesh.Seal(from, to, []byte(text), rand.Reader)
	must(t, err)
	return wire.Push{
		Type: wire.TypePush, MessageID: "m1", ClientMessageID: "c1", SenderPubkey: from.PublicKey(), SenderName: "sender", Priority: wire.PriorityNow, TargetSpec: to,
		Nonce: base64.StdEncoding.EncodeToString(nonce), Ciphertext: base64.StdEncoding.EncodeToString(box), CreatedAt: "2026-02-03T04:05:06.789Z",
	}
}

func live(id, name string, key mesh.Identity, groups ...string) session.Session {
	return session.Session{ID: id, Mesh: "team", Name: name, PublicKey: key.PublicKey(), KeySecret: session.Secret(key.SecretHex()), Groups: groups}
}

func TestOpeningAPush(t *testing.T) {
	m := still(t)
	sender, alice, bob := newIdentity(t), newIdentity(t), newIdentity(t)
	sessions := []session.Session{live("a", "alice", alice, "dev"), live("b", "bob", bob, "ops:lead")}
	byAlice, byMember := bridge.Source{Session: "a", Key: alice.PublicKey()}, bridge.Source{Key: m.joined.Pubkey}
	text := func(p wire.Push, spec, text string) wire.Push {
		p.TargetSpec, p.Ciphertext = spec, base64.StdEncoding.EncodeToString([]byte(text))
		return p
	}
	toAlice, toBob, toMember := sealed(t, sender, alice.PublicKey(), "hi"), sealed(t, sender, bob.PublicKey(), "hi"), sealed(t, sender, m.joined.Pubkey, "hi")
	unaddressed := func(p wire.Push) wire.Push { p.TargetSpec = ""; return p } // a reference broker does not say what was addressed
	for name, c := range map[string]struct {
		src       bridge.Source
		push      wire.Push
		body      string
		kind      string
		key       string
		concerned string
	}{
		"a direct message to a session":         {byAlice, toAlice, "hi", inbox.ToSession, alice.PublicKey(), "a"},
		"to the member":                         {byMember, toMember, "hi", inbox.ToMember, m.joined.Pubkey, "a b"},
		"to the member, by a session's link":    {byAlice, toMember, "hi", inbox.ToMember, m.joined.Pubkey, "a b"},
		"to a session, by the member's link":    {byMember, toBob, "hi", inbox.ToSession, bob.PublicKey(), "b"},
		"to a session, by the link of another":  {byAlice, toBob, "hi", inbox.ToSession, bob.PublicKey(), "b"},
		"of a reference broker":                 {byAlice, unaddressed(toAlice), "hi", inbox.ToSession, alice.PublicKey(), "a"},
		"a broadcast":                           {byMember, text(toMember, "*", "all"), "all", inbox.ToAll, "", "a b"},
		"to @all":                               {byMember, text(toMember, "@all", "all"), "all", inbox.ToAll, "", "a b"},
		"to a group":                            {byMember, text(toMember, "@dev", "devs"), "devs", inbox.ToGroup, "", "a"},
		"to a group with a role":                {byMember, text(toMember, "@ops", "ops"), "ops", inbox.ToGroup, "", "b"},
		"to a group nobody is in":               {byMember, text(toMember, "@qa", "qa"), "qa", inbox.ToGroup, "", ""},
		"to a topic":                            {byMember, text(toMember, "#t", "post"), "post", inbox.ToTopic, "", "a b"},
		"a reference broker's multicast":        {byAlice, text(toAlice, "", "plain words\n\tand lines"), "plain words\n\tand lines", inbox.ToAll, alice.PublicKey(), "a b"},
		"of a broker that says it came to me":   {byAlice, text(toAlice, alice.PublicKey(), "plain words"), "", inbox.ToSession, alice.PublicKey(), "a"},
		"sealed for a key that is not here":     {byAlice, sealed(t, sender, sender.PublicKey(), "hi"), "", inbox.ToSession, alice.PublicKey(), "a"},
		"the same to a reference broker":        {byAlice, unaddressed(sealed(t, sender, sender.PublicKey(), "hi")), "", inbox.ToSession, alice.PublicKey(), "a"},
		"not base64":                            {byAlice, wire.Push{TargetSpec: alice.PublicKey(), Ciphertext: "%%"}, "", inbox.ToSession, alice.PublicKey(), "a"},
		"a nonce that is not base64":            {byAlice, wire.Push{TargetSpec: alice.PublicKey(), Nonce: "%%", Ciphertext: "aGVsbG8="}, "", inbox.ToSession, alice.PublicKey(), "a"},
		"nothing at all":                        {byMember, wire.Push{}, "", inbox.ToMember, m.joined.Pubkey, "a b"},
		"a multicast that is not UTF-8":         {byMember, text(toMember, "*", "\xff\xfe"), "", inbox.ToAll, "", "a b"},
		"a sender with a key that is no key":    {byAlice, func() wire.Push { p := toAlice; p.SenderPubkey = "zz"; return p }(), "", inbox.ToSession, alice.PublicKey(), "a"},
		"sealed bytes that are not text":        {byAlice, sealed(t, sender, alice.PublicKey(), "\xff\xfe"), "", inbox.ToSession, alice.PublicKey(), "a"},
		"a reference multicast with a control":  {byAlice, text(toAlice, "", "ab\x1b[2Jc"), "", inbox.ToSession, alice.PublicKey(), "a"},
		"a reference multicast that is nothing": {byAlice, text(toAlice, "", ""), "", inbox.ToSession, alice.PublicKey(), "a"},
	} {
		t.Run(name, func(t *testing.T) {
			msg := m.open(c.src, c.push, sessions)
			if msg.Body != c.body || msg.ToKind != c.kind || msg.RecipientKey != c.key {
				t.Errorf("body %q to %s %.8s, want %q to %s %.8s (%s)", msg.Body, msg.ToKind, msg.RecipientKey, c.body, c.kind, c.key, msg.Reason)
			}
			if (c.body == "") != msg.Undecryptable || msg.Undecryptable != (msg.Reason != "") {
				t.Errorf("undecryptable %v, reason %q", msg.Undecryptable, msg.Reason)
			}
			if got := strings.Join(m.concerned(msg, sessions), " "); got != c.concerned {
				t.Errorf("concerns %q, want %q", got, c.concerned)
			}
		})
	}
	t.Run("the rest is taken over", func(t *testing.T) {
		p := toAlice
		p.ReplyToID, p.SenderMemberPubkey, p.Topic, p.Subtype = "r", strings.Repeat("ab", 32), "top", "sub"
		msg := m.open(byAlice, p, sessions)
		if msg.ClientMessageID != "c1" || msg.BrokerMessageID != "m1" || msg.SenderName != "sender" || msg.ReplyTo != "r" || msg.Priority != wire.PriorityNow || msg.Mesh != "team" ||
			msg.Sender != p.SenderMemberPubkey || msg.Topic != "top" || msg.Subtype != "sub" || !msg.CreatedAt.Equal(time.Date(2026, 2, 3, 4, 5, 6, 789e6, time.UTC)) {
			t.Errorf("%+v", msg)
		}
	})
	t.Run("what is missing is made up for", func(t *testing.T) {
		p := toAlice
		p.ClientMessageID, p.SenderName, p.Priority, p.CreatedAt = "", "", "whenever", "yesterday"
		msg := m.open(byAlice, p, sessions)
		if msg.ClientMessageID != "m1" || msg.SenderName != sender.PublicKey()[:8] || msg.Priority != wire.PriorityNext || msg.Sender != sender.PublicKey() || !msg.CreatedAt.IsZero() {
			t.Errorf("%+v", msg)
		}
	})
	t.Run("the sender does not hear its own multicast", func(t *testing.T) {
		p := text(toMember, "*", "all")
		p.SenderPubkey = alice.PublicKey()
		if got := m.concerned(m.open(byMember, p, sessions), sessions); len(got) != 1 || got[0] != "b" {
			t.Errorf("concerns %q", got)
		}
	})
}

func TestAMessageThatOutrunsTheEndOfItsSession(t *testing.T) {
	d, m := running(t)
	start := func(name string) bus.SessionInfo {
		s, err := ask[bus.SessionInfo](t, d.startSession, bus.User, "", "", bus.SessionStart{Mesh: "team", Name: name, PID: 1})
		must(t, err)
		return s
	}
	alice, bob := start("alice"), start("bob")
	user, err := d.server.BusConn()
	must(t, err)
	own, err := user.SubscribeSync(bus.AnyMsgSubject("team"))
	must(t, err)
	must(t, user.Flush())
	must(t, d.endSession(t.Context(), bob.ID))
	src := bridge.Source{Session: bob.ID, Key: bob.Pubkey}

	t.Run("is kept for the next session of the name, and no other hears of it", func(t *testing.T) {
		_, err := m.Push(t.Context(), src, []wire.Push{sealed(t, newIdentity(t), bob.Pubkey, "see you")})
		must(t, err)
		msg, err := own.NextMsg(patience)
		if err != nil || !strings.Contains(string(msg.Data), "see you") || msg.Subject != bus.SessionMsgSubject("team", bob.Pubkey) {
			t.Fatalf("the user heard %+v, %v", msg, err)
		}
		next := start("bob")
		if next.Pubkey != bob.Pubkey {
			t.Fatal("the next bob has another key")
		}
		l, err := ask[bus.InboxList](t, d.pendingInbox, next.ID, "", "", nil)
		must(t, err)
		if len(l.Items) != 1 || l.Items[0].Body != "see you" || l.Items[0].State == bus.StateUndecryptable {
			t.Errorf("the next bob has %+v", l.Items)
		}
		if l, err = ask[bus.InboxList](t, d.listInbox, alice.ID, "", "", bus.InboxQuery{}); err != nil || len(l.Items) != 0 {
			t.Errorf("alice has %+v, %v", l.Items, err)
		}
	})
	t.Run("is left to the broker when the key is gone from here", func(t *testing.T) {
		stranger := newIdentity(t)
		_, err := m.Push(t.Context(), bridge.Source{Session: "never-was", Key: stranger.PublicKey()}, []wire.Push{sealed(t, newIdentity(t), stranger.PublicKey(), "lost?")})
		if err == nil {
			t.Error("it was acknowledged")
		}
	})
}

func TestPlausibleText(t *testing.T) {
	for text, want := range map[string]bool{
		"hello": true, "two\nlines\twith\r\ntabs": true, "grüße, 你好 👋": true, " ": true, "\u00a0": true,
		"": false, "\x00": false, "a\x1b[2J": false, "\x7f": false, "\xff": false, "ab\xc3": false, "\u0085x\u0080": false,
	} {
		if got := plausibleText([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestPrintable(t *testing.T) {
	long := strings.Repeat("é", 100)
	for in, want := range map[string]string{
		"bob": "bob", "": "", "b\x00o\x1bb\n": "bob", "zwölf": "zwölf", "a\xffb": "ab", "a\ufffdb": "ab", "\u009b31mred": "31mred", long: long[:wire.MaxNameBytes],
		"x" + long: "x" + long[:wire.MaxNameBytes-2],
	} {
		if got := printable(in); got != want || len(got) > wire.MaxNameBytes {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

func TestManyLargeMessagesFitIntoReplies(t *testing.T) {
	big := bus.InboxItem{Body: strings.Repeat("\x01", mesh.MaxBody)}
	for name, c := range map[string]struct {
		items []bus.InboxItem
		want  int
	}{
		"none": {nil, 0}, "small ones": {make([]bus.InboxItem, 100), 100}, "one large": {[]bus.InboxItem{big}, 1}, "large ones": {[]bus.InboxItem{big, big, big, big}, 2},
		"even one that is too large": {[]bus.InboxItem{{Body: strings.Repeat("x", maxListBytes)}, {}}, 1},
	} {
		if got := fitting(c.items); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
