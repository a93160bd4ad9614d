package testenv_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"

	"claudemesh/bus"
	"claudemesh/testenv"
)

func TestTheGuardLimitsSessionsAndNobodyElse(t *testing.T) {
	clock := clockwork.NewFakeClockAt(time.Now())
	m := testenv.NewMachine(t, testenv.WithGuard(), testenv.WithClock(clock))
	team := m.Create("team")
	alice, _ := m.Session(team, "alice"), m.Session(team, "bob")
	m.WaitPeer(team, "bob")
	send := func(id, replyTo string) (bus.SendReply, error) {
		var r bus.SendReply
		err := testenv.Try(alice.Client, bus.SendSubject(team, alice.Info.ID, "dm"), bus.SendRequest{To: "bob", Body: "x", ClientMessageID: id, ReplyTo: replyTo}, &r)
		return r, err
	}
	for i := range 60 {
		if _, err := send(fmt.Sprint("m", i), ""); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	if _, err := send("one too many", ""); testenv.Refusal(err) != "pair_limit" {
		t.Errorf("the 61st: %v", err)
	}
	t.Run("the repeat of an accepted message is none of it", func(t *testing.T) {
		if r, err := send("m0", ""); err != nil || !r.Duplicate {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("the user is not limited", func(t *testing.T) {
		for range 70 {
			if _, err := m.TrySend(team, bus.SendRequest{To: "bob", Body: "y"}); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("nothing was stored, and the id is free", func(t *testing.T) {
		clock.Advance(time.Minute)
		if r, err := send("one too many", ""); err != nil || r.Duplicate {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("answers without a word of the user end", func(t *testing.T) {
		for i := range 40 {
			clock.Advance(2 * time.Second)
			if _, err := send(fmt.Sprint("a", i), "theirs"); err != nil {
				t.Fatalf("answer %d: %v", i, err)
			}
		}
		clock.Advance(2 * time.Second)
		if _, err := send("a41", "theirs"); testenv.Refusal(err) != "reply_loop" {
			t.Errorf("the 41st: %v", err)
		}
	})
}
