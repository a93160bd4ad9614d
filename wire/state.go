package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Frame types of shared state. TypeDeleteState and TypeStateAck are ours.
const (
	TypeSetState    = "set_state"
	TypeGetState    = "get_state"
	TypeListState   = "list_state"
	TypeDeleteState = "delete_state"
	TypeStateChange = "state_change"
	TypeStateResult = "state_result"
	TypeStateList   = "state_list"
	TypeStateAck    = "state_ack"
)

// Limits of shared state.
const (
	MaxStateKey   = 256       // bytes
	MaxStateValue = 256 << 10 // bytes of JSON, as Encode writes it
)

// Page is how our clients ask for a long list: Paged true, and After the last row they have. A list that does not fit into one answer is refused to those
// who do not ask so. Both fields are ours.
type Page struct {
	Paged bool   `json:"paged,omitempty"`
	After string `json:"after,omitempty"`
}

// SetState writes one value, the last writer wins. A request with _reqId is answered by an ack; the reference answers none.
type SetState struct {
	Type  string          `json:"type"`
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
	ReqID string          `json:"_reqId,omitempty"`
}

// Validate checks the key's and the value's presence and size; null is no value.
func (s SetState) Validate() error {
	if len(s.Value) == 0 || bytes.Equal(bytes.TrimSpace(s.Value), []byte("null")) {
		return fmt.Errorf("%w: value is null; to remove a key use delete_state", ErrInvalid)
	}
	return firstError(validStateKey(s.Key), jsonTooLong("value", s.Value, MaxStateValue))
}

// GetState asks for one value.
type GetState struct {
	Type  string `json:"type"`
	Key   string `json:"key"`
	ReqID string `json:"_reqId,omitempty"`
}

// Validate checks the key.
func (g GetState) Validate() error { return validStateKey(g.Key) }

// DeleteState removes one key. Ours.
type DeleteState struct {
	Type  string `json:"type"`
	Key   string `json:"key"`
	ReqID string `json:"_reqId,omitempty"`
}

// Validate checks the key.
func (d DeleteState) Validate() error { return validStateKey(d.Key) }

// ListState asks for all values, ordered by key. After is a key.
type ListState struct {
	Type string `json:"type"`
	Page
	ReqID string `json:"_reqId,omitempty"`
}

// Validate checks the length of After.
func (l ListState) Validate() error { return tooLong("after", l.After, MaxStateKey) }

// StateEntry is one value. UpdatedBy is the display name of the member who wrote it.
type StateEntry struct {
	Key       string          `json:"key"`
	Value     json.RawMessage `json:"value"`
	UpdatedBy string          `json:"updatedBy"`
	UpdatedAt string          `json:"updatedAt"`
}

// StateResult answers GetState. A key that is not set has the value null and the rest empty.
type StateResult struct {
	Type string `json:"type"`
	StateEntry
	ReqID string `json:"_reqId,omitempty"`
}

// StateList answers ListState. More: there are entries behind the last one.
type StateList struct {
	Type    string       `json:"type"`
	Entries []StateEntry `json:"entries"`
	More    bool         `json:"more,omitempty"`
	ReqID   string       `json:"_reqId,omitempty"`
}

// StateAck answers DeleteState. Action is ActionDeleted or ActionNotFound.
type StateAck struct {
	Type   string `json:"type"`
	Key    string `json:"key"`
	Action string `json:"action"`
	ReqID  string `json:"_reqId,omitempty"`
}

// StateChange tells the other connections of a mesh that a value was written, or removed: Value is null then, and Deleted, which is ours, true.
type StateChange struct {
	Type      string          `json:"type"`
	Key       string          `json:"key"`
	Value     json.RawMessage `json:"value"`
	UpdatedBy string          `json:"updatedBy"`
	Deleted   bool            `json:"deleted,omitempty"`
}

// Validate checks lengths.
func (s StateChange) Validate() error {
	return firstError(required("key", s.Key), tooLong("key", s.Key, MaxStateKey), tooLong("updatedBy", s.UpdatedBy, MaxTextBytes))
}

// jsonTooLong bounds a value by the size with which it leaves again: Encode writes some characters longer than they came.
func jsonTooLong(field string, raw json.RawMessage, limit int) error {
	if len(raw) > limit {
		return fmt.Errorf("%w: %s over %d bytes", ErrInvalid, field, limit)
	}
	out, err := json.Marshal(raw)
	if err != nil {
		return fmt.Errorf("%w: %s: %v", ErrInvalid, field, err)
	}
	return tooLong(field, string(out), limit)
}

func validStateKey(key string) error {
	return firstError(required("key", key), tooLong("key", key, MaxStateKey))
}
