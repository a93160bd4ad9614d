package feed

import "claudemesh/bus"

// SessionSubjects are the subjects that carry messages for a session. One is enough: the daemon publishes every message there that has a delivery row for
// the session, multicasts included, and no echo of what the session sent itself.
func SessionSubjects(me bus.SessionInfo) []string {
	return []string{bus.SessionMsgSubject(me.Mesh, me.ID)}
}
