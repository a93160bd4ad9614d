// Package conformance asks a broker, over real sockets and with raw frames, whether it speaks the protocol: every core message type, the way the
// reference broker was measured to answer it, and the points where its measured behaviour is a defect and must be corrected.
//
// The invariant: a check judges frames only, so it says the same of this broker, of a reference broker, and of anybody else's. It knows nothing of the
// broker's process, store or clock.
//
// The command `claudemesh broker check URL` and the tests of testenv run it. It creates members, records and messages in the mesh it is given, under names
// that begin with "check-", and removes what the protocol lets it remove; use a mesh made for it.
package conformance
