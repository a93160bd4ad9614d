package wire

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// Scheduled messages: a message whose text is given now and which the broker sends when its time has come.

// Frame types of scheduled messages.
const (
	TypeSchedule           = "schedule"
	TypeScheduledAck       = "scheduled_ack"
	TypeListScheduled      = "list_scheduled"
	TypeScheduledList      = "scheduled_list"
	TypeCancelScheduled    = "cancel_scheduled"
	TypeCancelScheduledAck = "cancel_scheduled_ack"
)

// CapSealedSchedules: the broker takes a schedule whose message is sealed already. Announced in hello_ack.
const CapSealedSchedules = "sealed_schedules"

// CodeInvalidCron refuses a cron expression that is none, or that has no time within 366 days.
const CodeInvalidCron = "invalid_cron"

const (
	// MaxScheduledBytes bounds the text of a scheduled message, and its ciphertext before base64.
	MaxScheduledBytes = 16 << 10
	// MaxCronBytes bounds a cron expression and the name of a time zone.
	MaxCronBytes = 256
)

// Schedule asks for a message to be sent at DeliverAt (Unix milliseconds; in the past: at once), or by Cron: five fields, minute hour day-of-month month
// day-of-week, which must all match. Message is its plain text. Nonce and Ciphertext may take its place where To is a key: crypto_box, as in a Send, so that
// the broker never sees the text. Zone is the IANA name of the time zone that Cron is read in, or an offset such as "+02:00"; empty is the broker's own. The
// last three are ours. Subtype is "reminder" or empty, Recurring says nothing that Cron does not.
type Schedule struct {
	Type       string  `json:"type"`
	To         string  `json:"to"`
	Message    string  `json:"message,omitempty"`
	DeliverAt  float64 `json:"deliverAt"`
	Subtype    string  `json:"subtype,omitempty"`
	Cron       string  `json:"cron,omitempty"`
	Recurring  bool    `json:"recurring,omitempty"`
	Nonce      string  `json:"nonce,omitempty"`
	Ciphertext string  `json:"ciphertext,omitempty"`
	Zone       string  `json:"tz,omitempty"`
	ReqID      string  `json:"_reqId,omitempty"`
}

// Validate checks presence, sizes and encodings; what DeliverAt, Cron and To mean is the broker's to judge.
func (s Schedule) Validate() error {
	switch {
	case s.Message != "" && s.Ciphertext != "":
		return fmt.Errorf("%w: message and ciphertext exclude each other", ErrInvalid)
	case s.Message == "" && s.Ciphertext == "":
		return fmt.Errorf("%w: message missing", ErrInvalid)
	case (s.Nonce == "") != (s.Ciphertext == ""):
		return fmt.Errorf("%w: nonce and ciphertext belong together", ErrInvalid)
	case len(s.Message) > MaxScheduledBytes:
		return fmt.Errorf("%w: message over %d bytes", ErrInvalid, MaxScheduledBytes)
	}
	for field, v := range map[string]string{"nonce": s.Nonce, "ciphertext": s.Ciphertext} {
		raw, err := base64.StdEncoding.DecodeString(v)
		if err != nil {
			return fmt.Errorf("%w: %s is not base64", ErrInvalid, field)
		}
		if len(raw) > MaxScheduledBytes+16 {
			return fmt.Errorf("%w: %s over %d bytes", ErrInvalid, field, MaxScheduledBytes+16)
		}
	}
	return firstError(required("to", s.To), tooLong("to", s.To, MaxTargetBytes), tooLong("subtype", s.Subtype, MaxNameBytes),
		tooLong("cron", s.Cron, MaxCronBytes), tooLong("tz", s.Zone, MaxCronBytes))
}

// ScheduledAck answers Schedule: DeliverAt is when it is sent, or sent first (Unix milliseconds).
type ScheduledAck struct {
	Type        string `json:"type"`
	ScheduledID string `json:"scheduledId"`
	DeliverAt   int64  `json:"deliverAt"`
	Cron        string `json:"cron,omitempty"`
	ReqID       string `json:"_reqId,omitempty"`
}

// Scheduled is one entry of ScheduledList. FiredCount is there for a cron only. Of a sealed message Message is empty, and Nonce, Ciphertext and SenderPubkey
// are what it can be opened with by whoever sealed it. Truncated: the message is not shown whole, because the list would not fit into one frame. What is
// behind FiredCount is ours.
type Scheduled struct {
	ID           string `json:"id"`
	To           string `json:"to"`
	Message      string `json:"message"`
	DeliverAt    int64  `json:"deliverAt"`
	CreatedAt    int64  `json:"createdAt"`
	Cron         string `json:"cron,omitempty"`
	FiredCount   *int   `json:"firedCount,omitempty"`
	Zone         string `json:"tz,omitempty"`
	Nonce        string `json:"nonce,omitempty"`
	Ciphertext   string `json:"ciphertext,omitempty"`
	SenderPubkey string `json:"senderPubkey,omitempty"`
	Sealed       bool   `json:"sealed,omitempty"`
	Truncated    bool   `json:"truncated,omitempty"`
}

// ScheduledList answers list_scheduled: what the member has scheduled and what has not been sent, oldest first.
type ScheduledList struct {
	Type     string      `json:"type"`
	Messages []Scheduled `json:"messages"`
	ReqID    string      `json:"_reqId,omitempty"`
}

// CancelScheduled takes a scheduled message back.
type CancelScheduled struct {
	Type        string `json:"type"`
	ScheduledID string `json:"scheduledId"`
	ReqID       string `json:"_reqId,omitempty"`
}

// Validate checks presence and length.
func (c CancelScheduled) Validate() error {
	return firstError(required("scheduledId", c.ScheduledID), tooLong("scheduledId", c.ScheduledID, MaxIDBytes))
}

// CancelScheduledAck answers it. OK false: there is no such message, or it has been sent.
type CancelScheduledAck struct {
	Type        string `json:"type"`
	ScheduledID string `json:"scheduledId"`
	OK          bool   `json:"ok"`
	ReqID       string `json:"_reqId,omitempty"`
}

// ReminderData is the eventData of a scheduled message that the broker sends. DeliverAt is when it was due (Unix milliseconds). Late: the broker did not run
// then. Missed: how many further times of a cron passed meanwhile, which are not made up for; at most 1000. Ours.
type ReminderData struct {
	ScheduledID string `json:"scheduledId"`
	DeliverAt   int64  `json:"deliverAt"`
	Cron        string `json:"cron,omitempty"`
	Late        bool   `json:"late,omitempty"`
	Missed      int    `json:"missed,omitempty"`
}

// EventScheduleFailed is mailed to a member whose scheduled message could not be sent when its time came, with ScheduleFailed as eventData. Ours.
const EventScheduleFailed = "schedule_failed"

// ScheduleFailed says which message it was, and why it was not sent.
type ScheduleFailed struct {
	ScheduledID string `json:"scheduledId"`
	To          string `json:"to"`
	Reason      string `json:"reason"`
}

// Kept reports whether a push is mail, to be stored and acknowledged. What is not is a live event, of which nothing is kept anywhere: the system events that
// carry no client message id, but for a watch's result, which a reference broker sends in that way.
func (p Push) Kept() bool {
	return p.Subtype != SubtypeSystem || p.ClientMessageID != "" || p.Event == EventWatchTriggered
}

// Data decodes eventData into v; a push without any is an error.
func (p Push) Data(v any) error {
	if err := json.Unmarshal(p.EventData, v); err != nil {
		return fmt.Errorf("%w: eventData: %v", ErrMalformed, err)
	}
	return nil
}
