package inbox

import (
	"testing"
)

func TestPostsThatCameBeforeTheirKey(t *testing.T) {
	s, _ := openTest(t)
	post := func(cmid string) Message {
		m := message(cmid, ToTopic)
		m.TargetSpec, m.Body, m.Undecryptable, m.Reason, m.Nonce, m.Ciphertext = "#t", "", true, "no key yet", []byte("n"), []byte("c")
		return m
	}
	search := func(text string) string {
		t.Helper()
		items, err := s.Search(t.Context(), SearchQuery{Text: text})
		if err != nil {
			t.Fatal(err)
		}
		return itemIDs(items)
	}
	unreadBy := func(session string) int64 {
		t.Helper()
		n, err := s.CountUnread(t.Context(), session, "")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	first := insert(t, s, post("first"), "s1", "s2")
	other := post("other")
	other.TargetSpec = "#u"
	insert(t, s, other, "s1")
	insert(t, s, message("plain", ToMember), "s1")
	if got := search("late"); got != "" { // the index has seen them, without a text
		t.Fatal(got)
	}
	second := insert(t, s, post("second"), "s1")
	if err := s.MarkSeen(t.Context(), "s1", []string{first.ID}); err != nil {
		t.Fatal(err)
	}
	if err := s.MarkSeen(t.Context(), "", []string{first.ID}); err != nil {
		t.Fatal(err)
	}
	if got := pending(t, s, "s1"); got != "plain" || unreadBy("s1") != 1 || unreadBy("") != 1 {
		t.Errorf("they are news without a text: pending %q, unread %d and %d", got, unreadBy("s1"), unreadBy(""))
	}
	closed, err := s.Closed(t.Context(), "team", "#t", 0, 0)
	if err != nil || ids(closed) != "first second" || string(closed[0].Nonce) != "n" || string(closed[0].Ciphertext) != "c" {
		t.Fatal(ids(closed), err)
	}
	if closed, err := s.Closed(t.Context(), "team", "#t", first.Seq, 0); err != nil || ids(closed) != "second" {
		t.Fatal(ids(closed), err)
	}
	for _, m := range []Message{first, second} {
		got, sessions, opened, err := s.Opened(t.Context(), m.ID, "a late text")
		if err != nil || !opened || got.Body != "a late text" || got.Undecryptable || got.Reason != "" || got.Nonce != nil || got.Seq != m.Seq {
			t.Errorf("%+v, %v, %v", got, opened, err)
		}
		if m.ID == first.ID && len(sessions) != 2 {
			t.Errorf("sessions %q", sessions)
		}
	}
	if got := pending(t, s, "s1"); got != "first plain second" || unreadBy("s1") != 3 || unreadBy("") != 3 {
		t.Errorf("now pending %q, unread %d and %d", got, unreadBy("s1"), unreadBy(""))
	}
	if got := search("late text"); got != "second first" {
		t.Errorf("found %q", got)
	}
	if _, _, opened, err := s.Opened(t.Context(), first.ID, "another text"); err != nil || opened || search("another") != "" {
		t.Errorf("opened twice: %v, %v", opened, err)
	}
	if closed, err := s.Closed(t.Context(), "team", "#t", 0, 0); err != nil || len(closed) != 0 {
		t.Error(ids(closed), err)
	}
	if _, _, opened, err := s.Opened(t.Context(), "nonsense", "x"); err != nil || opened {
		t.Error(opened, err)
	}
}
