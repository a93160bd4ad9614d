package daemon

import (
	"encoding/base64"
	"errors"
	"fmt"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/daemon/outbox"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// One attempt to send one row: whom it is for, which link carries it, and the frame.

// Reasons why a row cannot leave now, or ever.
var (
	errLinkClosed = errors.New("the session's link is not open yet")
	errNotListed  = errors.New("the broker has not listed the peers yet")
	errUnsealable = errors.New("the message cannot be sealed for this key")
)

func (m *meshRun) begin(row outbox.Row) (*bridge.Pending, error) {
	if row.TargetSpec == "" && row.Kind != bus.SendTopic {
		key, err := m.lateTarget(row)
		if err != nil {
			return nil, err
		}
		row.TargetSpec = key
	}
	link, identity := m.carrier(row)
	if link == nil {
		return nil, errLinkClosed
	}
	frame := wire.Send{
		Type: wire.TypeSend, ID: row.ClientMessageID, ClientMessageID: row.ClientMessageID, RequestFingerprint: fmt.Sprintf("%x", row.Fingerprint),
		TargetSpec: row.TargetSpec, Priority: row.Priority, ReplyToID: row.ReplyTo,
	}
	if frame.Priority == "" {
		frame.Priority = wire.PriorityNext
	}
	nonce, box, err := m.seal(identity, row)
	if row.Kind == bus.SendTopic {
		frame.TargetSpec, frame.BodyVersion, nonce, box, err = m.topics.seal(row)
	}
	if err != nil {
		return nil, err
	}
	frame.Nonce, frame.Ciphertext = base64.StdEncoding.EncodeToString(nonce), base64.StdEncoding.EncodeToString(box)
	return link.Begin(m.ctx, frame)
}

// seal closes a direct message for its recipient. Multicasts travel as base64 of the text with an unused random nonce: the protocol has no key that all
// their recipients share, and the broker can read them (docs/decisions.md).
func (m *meshRun) seal(from mesh.Identity, row outbox.Row) (nonce, box []byte, err error) {
	if row.Kind == "dm" {
		nonce, box, err = m.d.boxes.Seal(from, row.TargetSpec, row.Payload, m.d.opt.Rand)
		if errors.Is(err, mesh.ErrWeakKey) {
			err = errUnsealable
		}
		return nonce, box, err
	}
	nonce = make([]byte, 24)
	if _, err := m.d.opt.Rand.Read(nonce); err != nil {
		return nil, nil, fmt.Errorf("make nonce: %w", err)
	}
	return nonce, row.Payload, nil
}

// carrier chooses link and key for a row: the session's while it lives, the member's otherwise. A live session whose link is still opening is waited for,
// so that the recipient sees the true sender.
func (m *meshRun) carrier(row outbox.Row) (*bridge.Link, mesh.Identity) {
	if row.SenderKey != m.joined.Pubkey {
		if link, id, own := m.links.LinkFor(row.SenderKey); own {
			if link.State().Phase != bridge.Open {
				return nil, mesh.Identity{}
			}
			return link, id
		}
	}
	return m.links.Member(), m.member
}

// lateTarget resolves a name that could not be looked up when the row was accepted.
func (m *meshRun) lateTarget(row outbox.Row) (string, error) {
	t, err := mesh.ParseTarget(row.Target)
	if err != nil {
		return "", err
	}
	peer, settled, err := m.roster.lookup(m.ctx, t, row.SenderKey)
	if !settled {
		return "", errNotListed
	}
	if err != nil {
		return "", err
	}
	if err := m.d.outbox.Resolved(m.ctx, row.ID, peer.Key); err != nil {
		return "", fmt.Errorf("record resolved target: %w", err)
	}
	return peer.Key, nil
}
