package broker

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/gorilla/websocket"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// refusal is one way to refuse a hello: an error frame, then a close whose reason is the code.
type refusal struct {
	code, message string
	wait          time.Duration // how long until it is worth another try; 0: it says nothing
}

func (r *refusal) Error() string { return r.message }

func refused(code, message string) *refusal { return &refusal{code: code, message: message} }

// hello answers a member's hello. The order of the checks is the reference's.
func (c *conn) hello(data []byte) {
	var h wire.Hello
	if err := wire.Decode(data, &h); err != nil {
		c.turnAway(decodeRefusal("hello", err))
		return
	}
	c.turnAway(c.admitMember(h))
}

func (c *conn) admitMember(h wire.Hello) *refusal {
	if h.SessionPubkey != "" && !mesh.ValidKey(h.SessionPubkey) {
		return refused(wire.CodeBadSessionPubkey, "sessionPubkey must be 64 lowercase hex chars")
	}
	c.sessionID, c.sessionKey = h.SessionID, h.SessionPubkey
	c.capabilities(h.Capabilities)
	c.place = place{h.PID, h.Cwd, h.Hostname, h.PeerType, h.Channel, h.Model}
	if c.b.atCapacity(h.MeshID, c, h.Pubkey) {
		return refused(wire.CodeCapacity, "mesh at connection capacity")
	}
	if code := c.checkSigned("hello", h.Timestamp, []string{h.Pubkey}, h.Signature, mesh.HelloString(h.MeshID, h.MemberID, h.Pubkey, h.Timestamp)); code != nil {
		return code
	}
	return c.b.register(c, h.MeshID, h.Pubkey, h.MemberID, h.DisplayName, h.Groups, len(h.Groups) > 0)
}

// sessionHello answers a session's hello.
func (c *conn) sessionHello(data []byte) {
	var h wire.SessionHello
	if err := wire.Decode(data, &h); err != nil {
		c.turnAway(decodeRefusal("session_hello", err))
		return
	}
	c.turnAway(c.admitSession(h))
}

func (c *conn) admitSession(h wire.SessionHello) *refusal {
	switch a := h.ParentAttestation; {
	case !mesh.ValidKey(h.SessionPubkey):
		return refused(wire.CodeBadSessionPubkey, "sessionPubkey must be 64 lowercase hex chars")
	case !mesh.ValidKey(h.ParentMemberPubkey):
		return refused(wire.CodeBadParentPubkey, "parentMemberPubkey must be 64 lowercase hex chars")
	case a.SessionPubkey != h.SessionPubkey || a.ParentMemberPubkey != h.ParentMemberPubkey:
		return refused(wire.CodeAttestationMismatch, "parentAttestation does not bind the claimed session+parent pubkeys")
	}
	c.isSession, c.sessionID, c.sessionKey = true, h.SessionID, h.SessionPubkey
	c.capabilities(h.Capabilities)
	c.place = place{h.PID, h.Cwd, h.Hostname, h.PeerType, h.Channel, h.Model}
	if c.b.atCapacity(h.MeshID, c, h.ParentMemberPubkey) {
		return refused(wire.CodeCapacity, "mesh at connection capacity")
	}
	if err := h.ParentAttestation.Check(c.b.now()); err != nil {
		code := attestationCode(err)
		return refused(code, "attestation rejected: "+code)
	}
	// As long as the connection lasts, even if the attestation runs out meanwhile: it vouches for the hello, not for every frame.
	c.caps, c.job = h.ParentAttestation.Caps(), h.Role
	signed := mesh.SessionHelloString(h.MeshID, h.ParentMemberPubkey, h.SessionPubkey, h.Timestamp)
	if code := c.checkSigned("session_hello", h.Timestamp, []string{h.SessionPubkey}, h.Signature, signed); code != nil {
		return code
	}
	return c.b.register(c, h.MeshID, h.ParentMemberPubkey, h.ParentMemberID, h.DisplayName, h.Groups, h.Groups != nil)
}

// turnAway sends the refusal, if there is one. No frame that follows is looked at: what a refused hello claimed must not colour a second one.
func (c *conn) turnAway(r *refusal) {
	if r == nil {
		return
	}
	c.refused = true
	c.b.figures.turnedAway(r.code)
	code, reason := websocket.ClosePolicyViolation, r.code
	switch r.code {
	case wire.CodeRevoked:
		code, reason = wire.CloseBanned, "banned"
	case wire.CodeMeshDeleted:
		code = wire.CloseBanned
	}
	c.refuse(code, reason, r.code, r.message)
}

func (c *conn) capabilities(cs []string) {
	for _, s := range cs {
		switch s {
		case wire.CapClientAck:
			c.acking.Store(true)
		case wire.CapReceipts:
			c.receipts = !c.isSession // receipts are the member's mail
		case wire.CapTopicKeys:
			c.topicEvents = !c.isSession // a topic's key belongs to the member
		case wire.CapOwnMulticast:
			c.ownMulticast = true
		case wire.CapOwnGating:
			c.ownGating = true
		case wire.CapChanges:
			c.changes = true
		}
	}
}

// checkSigned checks clock, shapes and signature, in this order. keys[0] is the signing key.
func (c *conn) checkSigned(frame string, timestamp int64, keys []string, signature string, signed []byte) *refusal {
	reject := func(code string) *refusal { return refused(code, frame+" rejected: "+code) }
	skew := c.b.now().UnixMilli() - timestamp
	if limit := wire.HelloSkew.Milliseconds(); skew > limit || skew < -limit {
		return reject(wire.CodeTimestampSkew)
	}
	if !hexOf(keys[0], 32) || !hexOf(signature, 64) {
		return reject(wire.CodeMalformed)
	}
	if !mesh.VerifySignature(keys[0], signed, signature) {
		return reject(wire.CodeBadSignature)
	}
	return nil
}

func hexOf(s string, size int) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == size
}

func attestationCode(err error) string {
	switch {
	case errors.Is(err, mesh.ErrAttestationExpired):
		return wire.CodeExpired
	case errors.Is(err, mesh.ErrAttestationTTL):
		return wire.CodeTTLTooLong
	case errors.Is(err, mesh.ErrAttestationSignature):
		return wire.CodeBadSignature
	}
	return wire.CodeMalformed
}

// decodeRefusal is for a hello that the reference would leave without an answer.
func decodeRefusal(frame string, err error) *refusal {
	code := wire.CodeMalformed
	if errors.Is(err, wire.ErrInvalid) {
		code = wire.CodeInvalid
	}
	return refused(code, fmt.Sprintf("%s rejected: %s: %v", frame, code, err))
}

// greet sends hello_ack and starts the pump. saved is the member's state as it was before this hello.
func (c *conn) greet(saved stateRecord, restoredGroups bool) {
	c.b.mu.RLock()
	profile, policy := c.member.profile(), c.mesh.policy()
	c.b.mu.RUnlock()
	ack := wire.HelloAck{
		Type: wire.TypeHelloAck, PresenceID: c.presenceID, MemberDisplayName: c.name,
		MemberProfile: profile,
		MeshPolicy:    &wire.MeshPolicy{SelfEditable: policy},
		Capabilities: []string{
			wire.CapClientAck, wire.CapReceipts, wire.CapOwnMulticast, wire.CapOwnGating, wire.CapTopicKeys, wire.CapChanges, wire.CapSealedSchedules,
			wire.CapSessionCaps,
		},
	}
	if !c.isSession {
		c.b.mu.RLock()
		services := c.mesh.running()
		c.b.mu.RUnlock()
		ack.Services = &services
		if saved.LastSeen != 0 {
			ack.Restored, ack.LastSummary, ack.RestoredStats = true, saved.Summary, &saved.Stats
			ack.LastSeenAt = wire.Timestamp(time.UnixMilli(saved.LastSeen))
			if restoredGroups {
				ack.RestoredGroups = saved.Groups
			}
		}
	}
	data, err := wire.Encode(ack)
	if err != nil {
		c.log.Error("hello not answered", "err", err)
		c.close(websocket.CloseInternalServerErr, "internal")
		return
	}
	c.push(frame{data: data, hello: true})
}
