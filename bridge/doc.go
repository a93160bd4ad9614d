// Package bridge holds one mesh's links to its broker: dial, hello, reconnect, correlation of requests with answers, and the hand-over of what the
// broker pushes.
//
// A Link is one WebSocket under one identity that reconnects by itself; a Mesh is the member's link plus one link for each session of that mesh.
//
// The invariants:
//   - A push is acknowledged to the broker only after its handler has returned nil, that is after it was stored. A handler error, a lost connection or a
//     crash leaves it unacknowledged, and the broker delivers it again; handlers therefore deduplicate.
//   - Pushes of one link reach the handler one at a time, in the order of arrival.
//   - Send reports success only with the broker's ack in hand. Whatever ends the connection first gives ErrLost: the outcome is unknown, and the caller
//     repeats the same message under the same id.
//   - A broker that refuses, vanishes, stalls or talks nonsense costs a bounded amount of memory and a reconnect after a backoff, never a hot loop.
//
// The daemon and the cold path of the CLI are the callers. The package neither reads configuration nor stores anything.
package bridge
