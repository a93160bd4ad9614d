package bus

// This file is the part of the local API that tells the story of one message. The rules of api.go hold.

// OpTrace answers TraceQuery with Trace.
const OpTrace = "trace"

// TraceQuery names a message: the sender's id of it, the broker's, this machine's, or the beginning of one in 8 or more characters. A session's own
// messages only.
type TraceQuery struct {
	ID   string `json:"id"`
	Mesh string `json:"mesh,omitempty"`
}

// Who says that a step happened.
const (
	SourceDaemon  = "daemon"  // this daemon did it, or saw it
	SourceReceipt = "receipt" // the recipient's machine, signed with Key
	SourceReply   = "reply"   // a message by Key that refers to it
	SourceBroker  = "broker"  // the broker says so, and nobody else
)

// Steps of a message beyond the states of api.go.
const (
	StepReceived = "received" // stored by this machine
	StepPushed   = "pushed"   // sent towards a session, without evidence that it arrived
	StepSeen     = "seen"     // listed by its reader
	StepWaiting  = "waiting"  // in the mailbox of a recipient, at the broker
)

// Trace is what is known here of one message, in order of time; steps without a time come last.
type Trace struct {
	Mesh            string      `json:"mesh"`
	ID              string      `json:"id"` // this machine's own
	ClientMessageID string      `json:"client_message_id"`
	BrokerMessageID string      `json:"broker_message_id,omitempty"`
	Sent            bool        `json:"sent"`     // it was accepted here
	Received        bool        `json:"received"` // it was received here; both, between two sessions of one machine
	From            string      `json:"from"`
	To              string      `json:"to"`
	State           string      `json:"state"`
	Error           string      `json:"error,omitempty"` // why the last attempt to send it failed
	Attempts        int         `json:"attempts,omitempty"`
	Steps           []TraceStep `json:"steps"`
	Omitted         int         `json:"omitted,omitempty"`       // steps left out
	BrokerSilent    string      `json:"broker_silent,omitempty"` // why the broker's word is missing
}

// TraceStep is one step. By is a name, Key the key of who it is about: a recipient, or the writer of an answer.
type TraceStep struct {
	State  string `json:"state"`
	At     string `json:"at,omitempty"` // ISO-8601 UTC, by the clock of the source
	Via    string `json:"via,omitempty"`
	By     string `json:"by,omitempty"`
	Key    string `json:"key,omitempty"`
	Source string `json:"source"`
	Detail string `json:"detail,omitempty"`
}
