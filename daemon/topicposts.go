package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"claudemesh/bus"
	"claudemesh/daemon/inbox"
	"claudemesh/daemon/outbox"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// Posts on their way out and in: whom they are for, the seal, and those that came before their key.

// Reasons why a post cannot leave now, or ever.
var (
	errTopicsNotListed = errors.New("the broker has not listed the topics yet")
	errNoTopic         = errors.New("there is no such topic in this mesh")
	errNotInTopic      = errors.New("this member does not belong to the topic")
	errNoTopicKey      = errors.New("no member has sealed the topic's key for this one yet")
	errKeyWithdrawn    = errors.New("the topic had a newer key before than the broker knows of now: nothing is sent in clear or under an old key")
)

// address fills in which topic a post is for. A topic that cannot be looked up now, because the mesh is down, is left to the drain.
func (t *topics) address(ctx context.Context, ref string, row *outbox.NewRow, reply *bus.SendReply) error {
	topic, settled, err := t.resolve(ctx, ref)
	switch {
	case err != nil && !settled:
		return nil
	case err != nil:
		return err
	}
	row.TargetSpec, reply.TopicID, reply.BodyVersion = "#"+topic.ID, topic.ID, wire.BodySealed
	if topic.Generation == 0 {
		if newest, err := t.seen.newest(topic.ID); err != nil || newest > 0 {
			return errors.Join(err, &bus.APIError{Code: 409, Reason: "topic_key_withdrawn", Detail: errKeyWithdrawn.Error()})
		}
		reply.BodyVersion = wire.BodyPlain
		reply.Warning = "topic " + printable(topic.Name) + " has no key: whoever runs the broker can read this"
	}
	return nil
}

// resolve is find, but asks the broker once more before it says that there is no such topic or no membership: either may have changed this instant.
func (t *topics) resolve(ctx context.Context, ref string) (wire.Topic, bool, error) {
	for asked := false; ; asked = true {
		topic, found, settled := t.find(ref)
		if found && (topic.Role != "" && topic.Role != wire.TopicObserver || !t.keeps()) {
			return topic, settled, nil
		}
		if !t.m.online() {
			return topic, false, t.m.down()
		}
		if !asked {
			if _, err := t.list(ctx); err != nil {
				return topic, settled, err
			}
			continue
		}
		switch {
		case !found:
			return topic, settled, &bus.APIError{Code: 404, Reason: "topic_not_found", Detail: fmt.Sprintf("no topic %q on mesh %s", ref, t.m.joined.Slug), Data: map[string]any{"topics": t.names()}}
		case topic.Role == wire.TopicObserver:
			return topic, settled, &bus.APIError{Code: 403, Reason: "observer", Detail: fmt.Sprintf("an observer of topic %q does not post to it", topic.Name)}
		default:
			return topic, settled, &bus.APIError{Code: 403, Reason: "not_in_topic", Detail: fmt.Sprintf("you do not belong to topic %q", topic.Name), Data: map[string]any{"topic": topic.Name}}
		}
	}
}

// seal makes of a row what leaves: the topic's id and the body, sealed with the topic's newest key, or in clear for a topic that has never had one.
func (t *topics) seal(row outbox.Row) (spec string, version int, nonce, body []byte, err error) {
	ref := strings.TrimPrefix(row.Recipient(), "#")
	topic, found, settled := t.find(ref)
	switch {
	case !settled:
		err = errTopicsNotListed
	case !found:
		err = errNoTopic
	case t.keeps() && topic.Role == "":
		err = errNotInTopic
	}
	if err != nil {
		return "", 0, nil, nil, err
	}
	if spec = "#" + topic.ID; row.TargetSpec == "" {
		if err := t.m.d.outbox.Resolved(t.m.ctx, row.ID, spec); err != nil {
			return "", 0, nil, nil, fmt.Errorf("record resolved target: %w", err)
		}
	}
	// In this order: a list that comes in between has a newer key than was seen before it, and never an older one.
	newest, err := t.seen.newest(topic.ID)
	if again, found, _ := t.find(topic.ID); found {
		topic = again
	}
	switch key, has := t.key(topic.ID, topic.Generation); {
	case err != nil:
	case newest > topic.Generation:
		err = errKeyWithdrawn
	case topic.Generation == 0:
		nonce = make([]byte, mesh.NonceSize)
		return spec, wire.BodyPlain, nonce, row.Payload, nil
	case !has:
		err = errNoTopicKey
	default:
		nonce, body, err = key.SealPost(row.Payload, t.m.d.opt.Rand)
	}
	return spec, wire.BodySealed, nonce, body, err
}

// wakeRows makes the drain try at once what waits for another reason than the broker.
func (m *meshRun) wakeRows() {
	if err := m.d.outbox.WakeAll(m.ctx, m.joined.Slug); err != nil && m.ctx.Err() == nil {
		m.d.opt.Log.Error("outbox_wake_failed", "mesh", m.joined.Slug, "error", err)
	}
	m.signal()
}

// openLate opens the posts of a topic that came before their key, and tells of them as if they came now.
func (m *meshRun) openLate(ctx context.Context, topicID string) error {
	for after := int64(0); ; {
		waiting, err := m.d.inbox.Closed(ctx, m.joined.Slug, "#"+topicID, after, 0)
		if err != nil {
			return fmt.Errorf("read posts that wait for a key: %w", err)
		}
		if len(waiting) == 0 {
			return nil
		}
		for _, msg := range waiting {
			after = msg.Seq
			text, err := m.topics.open(topicID, msg.Nonce, msg.Ciphertext)
			if err != nil || !utf8.Valid(text) {
				continue
			}
			now, sessions, opened, err := m.d.inbox.Opened(ctx, msg.ID, string(text))
			if err != nil {
				return fmt.Errorf("store post: %w", err)
			}
			if opened {
				m.announce(now, sessions)
			}
		}
	}
}

// postText is the text of a post in a topic's history, or why there is none.
func (t *topics) postText(topicID string, p wire.TopicPost) (text string, reason string) {
	body, nonce, err := decodePost(p)
	if err != nil {
		return "", "the post is not base64"
	}
	if p.BodyVersion == wire.BodySealed {
		if body, err = t.open(topicID, nonce, body); err != nil {
			return "", "no key of this member opens it"
		}
	}
	if !utf8.Valid(body) {
		return "", "the text is not UTF-8"
	}
	return string(body), ""
}

// stillClosed reports whether a message waits for its topic's key.
func stillClosed(msg inbox.Message) bool { return msg.Undecryptable && msg.ToKind == inbox.ToTopic }
