// Package crowd is many raw WebSocket clients of one broker: what tests and figures of a broker under load are made of. Nothing lies between a client and
// the wire, so that what the broker does is seen as it is: every frame, every repetition, every delay.
//
// A Client is one socket. A Peer is a member that keeps its promises as a daemon does: it connects again when it is cut off, sends again what was not
// acknowledged under the same client message id, and acknowledges what it receives. Only tests and the bench may import it.
package crowd
