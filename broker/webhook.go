package broker

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"time"

	"claudemesh/wire"
)

// hookRecord is a webhook, under webhook.MESHID.NAME in CM_DATA. Of its secret only the SHA-256 is kept. ID tells it from others that had its name.
type hookRecord struct {
	ID           string `json:"id"`
	Name         string `json:"name"`
	SecretHash   string `json:"secret_hash"` // hex
	MemberID     string `json:"member_id"`
	MemberPubkey string `json:"member_pubkey"`
	CreatedAt    int64  `json:"created_at"`
}

const hookFamily = "webhook"

func hookKey(meshID, name string) string { return recordKey(hookFamily, meshID, recordName(name)) }

func (c *conn) createWebhook(data []byte, reqID string) {
	var f wire.Webhook
	if !c.decode(data, reqID, &f) {
		return
	}
	switch {
	case strings.TrimSpace(f.Name) == "":
		c.fail(reqID, wire.CodeInvalidWebhook, "name is required")
		return
	case !validName(f.Name):
		c.fail(reqID, wire.CodeInvalidWebhook, "a name has at most 128 bytes and no control characters")
		return
	}
	secret, id, err := c.hookSecret()
	if err != nil {
		c.log.Error("webhook refused", "err", err)
		c.fail(reqID, wire.CodeInternal, "internal error")
		return
	}
	sum := sha256.Sum256([]byte(secret))
	no := c.b.webhooks.add(c.mesh.rec.ID, hookRecord{
		ID: id, Name: f.Name, SecretHash: hex.EncodeToString(sum[:]), MemberID: c.member.ID, MemberPubkey: c.member.Pubkey, CreatedAt: c.b.now().UnixMilli(),
	})
	if no != nil {
		c.fail(reqID, no.code, no.message)
		return
	}
	c.reply(wire.WebhookAck{Type: wire.TypeWebhookAck, Name: f.Name, URL: c.b.hookURL(c.mesh.rec.ID, secret), Secret: secret, ReqID: reqID})
}

func (c *conn) hookSecret() (secret, id string, err error) {
	var raw [32]byte
	if _, err = io.ReadFull(c.b.cfg.Rand, raw[:]); err == nil {
		id, err = newID(c.b.cfg.Rand)
	}
	return hex.EncodeToString(raw[:]), id, err
}

// hookURL is the address of a webhook: the broker's public address with the scheme of HTTP.
func (b *Broker) hookURL(meshID, secret string) string {
	base := strings.TrimSuffix(b.cfg.PublicURL, "/ws")
	if rest, ok := strings.CutPrefix(base, "ws"); ok {
		base = "http" + rest
	}
	return base + "/hook/" + meshID + "/" + secret
}

// hiddenSecret stands in lists where the secret was.
const hiddenSecret = "********"

func (c *conn) listWebhooks(_ []byte, reqID string) {
	out := wire.WebhookList{Type: wire.TypeWebhookList, Webhooks: []wire.WebhookInfo{}, ReqID: reqID}
	everybodys := c.mayTouch(wire.TypeListWebhooks, false) == nil
	for _, h := range c.b.webhooks.of(c.mesh.rec.ID) {
		if everybodys || h.MemberID == c.member.ID {
			out.Webhooks = append(out.Webhooks, wire.WebhookInfo{
				Name: h.Name, URL: c.b.hookURL(c.mesh.rec.ID, hiddenSecret), Active: true,
				CreatedAt: wire.Timestamp(time.UnixMilli(h.CreatedAt)), CreatedBy: h.MemberPubkey,
			})
		}
	}
	c.reply(out)
}

func (c *conn) deleteWebhook(data []byte, reqID string) {
	var f wire.Webhook
	if !c.decode(data, reqID, &f) {
		return
	}
	deleted := false
	if h, known := c.b.webhooks.find(c.mesh.rec.ID, f.Name); known {
		if no := c.mayTouch(wire.TypeDeleteWebhook, h.MemberID == c.member.ID); no != nil {
			c.fail(reqID, no.code, no.message)
			return
		}
		var err error
		if deleted, err = c.b.webhooks.remove(c.mesh.rec.ID, h); err != nil {
			c.storeFailed(reqID, wire.TypeDeleteWebhook, err)
			return
		}
	}
	c.reply(wire.WebhookAck{Type: wire.TypeWebhookAck, Name: f.Name, Deleted: &deleted, ReqID: reqID})
}

var errNoRoom = errors.New("no mailbox has room")
