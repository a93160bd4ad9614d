package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"claudemesh/bus"
)

// maxCallers bounds the bus connections that are kept for tokens; those in use at one time cannot be more either.
const maxCallers = 64

// caller is a token's connection to the bus. The server behind it decides what it may do, and cuts it when the token is revoked.
type caller struct {
	hash   bus.Hash
	grant  bus.Grant
	client *bus.Client
	life   context.Context // ends with the connection

	uses int    // under callers.mu
	last uint64 // under callers.mu: when it was taken last, as a count
}

// callers keeps one connection for each token that asks: a script asks often, and most of a request's cost would be the handshake.
type callers struct {
	bus *bus.Server
	log *slog.Logger

	mu     sync.Mutex
	table  map[bus.Hash]*caller
	count  uint64
	closed bool
}

func newCallers(b *bus.Server, log *slog.Logger) *callers {
	return &callers{bus: b, log: log, table: map[bus.Hash]*caller{}}
}

// take finds or makes the connection of a token. The token is looked up by its SHA-256, so the time that takes tells nothing of it. put gives it back.
func (cs *callers) take(ctx context.Context, token string) (*caller, error) {
	hash := bus.HashToken(token)
	grant, known := cs.bus.Grants().Find(hash)
	switch {
	case !known:
		return nil, refusal(401, "invalid_token", "the daemon does not accept this token: it is unknown, has expired or was revoked")
	case grant.Role == bus.RoleTap:
		return nil, refusal(403, "forbidden", "a tap's token reads the bus with the nats CLI; it cannot ask")
	}
	actor := bus.User
	if grant.Role == bus.RoleSession {
		actor = grant.Actor
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.closed {
		return nil, refusal(503, "shutting_down", "")
	}
	c := cs.table[hash]
	if c != nil && c.client.Conn().IsClosed() {
		delete(cs.table, hash)
		c = nil
	}
	if c == nil {
		if !cs.room() {
			return nil, refusal(503, "busy", "too many tokens are in use at one time")
		}
		life, end := context.WithCancel(context.Background())
		c = &caller{hash: hash, grant: grant, life: life}
		client, err := cs.bus.Client(ctx, bus.ClientConfig{Token: token, Actor: actor, Name: "http", Log: cs.log, OnClosed: end})
		if err != nil {
			end()
		}
		if errors.Is(err, bus.ErrUnauthorized) { // revoked since
			return nil, refusal(401, "invalid_token", "the daemon does not accept this token any more")
		}
		if err != nil {
			return nil, fmt.Errorf("connect caller to bus: %w", err)
		}
		c.client = client
		cs.table[hash] = c
	}
	cs.count++
	c.uses, c.last = c.uses+1, cs.count
	return c, nil
}

// room makes place for one more, by ending the connection that has been out of use for longest.
func (cs *callers) room() bool {
	if len(cs.table) < maxCallers {
		return true
	}
	var oldest *caller
	for _, c := range cs.table {
		if c.uses == 0 && (oldest == nil || c.last < oldest.last) {
			oldest = c
		}
	}
	if oldest == nil {
		return false
	}
	delete(cs.table, oldest.hash)
	oldest.client.Close()
	return true
}

func (cs *callers) put(c *caller) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c.uses--
	if c.uses == 0 && cs.table[c.hash] != c { // replaced meanwhile
		c.client.Close()
	}
}

func (cs *callers) close() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.closed = true
	for _, c := range cs.table {
		c.client.Close()
	}
	clear(cs.table)
}

// actor is the name under which it speaks on the bus.
func (c *caller) actor() string {
	if c.grant.Role == bus.RoleSession {
		return c.grant.Actor
	}
	return bus.User
}

// daemon asks the daemon itself and returns its answer as it is.
func (c *caller) daemon(ctx context.Context, op string, in any) (json.RawMessage, error) {
	return c.do(ctx, bus.DaemonSubject(c.actor(), op), in)
}

// call asks the broker of a mesh.
func (c *caller) call(ctx context.Context, slug, op string, in any) (json.RawMessage, error) {
	return c.do(ctx, bus.CallSubject(slug, c.actor(), op), in)
}

// list is call for an answer that holds a list under name.
func (c *caller) list(ctx context.Context, slug, op string, in any, name string) ([]object, error) {
	raw, err := c.call(ctx, slug, op, in)
	if err != nil {
		return nil, err
	}
	o, err := parse(raw)
	if err != nil {
		return nil, err
	}
	return o.list(name)
}

func (c *caller) do(ctx context.Context, subject string, in any) (json.RawMessage, error) {
	var out json.RawMessage
	if err := c.client.Do(ctx, subject, in, &out); err != nil {
		return nil, err
	}
	return out, nil
}
