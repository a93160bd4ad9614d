package wire

import "fmt"

// MessageStatus asks how far a message has come. MessageID is a broker message id, or 8 or more of its first characters. Only its sender, its recipients
// and the admins of the mesh may ask.
type MessageStatus struct {
	Type      string `json:"type"`
	MessageID string `json:"messageId"`
	ReqID     string `json:"_reqId,omitempty"`
}

// Status of one recipient, in the reference's words.
const (
	RecipientDelivered    = "delivered"    // a client of the recipient has it
	RecipientHeld         = "held"         // the recipient is connected, and has not taken it
	RecipientDisconnected = "disconnected" // the recipient is not connected; the message waits
)

// State of one recipient, in more detail. Ours.
const (
	RecipientQueued  = "queued"  // accepted, and on its way into the mailbox
	RecipientWaiting = "waiting" // in the mailbox; nobody reads it now
	RecipientGated   = "gated"   // in the mailbox; held back by the recipient's status
	RecipientPushed  = "pushed"  // in the mailbox; pushed or about to be, not acknowledged yet
)

// MessageStatusResult answers MessageStatus. DeliveredAt is when the last recipient had it, null while one has not, or when the broker does not remember.
type MessageStatusResult struct {
	Type        string            `json:"type"`
	MessageID   string            `json:"messageId"` // as asked for
	TargetSpec  string            `json:"targetSpec"`
	Delivered   bool              `json:"delivered"`
	DeliveredAt *string           `json:"deliveredAt"`
	Recipients  []RecipientStatus `json:"recipients"`
	ReqID       string            `json:"_reqId,omitempty"`

	// Ours.
	FullID          string `json:"fullId,omitempty"`
	ClientMessageID string `json:"client_message_id,omitempty"`
	AcceptedAt      string `json:"acceptedAt,omitempty"`
	// Omitted is how many further recipients there are: a list has at most MaxRecipients.
	Omitted int `json:"omitted,omitempty"`
}

// RecipientStatus is one mailbox that a message went to.
type RecipientStatus struct {
	Name   string `json:"name"`
	Pubkey string `json:"pubkey"`
	Status string `json:"status"`
	State  string `json:"state,omitempty"` // ours: delivered, or one of the Recipient… states
	At     string `json:"at,omitempty"`    // ours: when it was delivered, as far as the broker remembers
}

// MaxRecipients bounds the recipients of one MessageStatusResult.
const MaxRecipients = 256

// MeshSettings shows or changes the settings of a mesh; absent fields stay. Changing takes an admin. Ours.
type MeshSettings struct {
	Type         string          `json:"type,omitempty"`
	SendRate     *int            `json:"sendRate,omitempty"`     // messages per minute and member; 0: the broker's default
	SendBurst    *int            `json:"sendBurst,omitempty"`    // messages at once; 0: the broker's default
	SelfEditable map[string]bool `json:"selfEditable,omitempty"` // what members may edit of their own profile
	ReqID        string          `json:"_reqId,omitempty"`
}

// Changes reports whether the request is more than a question.
func (s MeshSettings) Changes() bool {
	return s.SendRate != nil || s.SendBurst != nil || len(s.SelfEditable) > 0
}

// SelfEditable is the policy of a mesh that has set none: everything.
func SelfEditable() map[string]bool {
	return map[string]bool{"displayName": true, "roleTag": true, "groups": true, "messageMode": true}
}

// Validate checks ranges and keys.
func (s MeshSettings) Validate() error {
	if s.SendRate != nil && (*s.SendRate < 0 || *s.SendRate > MaxSendRate) {
		return fmt.Errorf("%w: sendRate must be 0 to %d", ErrInvalid, MaxSendRate)
	}
	if s.SendBurst != nil && (*s.SendBurst < 0 || *s.SendBurst > MaxSendBurst) {
		return fmt.Errorf("%w: sendBurst must be 0 to %d", ErrInvalid, MaxSendBurst)
	}
	known := SelfEditable()
	for name := range s.SelfEditable {
		if _, ok := known[name]; !ok {
			return fmt.Errorf("%w: unknown field %.80q", ErrInvalid, name)
		}
	}
	return nil
}

// MeshSettingsResult answers MeshSettings with what is in force. SendRate 0: no limit.
type MeshSettingsResult struct {
	Type         string          `json:"type"`
	SendRate     int             `json:"sendRate"`
	SendBurst    int             `json:"sendBurst"`
	Default      bool            `json:"default"` // the limit is the broker's, not the team's
	SelfEditable map[string]bool `json:"selfEditable"`
	ReqID        string          `json:"_reqId,omitempty"`
}
