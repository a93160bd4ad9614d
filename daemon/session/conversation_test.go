package session

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"claudemesh/daemon/groupcommit"
)

const (
	talk1 = "0f94a6d8-1520-425f-aabb-c1fd7f8f5901"
	talk2 = "0f94a6d8-1520-425f-aabb-c1fd7f8f5902"
)

func talking(id, name, conversation string, token byte) Registration {
	r := registration(id, name, token)
	r.Conversation, r.Cwd = conversation, "/src"
	return r
}

func end(t *testing.T, s *Store, id string) {
	t.Helper()
	if _, err := s.End(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

func TestAConversationKeepsItsKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	s, _ := openAt(t, path)
	r := talking("", "bob", talk1, 1)
	r.Role, r.Groups, r.MessageMode, r.Nudge = "lead", []string{"dev:lead"}, "inbox", true
	first := register(t, s, r)
	if first.ID != talk1 {
		t.Errorf("the session's id is %s, not that of its conversation", first.ID)
	}
	if got, err := s.Get(t.Context(), first.ID); err != nil || got.MessageMode != "inbox" || !got.Nudge || got.Conversation != talk1 {
		t.Errorf("read back as %+v, %v", got, err)
	}
	end(t, s, first.ID)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, clock := openAt(t, path)
	clock.Advance(time.Second)

	again := talking("", "robert", talk1, 2)
	second := register(t, s, again)
	if second.PublicKey != first.PublicKey || second.Name != "robert" || second.ID != talk1 {
		t.Errorf("taken up as %+v", second)
	}
	if second.Role != "lead" || len(second.Groups) != 1 || second.Groups[0] != "dev:lead" {
		t.Errorf("its role and groups are %q %q", second.Role, second.Groups)
	}
	end(t, s, second.ID)

	again.Name, again.DefaultName, again.TokenHash = "", "ada", [32]byte{3}
	if third := register(t, s, again); third.Name != "robert" || third.PublicKey != first.PublicKey {
		t.Errorf("without a name it is taken up as %+v", third)
	}
	fresh := talking("", "", talk2, 4)
	fresh.DefaultName = "ada"
	if got := register(t, s, fresh); got.Name != "ada" || got.PublicKey == first.PublicKey {
		t.Errorf("a new conversation has %+v", got)
	}
	elsewhere := talking("", "bob", talk1, 5)
	elsewhere.Mesh = "other"
	if got := register(t, s, elsewhere); got.PublicKey == first.PublicKey || got.ID == talk1 {
		t.Errorf("on another mesh it is %+v", got)
	}
}

func TestAConversationWhoseKeyIsHeldIsNotTakenUp(t *testing.T) {
	s, _ := openTest(t)
	holder := register(t, s, talking("", "bob", talk1, 1))
	_, _, err := s.Register(t.Context(), talking("", "bob", talk1, 2))
	var held *HeldError
	if !errors.As(err, &held) || held.Holder.ID != holder.ID {
		t.Fatal(err)
	}
	if got := live(t, s); got != holder.ID {
		t.Errorf("live: %s", got)
	}
	end(t, s, holder.ID)
	if got := register(t, s, talking("", "bob", talk1, 2)); got.PublicKey != holder.PublicKey {
		t.Error("it lost its key")
	}
}

func TestContinuingTakesTheLastConversationOfTheDirectory(t *testing.T) {
	s, clock := openTest(t)
	older := register(t, s, talking("", "bob", talk1, 1))
	clock.Advance(time.Second)
	newer := register(t, s, talking("", "carol", talk2, 2))
	next := func(token byte, cwd string) Session {
		t.Helper()
		r := registration("", "", token)
		r.Continue, r.DefaultName, r.Cwd = true, "ada", cwd
		return register(t, s, r)
	}
	clock.Advance(time.Second)
	end(t, s, newer.ID)
	clock.Advance(time.Second)
	end(t, s, older.ID) // it was used last
	got := next(3, "/src")
	if got.Conversation != talk1 || got.PublicKey != older.PublicKey || got.Name != "bob" {
		t.Errorf("continued %+v", got)
	}
	if got := next(4, "/elsewhere"); got.Conversation != "" || got.Name != "ada" || uuid.Validate(got.ID) != nil {
		t.Errorf("where nothing was talked about: %+v", got)
	}
}

func TestAConversationThatIsClearedKeepsTheSessionsKey(t *testing.T) {
	s, _ := openTest(t)
	first := register(t, s, talking("", "bob", talk1, 1))
	if err := s.SetConversation(t.Context(), first.ID, talk2); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), first.ID); err != nil || got.Conversation != talk2 || got.PublicKey != first.PublicKey {
		t.Errorf("%+v, %v", got, err)
	}
	end(t, s, first.ID)
	for i, talk := range []string{talk1, talk2} {
		got := register(t, s, talking("", "bob", talk, byte(2+i)))
		if got.PublicKey != first.PublicKey {
			t.Errorf("%s has another key", talk)
		}
		end(t, s, got.ID)
	}
	for name, try := range map[string]struct {
		id, conversation string
		want             error
	}{
		"a session that ended":  {first.ID, talk1, ErrNotFound},
		"no conversation":       {first.ID, "", ErrBadRegistration},
		"an endless one":        {first.ID, fmt.Sprintf("%0129d", 1), ErrBadRegistration},
		"a session that is not": {"nobody", talk1, ErrNotFound},
	} {
		if err := s.SetConversation(t.Context(), try.id, try.conversation); !errors.Is(err, try.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnIDThatIsNoUUIDOrIsTakenIsNotTheSessions(t *testing.T) {
	s, _ := openTest(t)
	for i, talk := range []string{"my-talk", "urn:uuid:" + talk1, "{" + talk1 + "}", "0F94A6D8-1520-425F-AABB-C1FD7F8F5901"} {
		if got := register(t, s, talking("", "bob", talk, byte(1+i))); uuid.Validate(got.ID) != nil || got.ID == talk || got.Conversation != talk {
			t.Errorf("%s: %+v", talk, got)
		}
	}
	register(t, s, registration(talk2, "carol", 8))
	if got := register(t, s, talking("", "bob", talk2, 9)); got.ID == talk2 {
		t.Error("a live session was replaced")
	}
}

func TestOldConversationsAreForgotten(t *testing.T) {
	s, clock := openTest(t)
	live := register(t, s, talking("", "bob", talk1, 1))
	err := s.db.Write(t.Context(), func(tx *groupcommit.Tx) error { // in one transaction: there are a thousand
		for i := range keptConversations {
			clock.Advance(time.Second)
			talks, err := first(collect(tx.Query(setConversation, fmt.Sprintf("talk-%d", i), live.ID)))
			if err != nil {
				return err
			}
			if err := s.keep(tx, talks); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	end(t, s, live.ID)
	for i, tt := range []struct {
		talk string
		kept bool
	}{{"talk-0", true}, {talk1, false}} {
		r := talking("", "carol", tt.talk, byte(2+i))
		got := register(t, s, r)
		if (got.PublicKey == live.PublicKey) != tt.kept {
			t.Errorf("%s: known is %v", tt.talk, !tt.kept)
		}
	}
}

func TestASessionWithAKeyOfItsOwnTakesNothingFromAConversation(t *testing.T) {
	s, clock := openTest(t)
	r := talking("", "bob", talk1, 1)
	r.Role, r.Groups = "lead", []string{"dev"}
	first := register(t, s, r)
	end(t, s, first.ID)
	clock.Advance(time.Second)
	for i, r := range []Registration{talking("", "child", talk1, 2), {Mesh: "team", Name: "child", Cwd: "/src", Continue: true, TokenHash: [32]byte{3}}} {
		r.OwnKey = true
		got := register(t, s, r)
		if got.PublicKey == first.PublicKey || got.Role != "" || len(got.Groups) != 0 {
			t.Errorf("%d: %+v", i, got)
		}
		end(t, s, got.ID)
	}
	if got := register(t, s, talking("", "bob", talk1, 4)); got.PublicKey != first.PublicKey {
		t.Error("the conversation has lost its key")
	}
}
