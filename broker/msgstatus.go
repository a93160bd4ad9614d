package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/wire"
)

// Where a message is, is read off the mailboxes: mail that lies in one has not been taken, mail that has gone was acknowledged, or given to a client that
// never acknowledges. Nothing is written for it.

const (
	minIDPrefix   = 8
	prefixSearch  = 50_000 // a prefix is looked for among so many stored messages at most, and among the latest in any case
	prefixMatches = 16     // so many messages that begin alike are looked at
)

func (c *conn) messageStatus(data []byte, reqID string) {
	var f wire.MessageStatus
	if !c.decode(data, reqID, &f) {
		return
	}
	if n := len(f.MessageID); n < minIDPrefix || n > idLength || strings.Trim(f.MessageID, base62) != "" {
		c.fail(reqID, wire.CodeInvalidArgument, fmt.Sprintf("messageId must be 8-32 base62 chars (got %d)", n))
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	all, err := c.b.store.beginning(ctx, c.mesh.rec.ID, f.MessageID)
	if err != nil {
		c.storeFailed(reqID, wire.TypeMessageStatus, err)
		return
	}
	no := refused(wire.CodeNotFound, "message not found")
	visible := slices.DeleteFunc(all, func(r found) bool {
		refusal := c.mayTouch(wire.TypeMessageStatus, c.concerns(r.rec))
		if refusal != nil {
			no = refusal
		}
		return refusal != nil
	})
	switch {
	case len(visible) > 1:
		c.fail(reqID, wire.CodeAmbiguousPrefix, "several messages begin with "+f.MessageID)
	case len(visible) == 0:
		c.fail(reqID, no.code, no.message)
	default:
		result, err := c.b.whereIs(ctx, c.mesh, visible[0])
		if err != nil {
			c.storeFailed(reqID, wire.TypeMessageStatus, err)
			return
		}
		result.MessageID, result.ReqID = f.MessageID, reqID
		c.reply(result)
	}
}

// concerns reports whether the message was sent or received by c's member.
func (c *conn) concerns(rec *accepted) bool {
	if rec.MemberPubkey == c.member.Pubkey {
		return true
	}
	c.b.mu.RLock()
	defer c.b.mu.RUnlock()
	return slices.ContainsFunc(rec.To, func(key string) bool { return c.mesh.ownerOf(key) == c.member.Pubkey })
}

// found is an accepted message and its place in the stream.
type found struct {
	rec *accepted
	seq uint64
}

// beginning returns the messages of a mesh whose ids begin so, at most prefixMatches. In a store of more than prefixSearch messages a prefix is looked for
// among the latest ones only.
func (s *store) beginning(ctx context.Context, meshID, prefix string) ([]found, error) {
	ids := []string{prefix}
	if len(prefix) < idLength {
		ids = s.bodies.beginning(meshID, prefix)
		info, err := s.accept.Info(ctx)
		if err != nil {
			return nil, fmt.Errorf("look for message: %w", err)
		}
		if info.State.NumSubjects <= prefixSearch {
			if info, err = s.accept.Info(ctx, jetstream.WithSubjectFilter(acceptSubject(meshID, "*"))); err != nil {
				return nil, fmt.Errorf("look for message: %w", err)
			}
			ids = ids[:0]
			for subject := range info.State.Subjects {
				if id := strings.TrimPrefix(subject, acceptSubject(meshID, "")); strings.HasPrefix(id, prefix) {
					ids = append(ids, id)
				}
			}
		}
	}
	var all []found
	for _, id := range ids[:min(len(ids), prefixMatches)] {
		msg, err := s.accept.GetLastMsgForSubject(ctx, acceptSubject(meshID, id))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look for message: %w", err)
		}
		rec, err := decodeAccepted(msg)
		if err != nil {
			return nil, err
		}
		all = append(all, found{rec, msg.Sequence})
	}
	return all, nil
}

// whereIs describes every mailbox that a message went to.
func (b *Broker) whereIs(ctx context.Context, m *meshState, f found) (wire.MessageStatusResult, error) {
	result := wire.MessageStatusResult{
		Type: wire.TypeMessageStatusResult, TargetSpec: f.rec.Target, Delivered: true, Recipients: []wire.RecipientStatus{},
		FullID: f.rec.ID, ClientMessageID: f.rec.CMID, AcceptedAt: wire.Timestamp(unixMilli(f.rec.At)),
		Omitted: max(0, len(f.rec.To)-wire.MaxRecipients),
	}
	var last int64
	known := result.Omitted == 0 && len(f.rec.To) > 0
	for _, key := range f.rec.To[:min(len(f.rec.To), wire.MaxRecipients)] {
		r, err := b.recipient(ctx, m, f, key)
		if err != nil {
			return result, err
		}
		result.Recipients = append(result.Recipients, r)
		if r.Status != wire.RecipientDelivered {
			result.Delivered = false
		}
		at, ok := b.settler.when(mailSubject(m.rec.ID, key), f.rec.ID)
		known = known && ok
		last = max(last, at)
	}
	// Of those that are not listed nothing is claimed.
	result.Delivered = result.Delivered && result.Omitted == 0 && len(f.rec.To) > 0
	if result.Delivered && known {
		at := wire.Timestamp(unixMilli(last))
		result.DeliveredAt = &at
	}
	return result, nil
}

// recipient says where the message is for one mailbox.
func (b *Broker) recipient(ctx context.Context, m *meshState, f found, key string) (wire.RecipientStatus, error) {
	subject := mailSubject(m.rec.ID, key)
	r := wire.RecipientStatus{Pubkey: key}
	online, gated := false, true
	b.mu.RLock()
	r.Name = m.nameOf(key)
	for c := range m.readers[key] {
		online = true
		gated = gated && c.gated()
	}
	b.mu.RUnlock()
	if at, ok := b.settler.when(subject, f.rec.ID); ok {
		r.Status, r.State, r.At = wire.RecipientDelivered, wire.StateDelivered, wire.Timestamp(unixMilli(at))
		return r, nil
	}
	queued := b.fan.reached.Load() < f.seq
	lies := false
	if !queued {
		var err error
		if lies, err = b.store.lies(ctx, subject, f.seq); err != nil {
			return r, err
		}
	}
	switch {
	case !queued && !lies:
		r.Status, r.State = wire.RecipientDelivered, wire.StateDelivered
		return r, nil
	case !online:
		r.Status, r.State = wire.RecipientDisconnected, wire.RecipientWaiting
	case gated && f.rec.Priority != wire.PriorityNow:
		r.Status, r.State = wire.RecipientHeld, wire.RecipientGated
	default:
		r.Status, r.State = wire.RecipientHeld, wire.RecipientPushed
	}
	if queued {
		r.State = wire.RecipientQueued
	}
	return r, nil
}

// nameOf is the name behind a mailbox key. Called under the lock.
func (m *meshState) nameOf(key string) string {
	if who := m.members[key]; who != nil {
		return who.Name
	}
	for c := range m.readers[key] {
		return c.name
	}
	if who := m.members[m.ownerOf(key)]; who != nil {
		return who.Name
	}
	return "unknown"
}

// lies reports whether a mailbox still holds the reference to an accepted message. References lie in the order of acceptance, so it is found by halving.
func (s *store) lies(ctx context.Context, subject string, accept uint64) (bool, error) {
	if s.depth.get(subject) <= 0 {
		return false, nil
	}
	info, err := s.mail.Info(ctx)
	if err != nil {
		return false, fmt.Errorf("look into mailbox: %w", err)
	}
	for low, high := info.State.FirstSeq, info.State.LastSeq; low <= high; {
		middle := low + (high-low)/2
		msg, err := s.mail.GetMsg(ctx, middle, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && msg.Sequence > high {
			if middle == 0 {
				return false, nil
			}
			high = middle - 1
			continue
		}
		if err != nil {
			return false, fmt.Errorf("look into mailbox: %w", err)
		}
		var m mail
		if err := json.Unmarshal(msg.Data, &m); err != nil {
			return false, fmt.Errorf("look into mailbox: %w", err)
		}
		switch {
		case m.Accept == accept:
			return true, nil
		case m.Accept < accept:
			low = msg.Sequence + 1
		case middle == 0:
			return false, nil
		default:
			high = middle - 1
		}
	}
	return false, nil
}

// delivered is a message in one mailbox; the settler remembers when the latest of them were taken.
type delivered struct{ subject, id string }

// when says when a message left a mailbox, in Unix milliseconds, if it is remembered.
func (s *settler) when(subject, id string) (at int64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.times.Peek(delivered{subject, id})
}

// took notes that a client has a message.
func (s *settler) took(subject, id string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times.Add(delivered{subject, id}, at.UnixMilli())
}

// beginning lists the cached messages of a mesh whose ids begin so.
func (c *bodyCache) beginning(meshID, prefix string) (ids []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rec := range c.lru.Values() {
		if rec.Mesh == meshID && strings.HasPrefix(rec.ID, prefix) {
			ids = append(ids, rec.ID)
		}
	}
	return ids
}
