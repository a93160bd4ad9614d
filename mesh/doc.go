// Package mesh is the vocabulary of claudemesh: identities and the strings they
// sign, sealed messages, request fingerprints, targets and how they resolve to
// one key, invites, and the list of joined meshes.
//
// # Invariants
//
//   - A secret leaves an [Identity] only through SecretHex. Printing, logging or
//     marshalling an Identity, a [Joined], a [Config] or an [Invite] by accident
//     shows no secret.
//   - A message is sealed for exactly one key. [Resolve] returns that key or an
//     error; it never picks one of several.
//   - The fingerprint of a request is the same on every machine and in every
//     version. The bytes are fixed by testdata/fingerprint-vectors.json.
//   - config.json is replaced as a whole, under a lock, and a file that cannot be
//     understood is never overwritten.
//
// # Conventions
//
// Ed25519 public keys are 64 lower-case hex digits, secret keys 128 (the 32-byte
// seed followed by the 32-byte public key), signatures 128. Times inside signed
// strings are decimal Unix milliseconds, except in invites, where they are
// seconds. Nothing here opens a network connection, starts a goroutine or reads a
// clock; the only file touched is config.json and its lock.
//
// Every other package may import this one; it imports none of them.
package mesh
