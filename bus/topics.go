package bus

// The payloads of the topic calls that the daemon answers itself, because the broker cannot read what is sealed: mesh.<slug>.<actor>.call.topic_….
// The other topic calls carry the broker's answer as it is.

// Calls about topics.
const (
	CallTopicCreate   = "topic_create"
	CallTopicList     = "topic_list"
	CallTopicJoin     = "topic_join"
	CallTopicLeave    = "topic_leave"
	CallTopicMembers  = "topic_members"
	CallTopicHistory  = "topic_history"
	CallTopicSearch   = "topic_search"
	CallTopicMarkRead = "topic_mark_read"
	CallTopicRotate   = "topic_rotate"
)

// TopicCreate makes a topic, sealed with a new key where the broker keeps keys.
type TopicCreate struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Visibility  string `json:"visibility,omitempty"` // public (default), private or dm
}

// TopicCreated answers it.
type TopicCreated struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Visibility string `json:"visibility"`
	Created    bool   `json:"created"` // false: it existed
	Sealed     bool   `json:"sealed"`  // the topic has a key: the broker cannot read its posts
}

// TopicJoin joins a topic; with Member (a name, a key or a prefix of one) a lead makes another member join.
type TopicJoin struct {
	Topic  string `json:"topic"`
	Role   string `json:"role,omitempty"`
	Member string `json:"member,omitempty"`
}

// TopicLeave leaves a topic; with Member a lead removes another member.
type TopicLeave struct {
	Topic  string `json:"topic"`
	Member string `json:"member,omitempty"`
}

// TopicHistory asks for posts, newest first.
type TopicHistory struct {
	Topic    string `json:"topic"`
	Limit    int    `json:"limit,omitempty"`
	BeforeID string `json:"beforeId,omitempty"`
}

// TopicPage answers it. HasMore: older posts exist.
type TopicPage struct {
	Topic    string      `json:"topic"`
	TopicID  string      `json:"topicId"`
	Messages []TopicPost `json:"messages"`
	HasMore  bool        `json:"hasMore,omitempty"`
}

// TopicPost is one post: the broker's fields, and the text. Message is null when the post cannot be opened here, and Reason says why.
type TopicPost struct {
	ID             string  `json:"id"`
	SenderPubkey   string  `json:"senderPubkey"`
	SenderMemberID string  `json:"senderMemberId,omitempty"`
	SenderName     string  `json:"senderName"`
	SentAs         string  `json:"sentAs,omitempty"` // the name of the session that sent it, when it is another one
	Nonce          string  `json:"nonce"`
	Ciphertext     string  `json:"ciphertext"`
	BodyVersion    int     `json:"bodyVersion"` // 1: readable by the broker; 2: sealed
	ReplyToID      string  `json:"replyToId,omitempty"`
	CreatedAt      string  `json:"createdAt"`
	Message        *string `json:"message"`
	Reason         string  `json:"reason,omitempty"`
}

// TopicSearch looks for posts that hold all words of Query, newest first. The daemon opens the posts and looks itself: the newest 2,000 of the topic.
type TopicSearch struct {
	Topic string `json:"topic"`
	Query string `json:"query"`
	Limit int    `json:"limit,omitempty"` // default 50, at most 200
}

// TopicFound answers it. Searched counts the posts looked at; HasMore: older posts exist that were not.
type TopicFound struct {
	Topic    string      `json:"topic"`
	TopicID  string      `json:"topicId"`
	Messages []TopicPost `json:"messages"`
	Searched int         `json:"searched"`
	HasMore  bool        `json:"hasMore,omitempty"`
}

// TopicRotate gives a topic a new key, or its first one.
type TopicRotate struct {
	Topic string `json:"topic"`
}

// TopicRotated answers it.
type TopicRotated struct {
	Topic      string `json:"topic"`
	TopicID    string `json:"topicId"`
	Generation int    `json:"generation"`
	SealedFor  int    `json:"sealedFor"` // members
}
