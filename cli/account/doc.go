// Package account is a machine's side of an account on a broker: its file, the broker's account routes, and what machines of one account seal for each
// other.
//
// The invariants it keeps: a secret key leaves the machine only sealed for the key of another machine that the user has vouched for, by carrying a code from
// one to the other or by naming the key; a broker that puts a key of its own in between is found out; and the session token is in auth.json (0600) and in
// requests to the broker that gave it, nowhere else.
//
// The command line calls it. Nothing of it is needed on a mesh of one's own: whoever never signs in has no auth.json.
package account
