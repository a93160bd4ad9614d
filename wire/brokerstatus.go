package wire

// BrokerStatus answers GET /status of a broker.
type BrokerStatus struct {
	Status         string         `json:"status"` // ok, or degraded while the store takes no mail
	Version        string         `json:"version"`
	GitSHA         string         `json:"gitSha,omitempty"`
	Uptime         int64          `json:"uptime"`      // seconds
	Sockets        int            `json:"sockets"`     // open ones, greeted or not
	Connections    int            `json:"connections"` // that said hello
	Meshes         int            `json:"meshes"`
	Members        int            `json:"members"`
	Invites        int            `json:"invites"`     // that a code stands for
	Messages       uint64         `json:"messages"`    // accepted and still kept
	QueueDepth     int            `json:"queue_depth"` // entries waiting in all mailboxes
	Mailboxes      int            `json:"mailboxes"`   // that hold something
	DeepestMailbox int            `json:"deepest_mailbox"`
	FanoutLag      uint64         `json:"fanout_lag"` // accepted messages that are in no mailbox yet
	Bytes          uint64         `json:"bytes"`      // of all streams
	Streams        []StreamStatus `json:"streams"`
	Error          string         `json:"error,omitempty"`
}

// StreamStatus is one stream of the store. MaxBytes is -1 for no limit of its own.
type StreamStatus struct {
	Name     string `json:"name"`
	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"`
	MaxBytes int64  `json:"max_bytes"`
}

// BrokerHealth answers GET /health and GET /health/ready. DB is up or down; Reason says why a broker is not ready.
type BrokerHealth struct {
	Status  string `json:"status"` // ok; ready, not_ready
	DB      string `json:"db,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Version string `json:"version"`
	GitSHA  string `json:"gitSha"`
	Uptime  int64  `json:"uptime"` // seconds
}
