package wire

import (
	"fmt"
	"slices"
	"time"
)

// API keys, for programs that speak HTTP only.
const (
	TypeAPIKeyCreate  = "apikey_create"
	TypeAPIKeyCreated = "apikey_created"
	TypeAPIKeyList    = "apikey_list"
	TypeAPIKeyListed  = "apikey_list_response"
	TypeAPIKeyRevoke  = "apikey_revoke"
	TypeAPIKeyRevoked = "apikey_revoke_response"
)

// CodeInvalidArgs refuses a request for an API key that lacks something.
const CodeInvalidArgs = "invalid_args"

// Capabilities of an API key; admin has all.
const (
	KeySend       = "send"
	KeyRead       = "read"
	KeyStateWrite = "state_write"
	KeyAdmin      = "admin"
)

// MaxTopicScopes bounds the topics of one API key.
const MaxTopicScopes = 64

// APIKeyCreate asks for a key. Without TopicScopes it reaches all topics; without ExpiresAt (ISO-8601) it does not expire.
type APIKeyCreate struct {
	Type         string   `json:"type"`
	Label        string   `json:"label"`
	Capabilities []string `json:"capabilities"`
	TopicScopes  []string `json:"topicScopes,omitempty"`
	ExpiresAt    string   `json:"expiresAt,omitempty"`
	ReqID        string   `json:"_reqId,omitempty"`
}

// Check is Validate with the sentences of the reference; the broker answers them with CodeInvalidArgs.
func (a APIKeyCreate) Check() error {
	switch {
	case a.Label == "" || len(a.Capabilities) == 0:
		return fmt.Errorf("%w: label and at least one capability required", ErrInvalid)
	case len(a.TopicScopes) > MaxTopicScopes:
		return fmt.Errorf("%w: more than %d topics", ErrInvalid, MaxTopicScopes)
	}
	for i, c := range a.Capabilities {
		if c != KeySend && c != KeyRead && c != KeyStateWrite && c != KeyAdmin || slices.Contains(a.Capabilities[:i], c) {
			return fmt.Errorf("%w: capability %.80q is unknown or named twice", ErrInvalid, c)
		}
	}
	for _, t := range a.TopicScopes {
		if err := firstError(required("topic", t), tooLong("topic", t, MaxNameBytes)); err != nil {
			return err
		}
	}
	if a.ExpiresAt != "" {
		if _, err := time.Parse(time.RFC3339, a.ExpiresAt); err != nil {
			return fmt.Errorf("%w: expiresAt must be an ISO-8601 time", ErrInvalid)
		}
	}
	return tooLong("label", a.Label, MaxNameBytes)
}

// APIKeyCreated answers APIKeyCreate. Secret is shown this once.
type APIKeyCreated struct {
	Type         string   `json:"type"`
	ID           string   `json:"id"`
	Secret       string   `json:"secret"`
	Label        string   `json:"label"`
	Prefix       string   `json:"prefix"`
	Capabilities []string `json:"capabilities"`
	TopicScopes  []string `json:"topicScopes"`
	CreatedAt    string   `json:"createdAt"`
	ReqID        string   `json:"_reqId,omitempty"`
}

// APIKey is a key in a list. Times are ISO-8601, null when unset; LastUsedAt is right to the minute.
type APIKey struct {
	ID           string   `json:"id"`
	Label        string   `json:"label"`
	Prefix       string   `json:"prefix"`
	Capabilities []string `json:"capabilities"`
	TopicScopes  []string `json:"topicScopes"`
	CreatedAt    string   `json:"createdAt"`
	LastUsedAt   *string  `json:"lastUsedAt"`
	RevokedAt    *string  `json:"revokedAt"`
	ExpiresAt    *string  `json:"expiresAt"`
}

// APIKeyListed answers apikey_list, newest first, revoked ones included.
type APIKeyListed struct {
	Type  string   `json:"type"`
	Keys  []APIKey `json:"keys"`
	ReqID string   `json:"_reqId,omitempty"`
}

// APIKeyRevoke ends a key, by its id or the beginning of it.
type APIKeyRevoke struct {
	Type  string `json:"type"`
	ID    string `json:"id"`
	ReqID string `json:"_reqId,omitempty"`
}

// Outcomes of APIKeyRevoke.
const (
	RevokeDone      = "revoked"
	RevokeNotFound  = "not_found"
	RevokeNotUnique = "not_unique"
)

// APIKeyRevoked answers APIKeyRevoke.
type APIKeyRevoked struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	ID      string `json:"id,omitempty"`
	Matches int    `json:"matches,omitempty"`
	ReqID   string `json:"_reqId,omitempty"`
}
