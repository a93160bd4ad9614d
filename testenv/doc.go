// Package testenv builds whole meshes for tests: machines (each a HOME of its own with a daemon in it, in process or as a child process), brokers, sessions, and
// the waits a test needs. Everything is real: the embedded server, SQLite files, WebSockets, processes. Only time can be a fake.
//
// Tests only.
package testenv
