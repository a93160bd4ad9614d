// Package bus is the local bus of claudemesh: an embedded NATS server, the two doors by which programs of this machine reach it, the table of who may
// connect and what they may say and hear, the subject names, and the client that every local program uses.
//
// Invariants kept here and nowhere else:
//   - Nobody speaks in another's name. The caller's name is a token of the subject, pinned by the publish permission of its credential, and an answer
//     goes to nobody but the inbox of that name.
//   - An unknown, expired or revoked token is refused. It never falls back to a wider scope, and a revoked one loses its live connections.
//   - A tap reads and never writes: it lives in a NATS account of its own, so that even the server's answers to it cannot leave that account.
//   - No listener is reachable from another machine, and no input on any of them ends the process.
//
// The daemon is the only caller of [StartServer], a broker that runs by itself of [StartStore]; the CLI and the MCP shim use [Connect]. No other package
// spells a subject.
package bus
