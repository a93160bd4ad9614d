// Package httpapi is the daemon's API for scripts: the reference's /v1 routes and its event stream, on a Unix socket and on loopback TCP.
//
// It holds no rule and no state of its own. A request becomes one or several requests on the bus, made over an in-process connection that has the rights of the
// caller's token and no others, and what the bus answers is the answer: the same JSON, the same code. Where the reference has another name for a field, that name is
// added beside ours; nothing of ours is left out or changed.
//
// Who asks is told by the listener and by the token, never by the shape of a connection. The Unix socket is the user's own (0600, the peer's uid is checked), so a
// request there without a token is the user's. On TCP nothing works without one. A token that is unknown, expired or revoked is refused on both, and never
// stands for less or more than what it says.
package httpapi
