// Package daemon is the per-user process: it holds the lock, wires the rooms together and answers the requests of the local bus.
//
// What it keeps true: a send that was answered 202 is committed in the outbox; a push is acknowledged to the broker only after the inbox has it; every
// piece of state has one writer, and that writer is here; nothing a client, a peer or a broker sends ends the process; and when the process ends, by
// whatever means, the next start continues where it stopped.
//
// Package cli runs it (daemon up, broker serve); nobody else calls it.
package daemon
