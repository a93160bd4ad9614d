// Package wake decides how a session's next message gets before its model: the wake ladder.
//
// A client can be reached in several ways, and none of them tells whether the model saw the text. So each message goes to the quickest rung that the
// session has; without evidence after a while it goes to the next one, as a repeat. The invariants kept here: a message is on one rung at a time; it is handed
// over at most [MaxTries] times; a session that asked not to be disturbed is not; and a rung that was found to lead nowhere is not taken again.
//
// Everything here is a function of its arguments: no clock, no I/O, no state. Package daemon calls it.
package wake

import "time"

// How long a rung is given to show evidence.
const (
	ProofSoon  = 3 * time.Second  // a channel that has proved nothing yet, of a client that is idle: what it shows is in its transcript at once
	ProofLimit = 10 * time.Second // any other channel
	HookLimit  = 15 * time.Second // what a hook carried
)

// MaxTries is how often one message is handed over before it is left to the inbox.
const MaxTries = 3

// Turn is what a session is doing.
type Turn int

// Turns. Unknown is a client without hooks: nobody tells.
const (
	Unknown Turn = iota
	Idle
	Working // a hook said so: the next turn boundary will tell of itself
	Busy    // the session said by hand that it works or wants no disturbance
)

// Channel is what is known of a session's channel.
type Channel int

// What is known of a channel.
const (
	NoShim Channel = iota // nobody is connected who could write to it
	Unproven
	Proven
	Silent // the client drops what is written there
)

// Facts are what is known of a session.
type Facts struct {
	Turn       Turn
	Channel    Channel
	Transcript bool // there is a record of the conversation to find evidence in
	Hooks      bool // the client runs our hooks
	Waiter     bool // a hook waits that can wake it
	Nudge      bool // the last rung is there and allowed
	Hush       bool // the member or the session wants to be shown nothing unasked
}

// Row is a message that has not surfaced.
type Row struct {
	Urgent, Low bool // priority now, priority low
	Via         Rung // the rung that has it, None when it was never handed over
	PushedAt    time.Time
	ArrivedAt   time.Time
	Tries       int
}

// Rung is a way to a session.
type Rung int

// Rungs.
const (
	None Rung = iota
	OnChannel
	OnWake
	OnHook
	OnNudge
	OnDigest // counted in a summary: it is left to the inbox
)

// Plan is what to do now.
type Plan struct {
	Channel []int     // rows to give to the shim
	Wake    bool      // poke the hook that waits: it takes what Take(Waiting, …) says
	Nudge   bool      // let the shim write a line
	Silent  bool      // the channel is found to be silent
	At      time.Time // when to look again; zero: not before something happens
	Deaf    time.Time // since when something should have been shown and was not; zero: nothing
	Unshown int       // rows that should have been shown
}

// Next decides what to do at now about the rows of a session, oldest first.
func Next(f Facts, now time.Time, rows []Row) (p Plan) {
	if f.Hush {
		return p
	}
	later := func(t time.Time) {
		if p.At.IsZero() || t.Before(p.At) {
			p.At = t
		}
	}
	for _, r := range rows {
		if r.Via == OnChannel && f.Channel == Unproven && f.Transcript && f.Turn != Working && !now.Before(r.PushedAt.Add(ProofSoon)) {
			p.Silent, f.Channel = true, Silent
		}
	}
	for i, r := range rows {
		if r.Via == OnDigest {
			continue
		}
		p.Unshown++
		if until, held := f.holds(r); held {
			if until.IsZero() || now.Before(until) {
				if !until.IsZero() {
					later(until)
				}
				continue
			}
		}
		if !f.may(r) {
			continue
		}
		switch {
		case r.Tries >= MaxTries:
		case r.Via != OnChannel && (f.Channel == Unproven || f.Channel == Proven):
			p.Channel = append(p.Channel, i)
			continue
		case f.Waiter && f.Turn != Working:
			p.Wake = true
			continue
		case f.Nudge:
			p.Nudge = true
		}
		since := r.ArrivedAt
		if r.Via != None {
			since = r.PushedAt
		}
		if f.Turn == Working {
			continue // the next boundary takes it
		}
		if deaf := since.Add(ProofLimit); now.Before(deaf) {
			later(deaf)
		} else if p.Deaf.IsZero() || since.Before(p.Deaf) {
			p.Deaf = since
		}
	}
	return p
}

// may reports whether a message may be handed over now, between turn boundaries.
func (f Facts) may(r Row) bool {
	switch f.Turn {
	case Busy:
		return r.Urgent
	case Working:
		return r.Urgent
	}
	return true
}

// holds reports whether a rung has the message and still may show it; until is zero when that has no end.
func (f Facts) holds(r Row) (until time.Time, held bool) {
	switch r.Via {
	case OnChannel:
		switch {
		case f.Channel == NoShim || f.Channel == Silent:
			return until, false
		case !f.Transcript && !f.Hooks && !f.Waiter && !f.Nudge:
			return until, true // nothing could ever tell, and there is no other way
		case f.Turn == Working:
			return until, true // the client keeps it until its tool has ended
		case f.Channel == Unproven && f.Transcript:
			return r.PushedAt.Add(ProofSoon), true
		}
		return r.PushedAt.Add(ProofLimit), true
	case OnWake, OnHook:
		if f.Turn == Working {
			return until, true
		}
		return r.PushedAt.Add(HookLimit), true
	}
	return until, false
}

// Boundary is a moment at which a hook can hand over text.
type Boundary int

// Boundaries.
const (
	Prompt  Boundary = iota // the user has written something
	Tool                    // a tool has ended, the turn goes on
	Stop                    // the turn is over
	Waiting                 // a hook that waits was poked: the client is idle
)

// Take lists the rows that a hook hands over at a boundary.
func Take(f Facts, b Boundary, now time.Time, rows []Row) (take []int) {
	if f.Hush {
		return nil
	}
	for i, r := range rows {
		switch {
		case r.Via == OnDigest || r.Tries >= MaxTries:
		case f.Turn == Busy && !r.Urgent:
		case b == Tool && r.Low:
		case b == Waiting && !f.may(r):
		case b == Waiting && r.Via != OnChannel && (f.Channel == Unproven || f.Channel == Proven):
			// The channel is quicker, and has it or is about to.
		case f.onItsWay(b, r, now):
		default:
			take = append(take, i)
		}
	}
	return take
}

// onItsWay reports whether another rung will show the row, or just has.
func (f Facts) onItsWay(b Boundary, r Row, now time.Time) bool {
	switch r.Via {
	case OnChannel:
		limit := ProofSoon
		switch f.Channel {
		case NoShim, Silent:
			return false
		case Proven:
			if limit = ProofLimit; b == Tool {
				return true // it rides in the very next request
			}
		}
		return now.Before(r.PushedAt.Add(limit))
	case OnWake, OnHook:
		return now.Before(r.PushedAt.Add(HookLimit))
	}
	return false
}
