// Package broker is the self-hosted broker: it accepts sealed messages over WebSockets, keeps them in JetStream and hands them to whoever owns the
// mailbox they are addressed to. It never sees a plain text of a direct message and holds no member's secret.
//
// The invariant: once a send is answered with queued:true, the message survives the death of the process (and, on a store that syncs always, of the
// machine) and is pushed until its recipient has acknowledged it, expired mail excepted; and a client message id of one member stands for one message
// for ever (that is, for Limits.Retention), however often it is sent.
//
// # How a message travels
//
//   - Acceptance is one conditional write to the stream CM_ACCEPT: the whole message on a subject made of the mesh and the message id, expected to be
//     unused. The message id is a keyed hash of mesh, sending member and client message id, so this one write is the acceptance and the record that
//     recognises a repetition, and any message can be found by its id. What arrives at the same time is written in one
//     batch, with one fsync. Ids are deduplicated per sending member: no member can use up another's ids.
//   - The fan-out reads CM_ACCEPT in order and writes one small reference per mailbox to the stream CM_MAIL. It remembers how far it came; after a crash
//     it starts again from there, and leaves out what it finds written. That is the normal way too: there is no second one.
//   - A mailbox is a subject (mesh, key). A connection reads the mailboxes of the keys it has proven, from the oldest reference on; new ones reach it by
//     the stream's republished copies, and a gap in those sends it back to the stream.
//   - A push that is not acknowledged within 30 s is pushed again, on the same connection or the next one.
//   - A reference is deleted when a client acknowledges the push, or, for clients that never do (the reference up to 1.30), when the socket took the
//     bytes and no acknowledging connection reads the same mailbox.
//   - Receipts are mail of their own (subject rcp), addressed to the sending member.
//
// Sends are limited per member if the broker or the team says so; a repetition of an accepted message is never refused for that. Beyond it the store's pace
// reaches the client as backpressure, because only a bounded number of sends per connection may wait for it.
// One process owns a store; presence and the caches live in that process.
//
// The broker is used by the daemon (a mesh made without an address) and by the command "broker serve"; nobody else may import it.
package broker
