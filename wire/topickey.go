package wire

import "fmt"

// The frames about the keys of topics, which are ours.

// TopicKey answers topic_key: the newest key sealed for the asker, and the older ones it was given, newest first. SenderPubkey is the member who sealed it;
// the key to open the seal with is in the seal itself.
type TopicKey struct {
	Type         string           `json:"type"`
	Topic        string           `json:"topic"`
	TopicID      string           `json:"topicId"`
	Generation   int              `json:"generation"`
	EncryptedKey string           `json:"encryptedKey"`
	Nonce        string           `json:"nonce"`
	SenderPubkey string           `json:"senderPubkey"`
	CreatedAt    string           `json:"createdAt"`
	Older        []TopicKeyOfPast `json:"older,omitempty"`
	ReqID        string           `json:"_reqId,omitempty"`
}

// TopicKeyOfPast is the key of an earlier generation.
type TopicKeyOfPast struct {
	Generation   int    `json:"generation"`
	EncryptedKey string `json:"encryptedKey"`
	Nonce        string `json:"nonce"`
}

// TopicSeal hands the topic's newest key, sealed for a member who waits for it, to the broker. Generation 0 means the newest.
type TopicSeal struct {
	Type       string `json:"type"`
	Topic      string `json:"topic"`
	MemberID   string `json:"memberId"`
	Generation int    `json:"generation,omitempty"`
	SealedKey
	ReqID string `json:"_reqId,omitempty"`
}

// Validate checks presence and shapes.
func (t TopicSeal) Validate() error {
	return firstError(topicRef(t.Topic), required("memberId", t.MemberID), tooLong("memberId", t.MemberID, MaxIDBytes), t.SealedKey.Validate())
}

// TopicSealed answers it.
type TopicSealed struct {
	Type       string `json:"type"`
	Topic      string `json:"topic"`
	TopicID    string `json:"topicId"`
	MemberID   string `json:"memberId"`
	Generation int    `json:"generation"`
	SealedAt   string `json:"sealedAt"`
	ReqID      string `json:"_reqId,omitempty"`
}

// TopicPending answers topic_pending_seals: who waits for the key of that generation, at most 50.
type TopicPending struct {
	Type       string               `json:"type"`
	Topic      string               `json:"topic"`
	TopicID    string               `json:"topicId"`
	Generation int                  `json:"generation"`
	Pending    []TopicPendingMember `json:"pending"`
	ReqID      string               `json:"_reqId,omitempty"`
}

// TopicPendingMember is one who waits.
type TopicPendingMember struct {
	MemberID    string `json:"memberId"`
	Pubkey      string `json:"pubkey"`
	DisplayName string `json:"displayName"`
}

// TopicRotate gives a topic a new key, or, with Generation 1, its first one. Generation must be one more than the topic's; of two at once one is refused
// with CodeTopicKeyMoved.
type TopicRotate struct {
	Type       string         `json:"type"`
	Topic      string         `json:"topic"`
	Generation int            `json:"generation"`
	Keys       []SealedKeyFor `json:"keys"`
	ReqID      string         `json:"_reqId,omitempty"`
}

// SealedKeyFor is a key sealed for one member.
type SealedKeyFor struct {
	MemberID string `json:"memberId"`
	SealedKey
}

// Validate checks presence, shapes and numbers.
func (t TopicRotate) Validate() error {
	if t.Generation < 1 {
		return fmt.Errorf("%w: generation must be 1 or more", ErrInvalid)
	}
	if len(t.Keys) == 0 || len(t.Keys) > MaxTopicKeys {
		return fmt.Errorf("%w: keys must be 1 to %d", ErrInvalid, MaxTopicKeys)
	}
	for _, k := range t.Keys {
		if err := firstError(required("memberId", k.MemberID), tooLong("memberId", k.MemberID, MaxIDBytes), k.SealedKey.Validate()); err != nil {
			return err
		}
	}
	return topicRef(t.Topic)
}

// TopicRotated answers it.
type TopicRotated struct {
	Type       string `json:"type"`
	Topic      string `json:"topic"`
	TopicID    string `json:"topicId"`
	Generation int    `json:"generation"`
	ReqID      string `json:"_reqId,omitempty"`
}

// TopicEvent is the eventData of the events about topics.
type TopicEvent struct {
	TopicID    string `json:"topicId"`
	Topic      string `json:"topic"`
	Generation int    `json:"generation,omitempty"`
	MemberID   string `json:"memberId,omitempty"` // who joined, left or was given the key
}
