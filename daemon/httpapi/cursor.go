package httpapi

import (
	"fmt"
	"strconv"
	"strings"
)

// cursor is a place in the event stream: how much of the two streams of the bus has been shown. Every event's id is the cursor behind it, so the last id that a client
// has seen says where to go on, whichever stream it came from.
type cursor struct{ messages, events uint64 }

// String is the id of an event.
func (c cursor) String() string { return fmt.Sprintf("%d-%d", c.messages, c.events) }

// parseCursor reads what String wrote. False: it is something else.
func parseCursor(s string) (c cursor, ok bool) {
	a, b, found := strings.Cut(strings.TrimSpace(s), "-")
	var err error
	if !found {
		return c, false
	}
	if c.messages, err = strconv.ParseUint(a, 10, 64); err != nil {
		return cursor{}, false
	}
	if c.events, err = strconv.ParseUint(b, 10, 64); err != nil {
		return cursor{}, false
	}
	return c, c.String() == strings.TrimSpace(s)
}

// seenIDs remembers the latest message ids that were shown, so that the copies of one message (one for each session, one for its group) are shown once.
type seenIDs struct {
	ids  map[string]bool
	ring []string
	next int
}

// copiesApart is how far the copies of one message can lie from one another: they are published together, those of other meshes may come between.
const copiesApart = 256

func newSeenIDs() *seenIDs {
	return &seenIDs{ids: map[string]bool{}, ring: make([]string, copiesApart)}
}

// add notes an id, and reports whether it is new. The empty id is always new.
func (s *seenIDs) add(id string) bool {
	if id == "" {
		return true
	}
	if s.ids[id] {
		return false
	}
	delete(s.ids, s.ring[s.next])
	s.ring[s.next], s.ids[id] = id, true
	s.next = (s.next + 1) % len(s.ring)
	return true
}
