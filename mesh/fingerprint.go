package mesh

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// MaxMeta is the longest metadata of a message in bytes of JSON text.
const MaxMeta = 64 << 10

// ErrBadRequest is wrapped by every refusal to fingerprint a request.
var ErrBadRequest = errors.New("bad request")

// Request is what a sender asked for, before any name was resolved. The zero
// values of ReplyTo, Priority and Meta mean none, "next" and none.
type Request struct {
	Kind     string // "dm", "topic" or "queue"
	Ref      string // the recipient as typed, without its "@"
	ReplyTo  string // id of the message answered
	Priority string // "now", "next" or "low"
	Meta     json.RawMessage
	Body     string
}

// Fingerprint identifies a request: the same client message id with another
// fingerprint is another message, and refused. It is the SHA-256 of
//
//	"1" 00 kind 00 ref 00 reply-to 00 priority 00 canonical meta 00 SHA-256(body)
//
// with the body's digest as 32 raw bytes. Absent and null metadata count as
// nothing; an empty object does not. The bytes are those of the reference client
// and fixed by testdata/fingerprint-vectors.json. Mesh and sender are no part of it.
//
// Bytes that are not UTF-8 count as U+FFFD each, as they do once encoding/json has
// carried them, so that a request keeps its fingerprint across the bus. Errors wrap
// [ErrBadRequest]: unknown kind or priority, or metadata that is not JSON, longer
// than [MaxMeta] or nested deeper than 64 levels.
func Fingerprint(r Request) ([32]byte, error) {
	switch r.Kind {
	case "dm", "topic", "queue":
	default:
		return [32]byte{}, fmt.Errorf("%w: unknown kind %q", ErrBadRequest, r.Kind)
	}
	switch r.Priority {
	case "":
		r.Priority = "next"
	case "now", "next", "low":
	default:
		return [32]byte{}, fmt.Errorf("%w: priority is now, next or low", ErrBadRequest)
	}
	meta, err := canonicalMeta(r.Meta)
	if err != nil {
		return [32]byte{}, fmt.Errorf("%w: meta: %w", ErrBadRequest, err)
	}
	body := sha256.Sum256([]byte(wellFormed(r.Body)))

	h := sha256.New()
	for _, field := range []string{"1", r.Kind, wellFormed(r.Ref), wellFormed(r.ReplyTo), r.Priority, string(meta)} {
		h.Write([]byte(field))
		h.Write([]byte{0})
	}
	h.Write(body[:])
	return [32]byte(h.Sum(nil)), nil
}

// FingerprintOf is [Fingerprint] for a recipient as a user types it: "@x" is the
// topic x, "*" the topic *, everything else (a "#topic" too) a dm to the text as
// typed, all of it trimmed. So one person addressed by name and by key has two
// fingerprints. Beyond Fingerprint it refuses, with [ErrBadRequest], an empty
// recipient, metadata that is no object, and a NUL in recipient or replyTo: the
// fields are joined by NUL, so two different requests could else share one.
func FingerprintOf(to, body, priority, replyTo string, meta json.RawMessage) ([32]byte, error) {
	r := Request{Kind: "dm", Ref: trimECMA(to), ReplyTo: replyTo, Priority: priority, Meta: meta, Body: body}
	switch {
	case r.Ref == "":
		return [32]byte{}, fmt.Errorf("%w: no recipient", ErrBadRequest)
	case strings.ContainsRune(to, 0) || strings.ContainsRune(replyTo, 0):
		return [32]byte{}, fmt.Errorf("%w: NUL in recipient or reply id", ErrBadRequest)
	case r.Ref == "*":
		r.Kind = "topic"
	case r.Ref[0] == '@':
		r.Kind, r.Ref = "topic", r.Ref[1:]
	}
	if m := strings.TrimLeft(string(meta), whiteSpace); m != "" && m[0] != '{' && m[0] != 'n' {
		return [32]byte{}, fmt.Errorf("%w: meta is not an object", ErrBadRequest)
	}
	return Fingerprint(r)
}

// wellFormed replaces each byte that is not UTF-8 by U+FFFD.
func wellFormed(s string) string { return string([]rune(s)) }
