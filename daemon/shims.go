package daemon

import (
	"context"
	"fmt"

	"claudemesh/bus"
	"claudemesh/daemon/inbox"
	"claudemesh/daemon/wake"
)

// The requests of MCP shims.

// shim is said by a shim whose client is ready.
func (d *Daemon) shim(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.Shim
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	climber, err := d.climberOf(c)
	if err != nil {
		return nil, err
	}
	s, err := d.session.Get(ctx, c.Actor)
	if err != nil {
		return nil, &bus.APIError{Code: 404, Reason: "no_session", Detail: "this session is not registered any more"}
	}
	quiet := !climber.attach(ctx, req)
	return bus.ShimState{SessionInfo: d.sessionInfo(s), Quiet: quiet, Member: climber.m.joined.Pubkey}, nil
}

// climberOf is the climber of the session that calls.
func (d *Daemon) climberOf(c *bus.Call) (*climber, error) {
	if c.Actor == bus.User {
		return nil, &bus.APIError{Code: 400, Reason: "no_session", Detail: "only a session is woken; the user lists its inbox"}
	}
	if climber := d.ladder.of(c.Actor); climber != nil {
		return climber, nil
	}
	return nil, &bus.APIError{Code: 404, Reason: "no_session", Detail: "this session is not registered any more"}
}

// attach notes that a shim is there, and reports whether its client is the one that holds the session.
func (c *climber) attach(ctx context.Context, req bus.Shim) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.clientPID
	if !c.bind(req.PID) {
		return false
	}
	if before != c.clientPID {
		if before != 0 {
			c.Channel = "" // another client: what is known of the channel was of the one before
		}
		c.keep(ctx)
	}
	c.shimUntil, c.canNudge = c.l.d.opt.Clock.Now().Add(shimLease), req.CanNudge
	clear(c.offered)
	c.look()
	return true
}

// markPushed notes what a shim has written to its client.
func (d *Daemon) markPushed(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.MessageIDs
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	climber, err := d.climberOf(c)
	if err != nil {
		return nil, err
	}
	if req.Via != bus.ViaChannel && req.Via != bus.ViaDigest {
		return nil, &bus.APIError{Code: 400, Reason: "no_way", Detail: "a shim pushes by channel or digest"}
	}
	if err := d.inbox.Pushed(ctx, c.Actor, req.IDs, req.Via); err != nil {
		return nil, fmt.Errorf("mark pushed: %w", err)
	}
	climber.mu.Lock()
	for _, id := range req.IDs {
		delete(climber.offered, id)
	}
	climber.mu.Unlock()
	climber.look()
	return bus.Count{N: len(req.IDs)}, nil
}

// pendingLimit is how many messages one inbox-pending returns; the shim asks again until it gets fewer.
const pendingLimit = 100

// pendingInbox lists what a session has not been shown: all of it, or with via channel what the ladder gives to its shim now. To ask so is a sign of life of
// the shim.
func (d *Daemon) pendingInbox(ctx context.Context, c *bus.Call) (any, error) {
	var q bus.InboxQuery
	if err := c.Decode(&q); err != nil {
		return nil, err
	}
	climber, err := d.climberOf(c)
	if err != nil {
		return nil, err
	}
	var rows []inbox.Waiting
	if q.Via == bus.ViaChannel {
		if rows, err = climber.due(ctx); err == nil {
			rows = climber.offer(rows)
		}
	} else {
		rows, err = d.inbox.Waiting(ctx, c.Actor, pendingLimit)
	}
	if err != nil {
		return nil, fmt.Errorf("list pending messages: %w", err)
	}
	out := bus.InboxList{Items: climber.items(rows[:min(len(rows), pendingLimit)]), Unread: len(rows)}
	out.Items = out.Items[:fitting(out.Items)]
	return out, nil
}

// offer picks what a shim is to show now.
func (c *climber) offer(rows []inbox.Waiting) (give []inbox.Waiting) {
	now := c.l.d.opt.Clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Before(c.shimUntil) {
		c.shimUntil = now.Add(shimLease)
	}
	for _, i := range wake.Next(c.facts(now), now, ladderRows(rows)).Channel {
		c.offered[rows[i].Message.ID] = now
		give = append(give, rows[i])
	}
	return give
}
