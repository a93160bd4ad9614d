package daemon

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"claudemesh/bus"
)

// try admits and returns the reason of a refusal and the wait it tells.
func (g *guard) try(t *testing.T, session, target string, reply bool, now time.Time) (string, time.Duration) {
	t.Helper()
	err := g.admit(session, target, reply, now)
	var api *bus.APIError
	switch {
	case err == nil:
		return "", 0
	case !errors.As(err, &api) || api.Code != 429:
		t.Fatal(err)
	}
	return api.Reason, time.Duration(api.Data.(map[string]any)["retry_after_ms"].(int64)) * time.Millisecond
}

func TestASessionFloodsNoPeer(t *testing.T) {
	g, now := newGuard(60, 40), time.Unix(1_000_000, 0)
	for i := range 60 {
		if why, _ := g.try(t, "s", "bob", false, now); why != "" {
			t.Fatalf("message %d: %s", i, why)
		}
	}
	why, wait := g.try(t, "s", "bob", false, now)
	if why != "pair_limit" || wait != time.Second {
		t.Errorf("the 61st: %q, wait %s", why, wait)
	}
	t.Run("another peer, and another session, are not concerned", func(t *testing.T) {
		for _, p := range []pair{{"s", "carol"}, {"r", "bob"}} {
			if why, _ := g.try(t, p.session, p.target, false, now); why != "" {
				t.Errorf("%+v: %s", p, why)
			}
		}
	})
	t.Run("who waits as told may send again, once", func(t *testing.T) {
		now = now.Add(wait)
		if why, _ := g.try(t, "s", "bob", false, now); why != "" {
			t.Errorf("%s", why)
		}
		if why, _ := g.try(t, "s", "bob", false, now); why != "pair_limit" {
			t.Errorf("%s", why)
		}
	})
}

func TestTwoSessionsDoNotAnswerEachOtherForEver(t *testing.T) {
	g, now := newGuard(60, 40), time.Unix(1_000_000, 0)
	answer := func() (string, time.Duration) { now = now.Add(2 * time.Second); return g.try(t, "s", "bob", true, now) }
	for i := range 40 {
		if why, _ := answer(); why != "" {
			t.Fatalf("answer %d: %s", i, why)
		}
	}
	why, wait := answer()
	if why != "reply_loop" || wait != replyWindow-80*time.Second {
		t.Errorf("the 41st: %q, wait %s", why, wait)
	}
	if why, _ := g.try(t, "s", "bob", false, now); why != "" {
		t.Errorf("a message that answers nothing: %s", why)
	}
	t.Run("a turn of its user sets it free", func(t *testing.T) {
		g.userTurn("r")
		if why, _ := answer(); why != "reply_loop" {
			t.Errorf("after another session's turn: %q", why)
		}
		g.userTurn("s")
		if why, _ := answer(); why != "" {
			t.Errorf("after its own: %q", why)
		}
	})
	t.Run("so does time", func(t *testing.T) {
		for why == "reply_loop" || why == "" {
			if why, wait = answer(); why != "" {
				break
			}
		}
		now = now.Add(wait)
		if why, _ := g.try(t, "s", "bob", true, now); why != "" {
			t.Errorf("%q", why)
		}
	})
}

func TestTheGuardForgetsWhoRests(t *testing.T) {
	g, now := newGuard(60, 40), time.Unix(1_000_000, 0)
	for i := range maxPairs + 5 {
		g.try(t, "s", fmt.Sprint(i), true, now.Add(time.Duration(i)*time.Microsecond))
	}
	if n := len(g.pairs); n != maxPairs || g.pairs[pair{"s", "0"}] != nil {
		t.Errorf("%d pairs", n)
	}
	g.try(t, "s", "late", true, now.Add(replyWindow+time.Second))
	if n := len(g.pairs); n != 1 {
		t.Errorf("%d pairs after a rest", n)
	}
	g.forget("s")
	if n := len(g.pairs); n != 0 {
		t.Errorf("%d pairs of a session that ended", n)
	}
}
