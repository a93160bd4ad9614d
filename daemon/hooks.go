package daemon

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"claudemesh/bus"
	"claudemesh/daemon/inbox"
	"claudemesh/daemon/session"
	"claudemesh/daemon/wake"
	"claudemesh/wire"
)

// The requests of a client's hooks. They are answered from memory and from the stores of this machine: a hook holds up the client.

// Events of a client that mean something here, by the names that Claude Code gives them.
const (
	eventSessionStart = "SessionStart"
	eventPrompt       = "UserPromptSubmit"
	eventToolDone     = "PostToolUse"
	eventStop         = "Stop"
	eventNotification = "Notification"
	eventSessionEnd   = "SessionEnd"
)

// Bounds of what one hook hands over: the client cuts longer texts.
const (
	hookItems   = 10
	hookPerPeer = 5
	hookBytes   = 8 << 10 // of message texts; a longer single one is handed over alone
)

// hook is one event of the client of a session.
func (d *Daemon) hook(ctx context.Context, c *bus.Call) (any, error) {
	var ev bus.HookEvent
	if err := c.Decode(&ev); err != nil {
		return nil, err
	}
	if len(ev.Conversation) > wire.MaxIDBytes || len(ev.Transcript) > wire.MaxTextBytes || len(ev.Seen) > hookSeen {
		return nil, &bus.APIError{Code: 400, Reason: "bad_event", Detail: "conversation, transcript or seen are too long"}
	}
	s, token, err := d.hookSession(ctx, c, ev)
	if err != nil || s.ID == "" {
		return bus.HookReply{}, err
	}
	climber := d.ladder.of(s.ID)
	if climber == nil {
		return bus.HookReply{}, nil
	}
	reply, err := climber.hook(ctx, ev)
	if err != nil {
		return nil, err
	}
	if reply.Session != "" {
		reply.Mesh, reply.Name, reply.TokenFile = s.Mesh, s.Name, token
	}
	return reply, nil
}

// hookSeen bounds the ids that a hook may report.
const hookSeen = 256

// hook notes what an event tells, and hands over what waits if the event is a boundary.
func (c *climber) hook(ctx context.Context, ev bus.HookEvent) (bus.HookReply, error) {
	now := c.l.d.opt.Clock.Now()
	c.mu.Lock()
	if !c.bind(ev.PID) {
		c.mu.Unlock()
		return bus.HookReply{}, nil // of a client inside of the client
	}
	if err := c.follow(ctx, ev); err != nil {
		c.mu.Unlock()
		return bus.HookReply{}, err
	}
	first := !c.Hooks
	c.Hooks, c.lastHook = true, now
	if first {
		c.keep(ctx)
	}
	c.mu.Unlock()
	if err := c.evidence(ctx, ev, now); err != nil {
		return bus.HookReply{}, err
	}
	if ev.Event == eventPrompt && ev.ByUser {
		c.l.d.guard.userTurn(c.id)
	}
	reply := bus.HookReply{Session: c.id}
	status := statusOf(ev)
	if ev.Drain {
		boundary, ok := boundaryOf(ev.Event)
		c.mu.Lock()
		wakes := c.Wakes
		c.mu.Unlock()
		// At the end of a turn a hook that waits does it better: the client shows a Stop hook's reason to its model twice.
		if ok && !(boundary == wake.Stop && wakes) {
			var err error
			if reply.Items, reply.More, err = c.take(ctx, boundary, bus.ViaHook); err != nil {
				return bus.HookReply{}, err
			}
		}
		if ev.Event == eventStop && len(reply.Items)+len(reply.More) > 0 {
			status = wire.StatusWorking // the turn goes on
		}
	}
	c.become(ctx, status, now)
	c.look()
	return reply, nil
}

func boundaryOf(event string) (wake.Boundary, bool) {
	switch event {
	case eventPrompt:
		return wake.Prompt, true
	case eventToolDone:
		return wake.Tool, true
	case eventStop:
		return wake.Stop, true
	}
	return 0, false
}

// statusOf is the status that an event means, "" for none.
func statusOf(ev bus.HookEvent) string {
	switch ev.Event {
	case "":
		switch ev.Status {
		case wire.StatusIdle, wire.StatusWorking, wire.StatusDND:
			return ev.Status
		}
	case eventSessionStart, eventStop, eventSessionEnd:
		return wire.StatusIdle
	case eventPrompt, eventToolDone:
		return wire.StatusWorking
	case eventNotification:
		switch ev.Notification {
		case "permission_prompt":
			return wire.StatusDND // it waits for its user, and takes nothing until then
		case "idle_prompt":
			return wire.StatusIdle
		}
	}
	return ""
}

// become enters a status that a hook told. What was said by hand stays: nobody's dnd is lifted by a tool that ends.
func (c *climber) become(ctx context.Context, status string, now time.Time) {
	if status == "" || c.m.dndByHand(c.id) {
		return
	}
	c.mu.Lock()
	changed := c.Status != status
	c.Status = status
	if changed || now.Sub(c.saidAt) >= sayEvery {
		c.saidAt = now
		c.want(status)
	}
	if changed {
		c.keep(ctx)
	}
	if status != wire.StatusIdle {
		c.endWaiter()
	}
	c.mu.Unlock()
}

// follow takes up the conversation that the client is in. mu is held.
func (c *climber) follow(ctx context.Context, ev bus.HookEvent) error {
	if ev.Event == eventSessionEnd {
		return nil // of a conversation that is over
	}
	if ev.Transcript != "" && ev.Transcript != c.transcript.path && filepath.IsAbs(ev.Transcript) {
		before := c.transcript.path
		// What a resumed conversation holds from before proves nothing about now.
		c.transcript.open(ev.Transcript, -1)
		c.l.watch(c, before, ev.Transcript)
		c.keep(ctx)
	} else if c.transcript.path != "" {
		c.l.watch(c, "", c.transcript.path) // it may not have been there before
	}
	return c.l.d.noteConversation(ctx, c.id, ev.Conversation)
}

// evidence is what an event tells about messages that hooks carried before.
func (c *climber) evidence(ctx context.Context, ev bus.HookEvent, now time.Time) error {
	if err := c.seenIDs(ctx, inbox.EvidenceTurn, ev.Seen); err != nil {
		return err
	}
	if ev.Event != eventToolDone && ev.Event != eventStop {
		return nil
	}
	rows, err := c.l.d.inbox.PushedBy(ctx, c.id, bus.ViaHook, now)
	if err != nil {
		return err
	}
	return c.seen(ctx, inbox.EvidenceTurn, rows)
}

// take hands over what a boundary may show, marks it as pushed, and counts what is left out.
func (c *climber) take(ctx context.Context, b wake.Boundary, via string) ([]bus.InboxItem, []bus.Withheld, error) {
	rows, err := c.due(ctx)
	if err != nil || len(rows) == 0 {
		return nil, nil, err
	}
	now := c.l.d.opt.Clock.Now()
	c.mu.Lock()
	picked := wake.Take(c.facts(now), b, now, ladderRows(rows))
	c.mu.Unlock()
	var shown []inbox.Waiting
	var left []string
	var more []bus.Withheld
	perPeer, size := map[string]int{}, 0
	for _, i := range picked {
		w := rows[i]
		fits := len(shown) < hookItems && perPeer[w.SenderKey] < hookPerPeer && (len(shown) == 0 || size+len(w.Body) <= hookBytes)
		if !fits {
			left = append(left, w.Message.ID)
			more = count(more, w.SenderName)
			continue
		}
		perPeer[w.SenderKey]++
		size += len(w.Body)
		shown = append(shown, w)
	}
	ids := make([]string, 0, len(shown))
	for _, w := range shown {
		ids = append(ids, w.Message.ID)
	}
	if err := c.l.d.inbox.Pushed(ctx, c.id, ids, via); err != nil {
		return nil, nil, fmt.Errorf("mark pushed: %w", err)
	}
	if err := c.l.d.inbox.Pushed(ctx, c.id, left, bus.ViaDigest); err != nil {
		return nil, nil, fmt.Errorf("mark counted: %w", err)
	}
	return c.items(shown), more, nil
}

func count(more []bus.Withheld, name string) []bus.Withheld {
	for i := range more {
		if more[i].FromName == name {
			more[i].Count++
			return more
		}
	}
	return append(more, bus.Withheld{FromName: name, Count: 1})
}

// hookWait is a hook that waits to wake its client.
func (d *Daemon) hookWait(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.HookWait
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	if req.Waiter == "" || len(req.Waiter) > wire.MaxIDBytes {
		return nil, &bus.APIError{Code: 400, Reason: "bad_waiter", Detail: "a hook that waits names itself"}
	}
	s, _, err := d.hookSession(ctx, c, bus.HookEvent{Event: req.Event, Conversation: req.Conversation, PID: req.PID, Cwd: req.Cwd})
	if err != nil || s.ID == "" {
		return bus.HookReply{Over: true}, err
	}
	climber := d.ladder.of(s.ID)
	if climber == nil {
		return bus.HookReply{Over: true}, nil
	}
	reply, err := climber.wait(ctx, req)
	reply.Mesh, reply.Name = s.Mesh, s.Name
	return reply, err
}

// wait admits a hook that waits, or hands over to it: the newest one holds the place, and a client that works needs none.
func (c *climber) wait(ctx context.Context, req bus.HookWait) (bus.HookReply, error) {
	now := c.l.d.opt.Clock.Now()
	c.mu.Lock()
	switch {
	case !c.bind(req.PID):
		c.mu.Unlock()
		return bus.HookReply{Over: true}, nil
	case req.First, c.waiter == "" && c.Status != wire.StatusWorking && c.Status != wire.StatusDND: // the second: it waited for a session that this one took the place of
		c.endWaiter()
		c.waiter = req.Waiter
		if !c.Wakes || !c.Hooks {
			c.Wakes, c.Hooks = true, true
			c.keep(ctx)
		}
	case c.waiter != req.Waiter:
		c.mu.Unlock()
		return bus.HookReply{Over: true}, nil
	}
	c.waiterUntil = now.Add(waiterLease)
	c.mu.Unlock()
	items, more, err := c.take(ctx, wake.Waiting, bus.ViaWake)
	if err != nil {
		return bus.HookReply{}, err
	}
	if len(items)+len(more) > 0 {
		c.mu.Lock()
		if c.waiter == req.Waiter {
			c.waiter = ""
		}
		c.mu.Unlock()
	}
	c.look()
	return bus.HookReply{Session: c.id, Items: items, More: more}, nil
}

// endWaiter lets a hook that waits end: it asks, and is told that it is over. mu is held.
func (c *climber) endWaiter() {
	if c.waiter == "" {
		return
	}
	c.waiter = ""
	c.l.d.journal.Publish(bus.WakeSubject(c.m.joined.Slug, c.id, bus.RungWake), struct{}{})
}

// hookSession is the session that a hook belongs to; none when there is none, which is not an error. A hook that acts as the user is one of a client that
// nobody launched.
func (d *Daemon) hookSession(ctx context.Context, c *bus.Call, ev bus.HookEvent) (s session.Session, tokenFile string, err error) {
	if c.Actor != bus.User {
		s, err = d.session.Get(ctx, c.Actor)
		if err != nil || !s.EndedAt.IsZero() {
			return session.Session{}, "", nil
		}
		return s, "", nil
	}
	return d.attached(ctx, ev)
}
