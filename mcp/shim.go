package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/nats-io/nats.go"

	"claudemesh/bus"
	"claudemesh/mcp/feed"
	"claudemesh/mcp/frame"
)

// pendingLimit is how many missed messages are asked for at once.
const pendingLimit = 100

// rememberCounted is of how many messages it is remembered that they were only counted, should a report be lost.
const rememberCounted = 16384

// shim carries messages from the bus to the client.
type shim struct {
	Config
	conn    *stdio
	log     *slog.Logger
	account *account
	link    *link
	flood   *flood
	nudger  *nudger
	skills  *skills

	once  sync.Once
	ready chan struct{} // closed when the client has initialized us
	// client is the MCP client's name and version; written before ready is closed.
	client string

	// Of the feed, which runs one step at a time.
	quiet   bool                             // another client holds the session
	hush    bool                             // nothing is to be shown unasked, for that or the member's choice
	counted *simplelru.LRU[string, struct{}] // delivered, but not shown
}

func newShim(cfg Config, conn *stdio, log *slog.Logger) *shim {
	l := newLink()
	counted, _ := simplelru.NewLRU[string, struct{}](rememberCounted, nil) // fails for sizes under 1
	return &shim{
		Config: cfg, conn: conn, log: log, account: &account{Config: cfg}, link: l, flood: newFlood(cfg.Clock), nudger: newNudger(cfg, log), skills: newSkills(cfg.Clock, l, conn, log),
		ready: make(chan struct{}), counted: counted,
	}
}

func (s *shim) initialized(p *sdk.InitializeParams) {
	s.once.Do(func() {
		if p != nil && p.ClientInfo != nil {
			s.client = frame.Line(strings.TrimSpace(p.ClientInfo.Name + " " + p.ClientInfo.Version))
		}
		close(s.ready)
	})
}

// feed shows messages until ctx ends or the client cannot be written to.
func (s *shim) feed(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.ready:
	}
	settled := s.Clock.After(s.Settle)
	return feed.Run(ctx, feed.Config{
		Connect: s.connect, Missed: s.missed, Deliver: s.deliver, Report: s.report, Repeats: true,
		Subjects: func(ctx context.Context, client *bus.Client) ([]string, error) {
			subjects, err := s.subjects(ctx, client)
			if settled != nil && err == nil {
				select {
				case <-ctx.Done():
					return nil, ctx.Err()
				case <-settled:
					settled = nil
				}
			}
			return subjects, err
		},
		Connected: func() { s.log.Info("connected to the daemon") },
		Clock:     s.Clock, Log: s.log,
	})
}

func (s *shim) connect(ctx context.Context) (*bus.Client, error) {
	s.link.set(nil)
	client, actor, err := s.account.connect(ctx, "claudemesh mcp")
	if err != nil {
		return nil, err
	}
	me, err := s.introduce(ctx, client, actor)
	if err != nil {
		s.account.forget(err)
		client.Close()
		return nil, err
	}
	s.link.set(&session{client: client, actor: actor, slug: me.Mesh, pubkey: me.Pubkey})
	return client, nil
}

// introduce tells the daemon that this session has a shim, and learns who the session is and whether anything is to be shown here.
func (s *shim) introduce(ctx context.Context, client *bus.Client, actor string) (bus.ShimState, error) {
	var me bus.ShimState
	req := bus.Shim{PID: s.PID, Client: s.client, CanNudge: s.nudger.able()}
	if err := client.Do(ctx, bus.DaemonSubject(actor, bus.OpShim), req, &me); err != nil {
		return me, fmt.Errorf("ask who this session is: %w", err)
	}
	if me.Quiet && !s.quiet {
		s.log.Info("another client holds this session: its messages are shown there")
	}
	s.quiet, s.hush = me.Quiet, hushed(me)
	s.flood.isOf(me.Member)
	return me, nil
}

func hushed(me bus.ShimState) bool {
	return me.Quiet || me.MessageMode != "" && me.MessageMode != "push"
}

// subjects are what this session hears beside the news of skills: what the daemon wants shown here, unless nothing is to be.
func (s *shim) subjects(_ context.Context, client *bus.Client) ([]string, error) {
	me := s.link.get()
	if me == nil {
		return nil, bus.ErrInterrupted
	}
	s.skills.refresh()
	if err := s.listen(client, bus.EventSubject(me.slug, eventSkillChange), func(*nats.Msg) { s.skills.refresh() }); err != nil {
		return nil, err
	}
	if !s.quiet && s.nudger.able() {
		if err := s.listen(client, bus.WakeSubject(me.slug, me.actor, bus.RungNudge), s.nudger.heard); err != nil {
			return nil, err
		}
	}
	if s.hush {
		return nil, nil
	}
	return []string{bus.WakeSubject(me.slug, me.actor, bus.RungChannel)}, nil
}

// listen subscribes for the life of the connection. What may not be heard is done without.
func (s *shim) listen(client *bus.Client, subject string, heard func(*nats.Msg)) error {
	_, err := client.Subscribe(subject, heard)
	if errors.Is(err, bus.ErrDenied) {
		s.log.Warn("not allowed to listen", "subject", subject)
		return nil
	}
	return err
}

// errMode ends a connection, so that the next one listens as it is wanted now.
var errMode = errors.New("whether messages are shown here has changed")

// missed asks for what should have been shown here. It is also where a change of mind is noticed: of the member, who may want to be shown nothing unasked, and
// of the daemon, when the client that held the session has gone.
func (s *shim) missed(ctx context.Context, client *bus.Client) ([]bus.InboxItem, error) {
	me := s.link.get()
	if me == nil {
		return nil, bus.ErrInterrupted
	}
	was := s.hush
	if s.quiet {
		if _, err := s.introduce(ctx, client, me.actor); err != nil {
			return nil, err
		}
	} else {
		var now bus.ShimState
		if err := me.daemon(ctx, bus.OpSessionMe, struct{}{}, &now.SessionInfo); err != nil {
			return nil, fmt.Errorf("ask who this session is: %w", err)
		}
		s.hush = hushed(now)
	}
	switch {
	case s.hush != was:
		return nil, errMode
	case s.hush:
		return nil, nil
	}
	var list bus.InboxList
	if err := me.daemon(ctx, bus.OpInboxPending, bus.InboxQuery{Limit: pendingLimit, Via: bus.ViaChannel}, &list); err != nil {
		return nil, fmt.Errorf("ask for missed messages: %w", err)
	}
	return list.Items, nil
}

// deliver writes one message to the client, unless its sender floods, or is this session itself.
func (s *shim) deliver(ctx context.Context, item bus.InboxItem) error {
	if s.echo(item) || !s.flood.admit(item) {
		s.counted.Add(item.ID, struct{}{})
		return nil
	}
	content, meta := frame.Channel(item)
	return s.show(ctx, content, meta)
}

// echo reports whether a message is this session's own, come back. The daemon sees to that; this is the second look. A reminder is news to its author, too.
func (s *shim) echo(item bus.InboxItem) bool {
	me := s.link.get()
	return me != nil && me.pubkey != "" && item.FromKey == me.pubkey && item.Kind != frame.KindReminder && item.Subtype != frame.KindReminder
}

// tell shows what the flood gate has counted, as it becomes due.
func (s *shim) tell(ctx context.Context) error {
	return s.flood.run(ctx, func(ctx context.Context, last bus.InboxItem, n int) error {
		content, meta := frame.Digest(last, n)
		return s.show(ctx, content, meta)
	})
}

// show writes one notification.
func (s *shim) show(ctx context.Context, content string, meta map[string]string) error {
	raw, err := json.Marshal(channelParams{content, meta})
	if err != nil {
		return fmt.Errorf("encode channel message: %w", err)
	}
	return s.conn.Notify(ctx, methodChannel, raw)
}

// report tells the daemon what was written to the client, and what was only counted.
func (s *shim) report(ctx context.Context, _ *bus.Client, ids []string) error {
	me := s.link.get()
	if me == nil {
		return bus.ErrInterrupted
	}
	byVia := map[string][]string{}
	for _, id := range ids {
		via := bus.ViaChannel
		if s.counted.Contains(id) {
			via = bus.ViaDigest
		}
		byVia[via] = append(byVia[via], id)
	}
	for via, some := range byVia {
		if err := me.daemon(ctx, bus.OpInboxPushed, bus.MessageIDs{IDs: some, Via: via}, nil); err != nil {
			return err
		}
	}
	return nil
}
