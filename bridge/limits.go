package bridge

import (
	"errors"
	"slices"

	"claudemesh/wire"
)

// Limits of sessions at the broker. A broker that knows them (wire.CapSessionCaps) is told of them in the attestation and enforces them; one that does not
// would refuse such an attestation, so it is given the usual one, and the limits hold on this machine only. Which of the two a broker is, it says in
// hello_ack: the hello of a limited session waits until some link of the mesh has heard that. A session never gets more from a broker that would have
// limited it: if it turns out, when the broker answers, that it knows limits after all, the connection is made again.

// abilities are what the broker last said of itself, over any link.
type abilities struct{ known, sessionCaps bool }

// Reasons for which a limited session is not connected yet.
var (
	errUnknownAbilities = errors.New("waiting to learn whether the broker can limit sessions")
	errNotLimited       = errors.New("the broker can limit sessions and was not told to")
)

// learn takes the broker's word from a hello_ack. The first one ends the wait of the limited sessions.
func (m *Mesh) learn(capabilities []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	first := !m.abilities.known
	m.abilities = abilities{known: true, sessionCaps: slices.Contains(capabilities, wire.CapSessionCaps)}
	for _, s := range m.sessions {
		if first && s.Caps != nil {
			s.link.Kick()
		}
	}
}

// Limits reports whether the broker holds limited sessions to their capabilities. known is false until it has answered over some link.
func (m *Mesh) Limits() (limits, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.abilities.sessionCaps, m.abilities.known
}
