package feed

import "claudemesh/bus"

// SessionSubjects are the subjects that carry messages for a session: its own, its member's, those for everybody, and its groups'.
func SessionSubjects(me bus.SessionInfo) []string {
	subjects := []string{
		bus.SessionMsgSubject(me.Mesh, me.ID),
		bus.MemberMsgSubject(me.Mesh),
		bus.AllMsgSubject(me.Mesh),
	}
	for _, g := range me.Groups {
		subjects = append(subjects, bus.GroupMsgSubject(me.Mesh, g.Name))
	}
	return subjects
}
