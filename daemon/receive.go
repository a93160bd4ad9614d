package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/daemon/inbox"
	"claudemesh/daemon/session"
	"claudemesh/daemon/spans"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// Push is called by the bridge for everything the broker pushes, messages in batches. nil means that they are stored (or are no messages), and the bridge
// acknowledges them, with what this machine says of each; an error means that not all are, and the broker will send them again.
func (m *meshRun) Push(ctx context.Context, src bridge.Source, batch []wire.Push) ([]wire.ClientAck, error) {
	if p := batch[0]; !p.Kept() {
		m.system(src, p)
		return nil, nil
	}
	live, err := m.sessions(ctx)
	if err != nil {
		return nil, err
	}
	holders := live
	if src.Session != "" && !slices.ContainsFunc(live, func(s session.Session) bool { return s.PublicKey == src.Key }) {
		// The session ended while this was on its way. Its key is kept for the next session of its name, and opens it for that one.
		s, err := m.d.session.Get(ctx, src.Session)
		if err != nil || s.PublicKey != src.Key {
			return nil, errKeyGone
		}
		holders = append(slices.Clip(live), s)
	}
	begin := m.d.opt.Clock.Now()
	acks := make([]wire.ClientAck, len(batch))
	arrivals, places := make([]inbox.Arrival, 0, len(batch)), make([]int, 0, len(batch))
	for i, p := range batch {
		if p.SenderPubkey == "" || p.MessageID == "" && p.ClientMessageID == "" {
			// It cannot be stored, and refusing it would hold up all mail behind it for ever.
			m.d.opt.Log.Warn("push_dropped", "mesh", m.joined.Slug, "why", "it names no sender or no id")
			continue
		}
		msg := m.open(src, p, holders)
		concerned := m.concerned(msg, live)
		if m.echo(msg) && len(concerned) == 0 {
			if msg.ToKind == inbox.ToTopic && !msg.Undecryptable {
				m.announce(msg, nil) // whoever follows the topic wants to see it pass
			}
			m.answered(ctx, msg) // a session of ours may well answer its user
			continue             // of our own multicast, and nobody else here to hear it
		}
		arrivals, places = append(arrivals, inbox.Arrival{Message: msg, Sessions: concerned}), append(places, i)
	}
	if len(arrivals) == 0 {
		return acks, nil
	}
	stored, err := m.d.inbox.Insert(ctx, arrivals...)
	if err != nil {
		return nil, err
	}
	for i, s := range stored {
		acks[places[i]] = m.delivered(src, batch[places[i]], s.Message, holders)
		if s.Inserted {
			m.d.figures.received.Inc()
			m.step(spans.Span{
				Name: spans.Receive, ID: s.Message.ClientMessageID, Begin: begin, FailureText: s.Message.Reason,
				Attributes: map[string]string{"claudemesh.kind": kindOf(s.Message), "claudemesh.broker_message_id": s.Message.BrokerMessageID},
			})
		}
		if s.Inserted && s.Message.Undecryptable {
			m.d.figures.closed.Inc()
		}
		if s.Inserted && !stillClosed(s.Message) {
			m.answered(ctx, s.Message)
			m.announce(s.Message, arrivals[i].Sessions)
		} else if s.Inserted {
			m.topics.refresh()
		}
	}
	return acks, nil
}

// errKeyGone leaves a message at the broker until a link of its key takes it.
var errKeyGone = errors.New("the session that this message is for has ended")

func (m *meshRun) sessions(ctx context.Context) ([]session.Session, error) {
	live, err := m.d.session.Live(ctx)
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	return slices.DeleteFunc(live, func(s session.Session) bool { return s.Mesh != m.joined.Slug }), nil
}

// echo reports whether a message is this member's own come back. A reminder is news to its author, too.
func (m *meshRun) echo(msg inbox.Message) bool {
	return msg.SenderMemberKey == m.joined.Pubkey && msg.ToKind != inbox.ToSession && msg.Subtype != wire.SubtypeReminder
}

// concerned lists the sessions that a message is for: the one addressed, all of the member's, or those in the group; never the one that sent it, but for a
// reminder, which is news to its author, too.
func (m *meshRun) concerned(msg inbox.Message, live []session.Session) []string {
	var out []string
	for _, s := range live {
		switch {
		case s.PublicKey == msg.SenderKey && msg.Subtype != wire.SubtypeReminder:
		case msg.ToKind == inbox.ToSession && s.PublicKey != msg.RecipientKey:
		case msg.ToKind == inbox.ToGroup && !inGroup(s, strings.TrimPrefix(msg.TargetSpec, "@")):
		default:
			out = append(out, s.ID)
		}
	}
	return out
}

func inGroup(s session.Session, group string) bool {
	return slices.ContainsFunc(s.Groups, func(g string) bool { return mesh.GroupReaches(group, decodeGroup(g).Name) })
}

// announce publishes a stored message: to each session concerned on its own subject, and once on the subject of its kind for taps and the user's inbox.
func (m *meshRun) announce(msg inbox.Message, sessions []string) {
	slug := m.joined.Slug
	m.sender(m.ctx, msg, true)
	item := m.item(m.ctx, inbox.Item{Message: msg, State: stateOf(msg)})
	for _, id := range sessions {
		m.d.journal.Publish(bus.SessionMsgSubject(slug, id), item)
	}
	m.d.ladder.poke(sessions...)
	switch msg.ToKind {
	case inbox.ToSession:
		// Nobody of this name runs. The user and the taps may hear of it, another session may not: the key stands where no session's id can.
		if len(sessions) == 0 {
			m.d.journal.Publish(bus.SessionMsgSubject(slug, msg.RecipientKey), item)
		}
	case inbox.ToGroup:
		m.d.journal.Publish(bus.GroupMsgSubject(slug, strings.TrimPrefix(msg.TargetSpec, "@")), item)
	case inbox.ToTopic:
		m.d.journal.Publish(bus.TopicMsgSubject(slug, strings.TrimPrefix(msg.TargetSpec, "#")), item)
	case inbox.ToAll:
		m.d.journal.Publish(bus.AllMsgSubject(slug), item)
	default:
		m.d.journal.Publish(bus.MemberMsgSubject(slug), item)
	}
}

func stateOf(msg inbox.Message) string {
	if msg.Undecryptable {
		return inbox.StateUndecryptable
	}
	return inbox.StateDelivered
}

// addressee is what the reader is told a message was addressed to.
func (m *meshRun) addressee(msg inbox.Message) string {
	switch msg.ToKind {
	case inbox.ToTopic:
		if msg.Topic != "" {
			return "#" + msg.Topic
		}
		return msg.TargetSpec
	case inbox.ToGroup, inbox.ToAll:
		if msg.TargetSpec != "" {
			return msg.TargetSpec
		}
		return "*"
	case inbox.ToSession:
		if s, live, err := m.d.session.ByKey(m.ctx, m.joined.Slug, msg.RecipientKey); err == nil && live {
			return s.Name
		}
		if name := m.roster.name(msg.RecipientKey); name != "" {
			return name
		}
		return msg.RecipientKey
	default:
		return "member"
	}
}

// system handles an event of the broker: the roster follows it, and the bus hears of it once per mesh (session links hear the same).
func (m *meshRun) system(src bridge.Source, p wire.Push) {
	if src.Session != "" {
		return
	}
	kind := "system"
	var e wire.PeerEvent
	switch p.Event {
	case eventProfileUpdated:
		var changed struct {
			MessageMode string `json:"messageMode"`
		}
		if json.Unmarshal(p.EventData, &changed) == nil && changed.MessageMode != "" {
			m.setMessageMode(changed.MessageMode)
		}
	case wire.EventPeerJoined, wire.EventPeerReturned, wire.EventPeerLeft:
		if err := json.Unmarshal(p.EventData, &e); err != nil || !mesh.ValidKey(e.Pubkey) {
			return
		}
		e.Name = printable(e.Name)
		if p.Event == wire.EventPeerLeft {
			kind = "peer_leave"
			m.roster.left(e.Pubkey)
		} else {
			kind = "peer_join"
			m.roster.joined(e)
			m.roster.refresh()
			m.signal()
		}
	case wire.EventTopicChanged, wire.EventTopicSealNeeded, wire.EventTopicRotateNeeded:
		m.topics.refresh()
	}
	m.d.publishEvent(m.joined.Slug, kind, map[string]any{"mesh": m.joined.Slug, "event": p.Event, "data": p.EventData, "at": m.d.opt.Clock.Now().UnixMilli()})
}
