// Package wire is the broker protocol: the JSON frames that travel over one WebSocket between a client and a broker.
//
// Bridge and broker both encode and decode through this package, so the two cannot disagree about a field's name, presence or limit. A frame is one
// JSON object in one WebSocket text message; its discriminator is the string field "type"; a request may carry "_reqId", which the answer echoes. Field
// names, key order freedom and limits are those of the reference protocol (version 1); what is added here is additive, announced as a capability in the
// hello frame, and ignored by clients and brokers that do not know it.
//
// The invariant: no input makes a decoder panic or allocate more than a small multiple of its length, and a frame that fails validation never reaches
// a handler.
package wire
