// Package faultproxy stands between a daemon and a broker in tests and makes the network fail on command: cut, refused, slow, or, when it speaks
// WebSocket itself, with single frames dropped, doubled, held back or made up.
//
// The invariant: what it does to the traffic is what the test asked for and nothing else; bytes and frames pass in order, each direction on its own, and
// Close leaves no goroutine and no connection behind. Only tests use it; it listens on 127.0.0.1.
package faultproxy
