package daemon

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"claudemesh/bus"
	"claudemesh/daemon/inbox"
	"claudemesh/daemon/session"
	"claudemesh/daemon/wake"
	"claudemesh/wire"
)

// Signs of life, and how often things are repeated.
const (
	shimLease   = 75 * time.Second       // a shim asks at least every 30 s
	waiterLease = 75 * time.Second       // so does a hook that waits
	turnLife    = 5 * time.Minute        // a turn without a sign of a hook for so long is over: an interrupted one ends without a word
	sayEvery    = 45 * time.Second       // "working" is repeated, because brokers take it back after a minute
	offerEvery  = 5 * time.Second        // a message published for the shim, and not reported, is published again
	pokeEvery   = 500 * time.Millisecond // a waiting hook is poked at most so often
	nudgeEvery  = 5 * time.Second
	slowLook    = time.Second // at a transcript that something is awaited in, whatever the system tells of it
	climbAtOnce = 64          // messages of one session that are dealt with at one time, new ones and those that were pushed
)

// climber knows one live session's rungs and drives its messages up to them.
type climber struct {
	l      *ladder
	m      *meshRun
	id     string
	key    string
	cancel context.CancelFunc
	poked  chan struct{} // capacity 1
	status chan string   // capacity 1: the status to tell the broker, the latest only

	mu sync.Mutex
	kept
	clientPID   int // who holds the session; 0: nobody said
	clientStart string
	shimUntil   time.Time
	canNudge    bool
	waiter      string
	waiterUntil time.Time
	transcript  transcript
	lastHook    time.Time
	saidAt      time.Time            // when the status was told last
	offered     map[string]time.Time // published for the shim, not reported yet
	pokedAt     time.Time
	nudgedAt    time.Time
	nudged      map[string]bool
	mode        string // what the session was started with
	nudge       bool
	deaf        time.Time
	unshown     int
}

// kept is what of a climber outlives the daemon's process.
type kept struct {
	Transcript string `json:"transcript,omitempty"`
	Offset     int64  `json:"offset,omitempty"`
	Channel    string `json:"channel,omitempty"` // bus.ChannelProven, bus.ChannelSilent
	Hooks      bool   `json:"hooks,omitempty"`
	Wakes      bool   `json:"wakes,omitempty"`  // the client has started a hook that waits
	Status     string `json:"status,omitempty"` // as a hook told it last
	ClientPID  int    `json:"client_pid,omitempty"`
}

func newClimber(l *ladder, m *meshRun, s session.Session, cancel context.CancelFunc) *climber {
	c := &climber{
		l: l, m: m, id: s.ID, key: s.PublicKey, cancel: cancel, poked: make(chan struct{}, 1), status: make(chan string, 1), offered: map[string]time.Time{}, nudged: map[string]bool{},
		mode: s.MessageMode, nudge: s.Nudge,
	}
	if len(s.Wake) > 0 {
		if err := json.Unmarshal(s.Wake, &c.kept); err != nil {
			l.d.opt.Log.Warn("wake_state_not_recalled", "session", s.ID, "error", err)
		}
		c.lastHook = l.d.opt.Clock.Now()
		if c.kept.ClientPID != 0 {
			c.bind(c.kept.ClientPID)
		}
		if c.Transcript != "" {
			c.transcript.open(c.Transcript, c.Offset)
			l.watch(c, "", c.Transcript)
		}
	}
	c.look()
	return c
}

// look lets the climber go through its messages soon.
func (c *climber) look() {
	select {
	case c.poked <- struct{}{}:
	default:
	}
}

func (c *climber) run(ctx context.Context) {
	clock := c.l.d.opt.Clock
	for {
		next, err := c.step(ctx)
		if err != nil && ctx.Err() == nil {
			c.l.d.opt.Log.Error("wake_failed", "session", c.id, "error", err)
			next = clock.Now().Add(slowLook)
		}
		var due <-chan time.Time
		if !next.IsZero() {
			due = clock.After(max(next.Sub(clock.Now()), time.Millisecond))
		}
		select {
		case <-ctx.Done():
			return
		case <-c.poked:
		case <-due:
		}
	}
}

// step looks for evidence, decides, and acts. It returns when to come again, zero for not before something happens.
func (c *climber) step(ctx context.Context) (next time.Time, err error) {
	if err := c.findEvidence(ctx); err != nil {
		return next, err
	}
	now := c.l.d.opt.Clock.Now()
	if c.unreachable(now) {
		return next, nil
	}
	rows, err := c.due(ctx)
	if err != nil {
		return next, err
	}
	c.mu.Lock()
	facts := c.facts(now)
	plan := wake.Next(facts, now, ladderRows(rows))
	c.deaf, c.unshown = plan.Deaf, plan.Unshown
	if plan.Silent {
		c.Channel = bus.ChannelSilent
		c.l.d.opt.Log.Info("channel_silent", "session", c.id)
		c.keep(ctx)
	}
	var publish []inbox.Waiting
	for _, i := range plan.Channel {
		if at, done := c.offered[rows[i].Message.ID]; !done || now.Sub(at) >= offerEvery {
			c.offered[rows[i].Message.ID] = now
			publish = append(publish, rows[i])
		}
	}
	pokeWaiter := plan.Wake && now.Sub(c.pokedAt) >= pokeEvery
	if pokeWaiter {
		c.pokedAt = now
	}
	nudge := plan.Nudge && now.Sub(c.nudgedAt) >= nudgeEvery && c.news(rows)
	if nudge {
		c.nudgedAt = now
	}
	next = plan.At
	soon := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	switch {
	case len(plan.Channel) > 0:
		soon(now.Add(offerEvery))
	case plan.Wake:
		soon(now.Add(pokeEvery))
	}
	if awaited(rows) && c.transcript.path != "" {
		soon(now.Add(slowLook))
	}
	if facts.Turn == wake.Working && c.Status == wire.StatusWorking {
		soon(now.Add(sayEvery))
		if now.Sub(c.saidAt) >= sayEvery {
			c.saidAt = now
			c.want(wire.StatusWorking)
		}
	}
	c.mu.Unlock()

	slug := c.m.joined.Slug
	for _, item := range c.items(publish) {
		c.l.d.journal.Publish(bus.WakeSubject(slug, c.id, bus.RungChannel), item)
	}
	if pokeWaiter {
		c.l.d.journal.Publish(bus.WakeSubject(slug, c.id, bus.RungWake), struct{}{})
	}
	if nudge {
		c.l.d.journal.Publish(bus.WakeSubject(slug, c.id, bus.RungNudge), bus.Nudge{Unread: plan.Unshown})
	}
	return next, nil
}

// unreachable reports whether the session has no rung at all, as a shell has none: then there is nothing to decide, however much waits for it.
func (c *climber) unreachable(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.facts(now)
	if f.Channel != wake.NoShim || f.Hooks || f.Waiter {
		return false
	}
	c.deaf, c.unshown = time.Time{}, 0
	return true
}

// due are the messages that package wake decides about.
func (c *climber) due(ctx context.Context) ([]inbox.Waiting, error) {
	return c.l.d.inbox.Due(ctx, c.id, bus.ViaDigest, wake.MaxTries, climbAtOnce)
}

// news reports whether something waits that no nudge was for. mu is held.
func (c *climber) news(rows []inbox.Waiting) (fresh bool) {
	now := make(map[string]bool, len(rows))
	for _, r := range rows {
		fresh = fresh || !c.nudged[r.Message.ID]
		now[r.Message.ID] = true
	}
	c.nudged = now
	return fresh
}

func awaited(rows []inbox.Waiting) bool {
	for _, r := range rows {
		if r.State == inbox.DeliveryPushed {
			return true
		}
	}
	return false
}

// facts are what is known now. mu is held.
func (c *climber) facts(now time.Time) wake.Facts {
	f := wake.Facts{
		Transcript: c.transcript.path != "", Hooks: c.Hooks, Waiter: c.waiter != "" && now.Before(c.waiterUntil), Hush: hushed(c.m.modeOf(c.mode)),
	}
	shim := now.Before(c.shimUntil)
	f.Nudge = c.nudge && shim && c.canNudge
	switch {
	case !shim:
	case c.Channel == bus.ChannelProven:
		f.Channel = wake.Proven
	case c.Channel == bus.ChannelSilent:
		f.Channel = wake.Silent
	default:
		f.Channel = wake.Unproven
	}
	switch {
	case c.m.busyByHand(c.id):
		f.Turn = wake.Busy
	case (c.Status == wire.StatusWorking || c.Status == wire.StatusDND) && now.Sub(c.lastHook) < turnLife:
		f.Turn = wake.Working
	case c.Hooks:
		f.Turn = wake.Idle
	}
	return f
}

// hushed reports whether a message mode means that nothing is shown unasked.
func hushed(mode string) bool { return mode != "" && mode != "push" }

// ladderRows are waiting messages as package wake sees them.
func ladderRows(waiting []inbox.Waiting) []wake.Row {
	rungs := map[string]wake.Rung{bus.ViaChannel: wake.OnChannel, bus.ViaWake: wake.OnWake, bus.ViaHook: wake.OnHook, bus.ViaDigest: wake.OnDigest}
	rows := make([]wake.Row, 0, len(waiting))
	for _, w := range waiting {
		r := wake.Row{Urgent: w.Priority == wire.PriorityNow, Low: w.Priority == wire.PriorityLow, ArrivedAt: w.ReceivedAt, PushedAt: w.PushedAt, Tries: w.Tries}
		if w.State == inbox.DeliveryPushed {
			r.Via = rungs[w.PushedVia]
		}
		rows = append(rows, r)
	}
	return rows
}

// items are waiting messages as they are shown: what was handed over before is a repeat.
func (c *climber) items(waiting []inbox.Waiting) []bus.InboxItem {
	out := make([]bus.InboxItem, 0, len(waiting))
	for _, w := range waiting {
		item := c.m.item(c.m.ctx, inbox.Item{Message: w.Message, State: stateOf(w.Message)})
		item.Repeat = w.Tries > 0
		out = append(out, item)
	}
	return out
}

// info is what others are told.
func (c *climber) info() *bus.WakeInfo {
	now := c.l.d.opt.Clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.facts(now)
	w := &bus.WakeInfo{Rung: bus.RungInbox, Hooks: f.Hooks, Waiting: f.Waiter, Nudge: f.Nudge, Unshown: c.unshown}
	switch f.Channel {
	case wake.Unproven:
		w.Channel = bus.ChannelUnproven
	case wake.Proven:
		w.Channel = bus.ChannelProven
	case wake.Silent:
		w.Channel = bus.ChannelSilent
	}
	switch {
	case f.Hush:
	case f.Channel == wake.Unproven || f.Channel == wake.Proven:
		w.Rung = bus.RungChannel
	case f.Waiter:
		w.Rung = bus.RungWake
	case f.Nudge:
		w.Rung = bus.RungNudge
	case f.Hooks:
		w.Rung = bus.RungHook
	}
	if !c.deaf.IsZero() {
		w.DeafSince = c.deaf.UnixMilli()
	}
	return w
}

// keep writes down what outlives this process. mu is held; what cannot be kept is found out again.
func (c *climber) keep(ctx context.Context) {
	c.kept.Transcript, c.kept.Offset, c.kept.ClientPID = c.transcript.path, c.transcript.offset, c.clientPID
	data, err := json.Marshal(c.kept)
	if err == nil {
		err = c.l.d.session.SetWake(ctx, c.id, data)
	}
	if err != nil && ctx.Err() == nil {
		c.l.d.opt.Log.Warn("wake_state_not_kept", "session", c.id, "error", err)
	}
}

// bind notes which client holds the session, and reports whether it is this one: a program that the client started, and that was given the session's
// environment, is another. pid 0 is a client that does not say. mu is held, or nobody else knows c yet.
func (c *climber) bind(pid int) bool {
	if pid == 0 || pid == c.clientPID {
		return true
	}
	if c.clientPID != 0 {
		start, alive, err := c.l.d.opt.Processes.Start(c.clientPID)
		if err != nil || alive && (start == "" || start == c.clientStart) {
			return false
		}
	}
	start, alive, err := c.l.d.opt.Processes.Start(pid)
	if err != nil || !alive {
		return c.clientPID == 0
	}
	c.clientPID, c.clientStart = pid, start
	return true
}

// want asks for a status to be told to the broker; only the latest counts.
func (c *climber) want(status string) {
	for {
		select {
		case c.status <- status:
			return
		default:
		}
		select {
		case <-c.status:
		default:
		}
	}
}

// tell carries statuses to the broker, so that no hook waits for it.
func (c *climber) tell(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case status := <-c.status:
			if err := c.m.sayStatus(ctx, c.id, status); err != nil && ctx.Err() == nil {
				c.l.d.opt.Log.Debug("status_not_told", "session", c.id, "error", err) // it is said again over the next connection
			}
		}
	}
}
