package daemon

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"claudemesh/bus"
)

// guard keeps a session from flooding one peer, and two sessions from answering each other for ever while nobody looks on. It judges what a session sends to
// one target; the user's own sends and scripts are not its business. It forgets with the daemon: what is lost allows more, once.
type guard struct {
	perMinute int // messages to one target, and as many at once; 0: no limit
	replies   int // answers to one target within replyWindow without a turn of the session's user; 0: no limit

	mu    sync.Mutex
	pairs map[pair]*pairLoad
}

type pair struct{ session, target string }

type pairLoad struct {
	flood   *rate.Limiter
	answers []time.Time // the latest, oldest first, at most guard.replies
	last    time.Time
}

const (
	replyWindow = 10 * time.Minute
	maxPairs    = 20_000 // of which those that rest longest are forgotten
)

func newGuard(perMinute, replies int) *guard {
	return &guard{perMinute: perMinute, replies: replies, pairs: map[pair]*pairLoad{}}
}

// admit counts a message from a session to a target, or refuses it: 429 pair_limit or reply_loop, with retry_after_ms. reply: it answers another.
func (g *guard) admit(session, target string, reply bool, now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := pair{session, target}
	load := g.pairs[p]
	if load == nil {
		g.makeRoom(now)
		load = &pairLoad{flood: rate.NewLimiter(rate.Inf, 0)}
		if g.perMinute > 0 {
			load.flood = rate.NewLimiter(rate.Limit(float64(g.perMinute)/60), g.perMinute)
		}
		g.pairs[p] = load
	}
	load.last = now
	if reply && g.replies > 0 {
		for len(load.answers) > 0 && now.Sub(load.answers[0]) >= replyWindow {
			load.answers = load.answers[1:]
		}
		if len(load.answers) >= g.replies {
			return refusedPair("reply_loop", load.answers[0].Add(replyWindow).Sub(now), fmt.Sprintf(
				"this session has answered the same peer %d times within %s without a word from its user: the two may be answering each other in a loop; nothing was sent",
				g.replies, replyWindow))
		}
	}
	// Where the limit is reached the reservation is given back: a refused message costs nothing.
	if r := load.flood.ReserveN(now, 1); r.DelayFrom(now) > 0 {
		wait := r.DelayFrom(now)
		r.CancelAt(now)
		return refusedPair("pair_limit", wait, fmt.Sprintf("this session has sent more than %d messages a minute to the same peer; nothing was sent", g.perMinute))
	}
	if reply && g.replies > 0 {
		load.answers = append(load.answers, now)
	}
	return nil
}

// refusedPair rounds the wait up to whole milliseconds, so that who waits as told is let through.
func refusedPair(reason string, wait time.Duration, what string) error {
	ms := (wait + time.Millisecond - 1).Milliseconds()
	return &bus.APIError{
		Code: 429, Reason: reason, Detail: fmt.Sprintf("%s; it may again in %s", what, time.Duration(ms)*time.Millisecond), Data: map[string]any{"retry_after_ms": ms},
	}
}

// userTurn notes that a session's own user has spoken to it: whatever it has answered so far, somebody looks on.
func (g *guard) userTurn(session string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for p, load := range g.pairs {
		if p.session == session {
			load.answers = nil
		}
	}
}

// forget drops what is known of a session that has ended.
func (g *guard) forget(session string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for p := range g.pairs {
		if p.session == session {
			delete(g.pairs, p)
		}
	}
}

// makeRoom drops the pairs that rest when there are too many, and the one that rests longest when none rests.
func (g *guard) makeRoom(now time.Time) {
	if len(g.pairs) < maxPairs {
		return
	}
	var oldest pair
	var at time.Time
	for p, load := range g.pairs {
		if now.Sub(load.last) >= replyWindow {
			delete(g.pairs, p)
		} else if at.IsZero() || load.last.Before(at) {
			oldest, at = p, load.last
		}
	}
	if len(g.pairs) >= maxPairs {
		delete(g.pairs, oldest)
	}
}
