package wire

import (
	"encoding/base64"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"claudemesh/mesh"
)

// Frame types of the topics. topic_key and what follows it are ours: the reference does the same over its web application's HTTP.
const (
	TypeTopicCreate       = "topic_create"
	TypeTopicCreated      = "topic_created"
	TypeTopicList         = "topic_list"
	TypeTopicListReply    = "topic_list_response"
	TypeTopicJoin         = "topic_join"
	TypeTopicLeave        = "topic_leave"
	TypeTopicMembers      = "topic_members"
	TypeTopicMembersReply = "topic_members_response"
	TypeTopicHistory      = "topic_history"
	TypeTopicHistoryReply = "topic_history_response"
	TypeTopicMarkRead     = "topic_mark_read"
	TypeTopicKey          = "topic_key"
	TypeTopicKeyReply     = "topic_key_response"
	TypeTopicSeal         = "topic_seal"
	TypeTopicSealed       = "topic_sealed"
	TypeTopicPendingSeals = "topic_pending_seals"
	TypeTopicPendingReply = "topic_pending_seals_response"
	TypeTopicRotate       = "topic_rotate"
	TypeTopicRotated      = "topic_rotated"
)

// System events about topics, sent to member connections that announced CapTopicKeys. They are hints: the list of topics says the same.
const (
	EventTopicChanged      = "topic_changed"       // membership, or a key for the receiver
	EventTopicSealNeeded   = "topic_seal_needed"   // a member waits for the key, and the receiver has it
	EventTopicRotateNeeded = "topic_rotate_needed" // somebody left who has the key, and the receiver may make a new one
)

// Visibilities of a topic. A private topic, or one of kind dm, is joined by invitation only and listed to its members and the mesh's admins only.
const (
	TopicPublic  = "public"
	TopicPrivate = "private"
	TopicDM      = "dm"
)

// Roles in a topic. A lead invites, and makes new keys.
const (
	TopicLead     = "lead"
	TopicMember   = "member"
	TopicObserver = "observer" // reads, does not post
)

// Limits of the topics.
const (
	// MaxTopicPage bounds the posts of one page of history.
	MaxTopicPage = 200
	// MaxTopicKeys bounds the members for whom one generation of a topic's key can be sealed.
	MaxTopicKeys = 3000
	// MaxTopicGenerations is how many generations of a topic's key a broker keeps for their holders.
	MaxTopicGenerations = 256
)

// Body versions of a post.
const (
	BodyPlain  = 1 // base64 of the text
	BodySealed = 2 // crypto_secretbox with the topic's key
)

// Error codes of the topics.
const (
	CodeTopicNotFound    = "topic_not_found"
	CodeTopicUnencrypted = "topic_unencrypted"         // it has no key
	CodeKeyNotSealed     = "key_not_sealed_for_member" // nobody has sealed it for the asker yet
	CodeNotInTopic       = "recipient_not_in_topic"
	CodeTopicKeyMoved    = "already_encrypted" // there is a newer key than the one asked to be replaced
)

// Acks of refused posts, in Ack.Code.
const (
	AckForbidden = "forbidden" // not a member of the topic, or one that may not post
	AckNotFound  = "not_found" // no such topic
)

// SealedKey is a topic's key, sealed for one member (mesh.SealTopicKey): EncryptedKey is base64 of 80 bytes, Nonce of 24.
type SealedKey struct {
	EncryptedKey string `json:"encryptedKey"`
	Nonce        string `json:"nonce"`
}

// Validate checks shapes and sizes.
func (k SealedKey) Validate() error {
	return firstError(base64Of("encryptedKey", k.EncryptedKey, mesh.SealedTopicKeySize), base64Of("nonce", k.Nonce, mesh.NonceSize))
}

func base64Of(field, s string, size int) error {
	if base64.StdEncoding.EncodedLen(size) == len(s) {
		if raw, err := base64.StdEncoding.DecodeString(s); err == nil && len(raw) == size {
			return nil
		}
	}
	return fmt.Errorf("%w: %s must be base64 of %d bytes", ErrInvalid, field, size)
}

// TopicCreate makes a topic, or finds the one of that name. With a sealed key, which is ours, the topic has it from the start; the key is ignored when the
// topic exists.
type TopicCreate struct {
	Type        string     `json:"type"`
	Name        string     `json:"name"`
	Description string     `json:"description,omitempty"`
	Visibility  string     `json:"visibility,omitempty"`
	Key         *SealedKey `json:"key,omitempty"` // sealed for the creator
	ReqID       string     `json:"_reqId,omitempty"`
}

// Validate checks presence, values and lengths.
func (t TopicCreate) Validate() error {
	switch t.Visibility {
	case "", TopicPublic, TopicPrivate, TopicDM:
	default:
		return fmt.Errorf("%w: visibility must be public, private or dm", ErrInvalid)
	}
	if t.Key != nil {
		if err := t.Key.Validate(); err != nil {
			return err
		}
	}
	return firstError(topicName(t.Name), tooLong("description", t.Description, MaxTextBytes))
}

func topicName(s string) error {
	if strings.TrimSpace(s) != s || strings.HasPrefix(s, "#") || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return fmt.Errorf("%w: a topic's name has no #, no control characters and no space around it", ErrInvalid)
	}
	return firstError(required("name", s), tooLong("name", s, MaxNameBytes))
}

// TopicCreated answers it.
type TopicCreated struct {
	Type    string   `json:"type"`
	Topic   TopicRef `json:"topic"`
	Created bool     `json:"created"`
	ReqID   string   `json:"_reqId,omitempty"`
}

// TopicRef names a topic. EncryptedKey, Nonce and Generation are set when the answer comes with the topic's key, sealed for the asker.
type TopicRef struct {
	ID           string `json:"id"`
	Name         string `json:"name"`
	Visibility   string `json:"visibility"`
	Generation   int    `json:"generation,omitempty"`
	EncryptedKey string `json:"encryptedKey,omitempty"`
	Nonce        string `json:"nonce,omitempty"`
}

// Topic is one row of topic_list_response. What stands behind CreatedAt is ours.
type Topic struct {
	ID          string  `json:"id"`
	Name        string  `json:"name"`
	Description *string `json:"description"`
	Visibility  string  `json:"visibility"`
	MemberCount int     `json:"memberCount"`
	CreatedAt   string  `json:"createdAt"`

	Role         string `json:"role,omitempty"`         // the asker's, "" when it is no member
	Generation   int    `json:"generation,omitempty"`   // of the newest key, 0: the topic has none
	HasKey       bool   `json:"hasKey,omitempty"`       // the newest key is sealed for the asker
	PendingSeals int    `json:"pendingSeals,omitempty"` // members that wait for the key which the asker has
	RotationDue  bool   `json:"rotationDue,omitempty"`  // somebody who left has the key, and the asker may make a new one
}

// TopicList answers topic_list, by name.
type TopicList struct {
	Type   string  `json:"type"`
	Topics []Topic `json:"topics"`
	ReqID  string  `json:"_reqId,omitempty"`
}

// TopicRequest is topic_members, topic_mark_read, topic_key and topic_pending_seals. Topic is an id or a name, without "#".
type TopicRequest struct {
	Type  string `json:"type"`
	Topic string `json:"topic"`
	ReqID string `json:"_reqId,omitempty"`
}

// Validate checks presence and length.
func (t TopicRequest) Validate() error { return topicRef(t.Topic) }

func topicRef(s string) error {
	return firstError(required("topic", s), tooLong("topic", s, MaxNameBytes))
}

// TopicJoin makes the asker, or with MemberID (ours: an id or a public key) another member, a member of a topic. Only a lead invites others.
type TopicJoin struct {
	Type     string `json:"type"`
	Topic    string `json:"topic"`
	Role     string `json:"role,omitempty"`
	MemberID string `json:"memberId,omitempty"`
	ReqID    string `json:"_reqId,omitempty"`
}

// Validate checks presence, values and lengths.
func (t TopicJoin) Validate() error {
	switch t.Role {
	case "", TopicLead, TopicMember, TopicObserver:
	default:
		return fmt.Errorf("%w: role must be lead, member or observer", ErrInvalid)
	}
	return firstError(topicRef(t.Topic), tooLong("memberId", t.MemberID, MaxIDBytes))
}

// TopicLeave ends the asker's membership or, with MemberID (ours: an id or a public key), another member's. Only a lead, or the mesh's admins, remove others.
type TopicLeave struct {
	Type     string `json:"type"`
	Topic    string `json:"topic"`
	MemberID string `json:"memberId,omitempty"`
	ReqID    string `json:"_reqId,omitempty"`
}

// Validate checks presence and lengths.
func (t TopicLeave) Validate() error {
	return firstError(topicRef(t.Topic), tooLong("memberId", t.MemberID, MaxIDBytes))
}

// TopicMembers answers topic_members, by display name. Topic is as it was asked for.
type TopicMembers struct {
	Type    string            `json:"type"`
	Topic   string            `json:"topic"`
	Members []TopicMembership `json:"members"`
	ReqID   string            `json:"_reqId,omitempty"`
}

// TopicMembership is one member of a topic. Pubkey is its member key.
type TopicMembership struct {
	MemberID    string  `json:"memberId"`
	Pubkey      string  `json:"pubkey"`
	DisplayName string  `json:"displayName"`
	Role        string  `json:"role"`
	JoinedAt    string  `json:"joinedAt"`
	LastReadAt  *string `json:"lastReadAt"`
}

// TopicHistory asks for posts, the newest first: all, or those before BeforeID.
type TopicHistory struct {
	Type     string `json:"type"`
	Topic    string `json:"topic"`
	Limit    int    `json:"limit,omitempty"` // 1 to MaxTopicPage, default 50
	BeforeID string `json:"beforeId,omitempty"`
	ReqID    string `json:"_reqId,omitempty"`
}

// Validate checks presence and lengths. A limit out of range is brought into it, as the reference does.
func (t TopicHistory) Validate() error {
	return firstError(topicRef(t.Topic), tooLong("beforeId", t.BeforeID, MaxIDBytes))
}

// TopicHistoryPage answers it. A page ends early where the answer would become too large; HasMore, which is ours, says whether older posts exist.
type TopicHistoryPage struct {
	Type     string      `json:"type"`
	Topic    string      `json:"topic"` // as it was asked for
	Messages []TopicPost `json:"messages"`
	HasMore  bool        `json:"hasMore,omitempty"`
	ReqID    string      `json:"_reqId,omitempty"`
}

// TopicPost is one post. ID is the message id of the push, too. SenderPubkey is the session key used, else the member key; SenderName the member's name,
// SentAs (ours) the name of the session when it has another one.
type TopicPost struct {
	ID             string `json:"id"`
	SenderPubkey   string `json:"senderPubkey"`
	SenderMemberID string `json:"senderMemberId"`
	SenderName     string `json:"senderName"`
	SentAs         string `json:"sentAs,omitempty"`
	Nonce          string `json:"nonce"`
	Ciphertext     string `json:"ciphertext"`
	BodyVersion    int    `json:"bodyVersion"`
	ReplyToID      string `json:"replyToId,omitempty"`
	CreatedAt      string `json:"createdAt"`
}
