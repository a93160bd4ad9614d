package wire

// Inbound webhooks: whoever knows a webhook's address can mail an event to every member of the mesh.

// Frame types of webhooks.
const (
	TypeCreateWebhook = "create_webhook"
	TypeWebhookAck    = "webhook_ack"
	TypeListWebhooks  = "list_webhooks"
	TypeWebhookList   = "webhook_list"
	TypeDeleteWebhook = "delete_webhook"
)

// Error codes of webhooks.
const (
	CodeInvalidWebhook = "invalid_webhook"
	CodeWebhookExists  = "webhook_exists"
)

// MaxHookBody bounds what is posted to a webhook, in bytes.
const MaxHookBody = 64 << 10

// Webhook names a webhook, to create or to delete it.
type Webhook struct {
	Type  string `json:"type"`
	Name  string `json:"name"`
	ReqID string `json:"_reqId,omitempty"`
}

// WebhookAck answers both. URL and Secret (64 hex digits, the last part of URL) are told once, when the webhook is made; the broker keeps a hash. Deleted is
// ours: whether there was anything to delete.
type WebhookAck struct {
	Type    string `json:"type"`
	Name    string `json:"name"`
	URL     string `json:"url"`
	Secret  string `json:"secret"`
	Deleted *bool  `json:"deleted,omitempty"`
	ReqID   string `json:"_reqId,omitempty"`
}

// WebhookInfo is one entry of WebhookList. The secret in URL is replaced by asterisks. CreatedBy, the public key of a member, is ours.
type WebhookInfo struct {
	Name      string `json:"name"`
	URL       string `json:"url"`
	Active    bool   `json:"active"`
	CreatedAt string `json:"createdAt"`
	CreatedBy string `json:"createdBy,omitempty"`
}

// WebhookList answers list_webhooks: the caller's own, or all for an admin, by name.
type WebhookList struct {
	Type     string        `json:"type"`
	Webhooks []WebhookInfo `json:"webhooks"`
	ReqID    string        `json:"_reqId,omitempty"`
}

// HookReply answers POST /hook/MESHID/SECRET. Delivered counts the open connections of the mesh; the event waits for everybody else.
type HookReply struct {
	OK        bool   `json:"ok"`
	Delivered *int   `json:"delivered,omitempty"`
	Error     string `json:"error,omitempty"`
}
