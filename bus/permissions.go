package bus

import (
	"fmt"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// monitorSubjects are the read operations of NATS micro: who is there, what it offers, its statistics.
var monitorSubjects = []string{"$SRV.PING", "$SRV.PING.>", "$SRV.INFO", "$SRV.INFO.>", "$SRV.STATS", "$SRV.STATS.>"}

// permissionsOf turns a grant into the server's permissions.
//
// Two traps of the server are closed here: an empty Subscribe.Allow would allow everything, and a nil Publish would leave publishing open. Both lists
// are therefore never empty, which permit checks.
func permissionsOf(g Grant) (*natsserver.Permissions, error) {
	switch g.Role {
	case RoleUser:
		return permit(
			append([]string{pattern("mesh", "*", User, ">"), pattern("daemon", User, ">")}, monitorSubjects...),
			[]string{"mesh.>", InboxPrefix(User) + ".>"},
		), nil
	case RoleTap:
		// Everything that a tap's own account imports; see tap.go. The account is the boundary, this list the second one.
		return permit(tapRequests(), []string{">"}), nil
	case RoleSession:
		return sessionPermissions(g)
	}
	return nil, fmt.Errorf("%w: unknown role %q", ErrBadGrant, g.Role)
}

func sessionPermissions(g Grant) (*natsserver.Permissions, error) {
	if !plainToken(g.Actor) || reserved[g.Actor] || len(g.Actor) > 128 {
		return nil, fmt.Errorf("%w: session id %q", ErrBadGrant, g.Actor)
	}
	if !plainToken(g.Mesh) {
		return nil, fmt.Errorf("%w: mesh %q", ErrBadGrant, g.Mesh)
	}
	slug := "*"
	if g.OnlyMesh {
		slug = g.Mesh
	}
	pub := []string{pattern("daemon", g.Actor, ">")}
	if g.Caps == nil {
		pub = append(pub, pattern("mesh", slug, g.Actor, "send", ">"), pattern("mesh", slug, g.Actor, "call", ">"))
	} else {
		limited, err := capSubjects(slug, g.Actor, g.Caps)
		if err != nil {
			return nil, err
		}
		pub = append(pub, limited...)
	}
	sub := []string{
		InboxPrefix(g.Actor) + ".>",
		SessionMsgSubject(g.Mesh, g.Actor),
		WakeSubject(g.Mesh, g.Actor, "*"),
		MemberMsgSubject(g.Mesh),
		AllMsgSubject(g.Mesh),
		pattern("mesh", g.Mesh, "msg", "topic", "*"),
		pattern("mesh", g.Mesh, "event", ">"),
		pattern("mesh", slug, "receipt", g.Actor, ">"),
	}
	for _, group := range g.Groups {
		sub = append(sub, GroupMsgSubject(g.Mesh, group))
	}
	return permit(pub, sub), nil
}

// Hears are the subjects of the streams that the holder of a grant may read back, a part of what its connection may subscribe to: for a session its own messages
// (not the copies on the subjects of groups, topics and the member), the events of its mesh and receipts of its own; for the user everything.
func Hears(g Grant) (messages, events []string) {
	switch g.Role {
	case RoleUser:
		return []string{AnyMsgSubject("*")}, []string{pattern("mesh", "*", "event", ">"), pattern("mesh", "*", "receipt", ">")}
	case RoleSession:
		slug := "*"
		if g.OnlyMesh {
			slug = g.Mesh
		}
		return []string{SessionMsgSubject(g.Mesh, g.Actor)}, []string{pattern("mesh", g.Mesh, "event", ">"), pattern("mesh", slug, "receipt", g.Actor, ">")}
	}
	return nil, nil
}

// servicePermissions let the connection of [Service] hear requests and answer inboxes, nothing else: whatever reply subject a caller names, and also
// for the answers that the micro library gives by itself, this connection cannot be made to publish a message. "_R_" are the server's own
// stand-ins for the inboxes of taps.
func servicePermissions() *natsserver.Permissions {
	return permit([]string{"_INBOX.>", "_R_.>"}, []string{"mesh.>", "daemon.>", "$SRV.>", "_INBOX.>"})
}

func permit(publish, subscribe []string) *natsserver.Permissions {
	if len(publish) == 0 || len(subscribe) == 0 {
		// Unreachable by the code above; an empty list must never become "everything".
		publish, subscribe = []string{"_NOBODY"}, []string{"_NOBODY"}
	}
	return &natsserver.Permissions{
		Publish:   &natsserver.SubjectPermission{Allow: publish},
		Subscribe: &natsserver.SubjectPermission{Allow: subscribe},
	}
}
