package broker

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"claudemesh/wire"
)

// API keys let programs that speak HTTP only act for the member that made them: never with more than that member may, and no longer than it is in. Of the
// secret only the SHA-256 is kept.

// apiKeyFamily names the records: apikey.MESHID.ID.
const apiKeyFamily = "apikey"

// Bounds of API keys.
const (
	keysPerMember  = 64 // that work, and as many that do not any more; of those the oldest are forgotten
	keyRequests    = 10 // a second and key
	keyBurst       = 60
	keyUsedEvery   = time.Minute // lastUsedAt is stored this often at most
	keySecretBytes = 32
	keyPrefixChars = 11
)

// apiKeyRecord is a key as it is stored. Times are Unix milliseconds, 0 for never.
type apiKeyRecord struct {
	ID           string   `json:"id"`
	Label        string   `json:"label"`
	Prefix       string   `json:"prefix"`
	Hash         string   `json:"hash"` // hex SHA-256 of the secret
	Capabilities []string `json:"capabilities"`
	Topics       []string `json:"topics,omitempty"` // names; none: all topics
	Member       string   `json:"member"`           // public key of who made it
	CreatedAt    int64    `json:"created_at"`
	UsedAt       int64    `json:"used_at,omitempty"`
	RevokedAt    int64    `json:"revoked_at,omitempty"`
	ExpiresAt    int64    `json:"expires_at,omitempty"`
}

// apiKey is a key in memory. Broker.mu guards it.
type apiKey struct {
	apiKeyRecord
	mesh    string
	savedAt int64 // the UsedAt that is stored
	streams int   // open ones
	pace    *rate.Limiter
}

func (k *apiKey) works(now time.Time) bool {
	return k.RevokedAt == 0 && (k.ExpiresAt == 0 || now.UnixMilli() < k.ExpiresAt)
}

func (k *apiKeyRecord) view() wire.APIKey {
	at := func(ms int64) *string {
		if ms == 0 {
			return nil
		}
		s := wire.Timestamp(unixMilli(ms))
		return &s
	}
	return wire.APIKey{
		ID: k.ID, Label: k.Label, Prefix: k.Prefix, Capabilities: k.Capabilities, TopicScopes: k.Topics, CreatedAt: *at(k.CreatedAt),
		LastUsedAt: at(k.UsedAt), RevokedAt: at(k.RevokedAt), ExpiresAt: at(k.ExpiresAt),
	}
}

func (b *Broker) loadAPIKeys(ctx context.Context) error {
	all, err := listRecords[apiKeyRecord](ctx, b.store, apiKeyFamily)
	if err != nil {
		return err
	}
	for _, r := range all {
		if _, meshID, _ := splitKey(r.Key); b.meshes[meshID] != nil && r.Value.CreatedAt != 0 {
			b.addAPIKey(meshID, r.Value)
		}
	}
	return nil
}

func (b *Broker) addAPIKey(meshID string, rec apiKeyRecord) {
	b.apiKeys[rec.Hash] = &apiKey{apiKeyRecord: rec, mesh: meshID, savedAt: rec.UsedAt, pace: rate.NewLimiter(keyRequests, keyBurst)}
}

// keysOf lists the keys of a mesh, or of one member of it, newest first. Called under the lock.
func (b *Broker) keysOf(meshID, member string) (all []*apiKey) {
	for _, k := range b.apiKeys {
		if k.mesh == meshID && (member == "" || k.Member == member) {
			all = append(all, k)
		}
	}
	slices.SortFunc(all, func(x, y *apiKey) int {
		return cmp.Or(cmp.Compare(y.CreatedAt, x.CreatedAt), strings.Compare(x.ID, y.ID))
	})
	return all
}

func hashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func (c *conn) apiKeyCreate(data []byte, reqID string) {
	var f wire.APIKeyCreate
	if !c.decode(data, reqID, &f) {
		return
	}
	invalid := func(why string) {
		// The reference puts the request id into "id", and its clients look there.
		c.reply(wire.Error{Type: wire.TypeError, Code: wire.CodeInvalidArgs, Message: why, ID: reqID, ReqID: reqID})
	}
	if err := f.Check(); err != nil {
		invalid(strings.TrimPrefix(err.Error(), wire.ErrInvalid.Error()+": "))
		return
	}
	now := c.b.now()
	var expires int64
	if f.ExpiresAt != "" {
		at, _ := time.Parse(time.RFC3339, f.ExpiresAt) // Check has parsed it
		if expires = at.UnixMilli(); !at.After(now) {
			invalid("expiresAt is in the past")
			return
		}
	}
	if no := c.caller().mayIssue(f.Capabilities); no != nil {
		c.fail(reqID, no.code, no.message)
		return
	}
	rec, secret, err := newAPIKey(c.b.cfg.Rand, f, c.member.Pubkey, now, expires)
	if err != nil {
		c.log.Error("api key not made", "err", err)
		c.fail(reqID, wire.CodeInternal, "internal error")
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	no, err := c.b.storeAPIKey(ctx, c.mesh.rec.ID, rec)
	switch {
	case err != nil:
		c.storeFailed(reqID, wire.TypeAPIKeyCreate, err)
	case no != nil:
		c.fail(reqID, no.code, no.message)
	default:
		v := rec.view()
		c.reply(wire.APIKeyCreated{
			Type: wire.TypeAPIKeyCreated, ID: v.ID, Secret: secret, Label: v.Label, Prefix: v.Prefix, Capabilities: v.Capabilities, TopicScopes: v.TopicScopes,
			CreatedAt: v.CreatedAt, ReqID: reqID,
		})
	}
}

func newAPIKey(random io.Reader, f wire.APIKeyCreate, member string, now time.Time, expires int64) (rec apiKeyRecord, secret string, err error) {
	id, err := newID(random)
	if err != nil {
		return rec, "", err
	}
	raw := make([]byte, keySecretBytes)
	if _, err := io.ReadFull(random, raw); err != nil {
		return rec, "", fmt.Errorf("read randomness: %w", err)
	}
	secret = "cm_" + base64.RawURLEncoding.EncodeToString(raw)
	return apiKeyRecord{
		ID: id, Label: f.Label, Prefix: secret[:keyPrefixChars], Hash: hashSecret(secret), Capabilities: f.Capabilities, Topics: f.TopicScopes, Member: member,
		CreatedAt: now.UnixMilli(), ExpiresAt: expires,
	}, secret, nil
}

// storeAPIKey adds a key, if its member has room for it, and forgets the member's oldest dead ones.
func (b *Broker) storeAPIKey(ctx context.Context, meshID string, rec apiKeyRecord) (*refusal, error) {
	b.editing.Lock()
	defer b.editing.Unlock()
	now := b.now()
	working := 0
	var dead []*apiKey
	b.mu.RLock()
	for _, k := range b.keysOf(meshID, rec.Member) {
		if k.works(now) {
			working++
		} else {
			dead = append(dead, k)
		}
	}
	b.mu.RUnlock()
	if working >= keysPerMember {
		return refused(wire.CodeLimit, fmt.Sprintf("a member has at most %d API keys that work; revoke one first", keysPerMember)), nil
	}
	for len(dead) >= keysPerMember {
		oldest := dead[len(dead)-1]
		if err := b.store.deleteRecord(ctx, recordKey(apiKeyFamily, meshID, oldest.ID)); err != nil {
			return nil, err
		}
		b.mu.Lock()
		delete(b.apiKeys, oldest.Hash)
		b.mu.Unlock()
		dead = dead[:len(dead)-1]
	}
	if err := b.store.createRecord(ctx, recordKey(apiKeyFamily, meshID, rec.ID), rec); err != nil {
		return nil, err
	}
	b.mu.Lock()
	b.addAPIKey(meshID, rec)
	b.mu.Unlock()
	return nil, nil
}

// mine is the member whose keys the caller may see and end: "" for everybody's.
func (c *conn) mine(op string) string {
	if c.mayTouch(op, false) == nil {
		return ""
	}
	return c.member.Pubkey
}

func (c *conn) apiKeyList(_ []byte, reqID string) {
	member := c.mine(wire.TypeAPIKeyList)
	keys := []wire.APIKey{}
	c.b.mu.RLock()
	for _, k := range c.b.keysOf(c.mesh.rec.ID, member) {
		keys = append(keys, k.view())
	}
	c.b.mu.RUnlock()
	c.reply(wire.APIKeyListed{Type: wire.TypeAPIKeyListed, Keys: keys, ReqID: reqID})
}

// apiKeyRevoke ends a key. Another member's is not there for whoever may not touch it.
func (c *conn) apiKeyRevoke(data []byte, reqID string) {
	var f wire.APIKeyRevoke
	if !c.decode(data, reqID, &f) {
		return
	}
	if f.ID == "" {
		c.fail(reqID, wire.CodeInvalidArgs, "id required")
		return
	}
	member := c.mine(wire.TypeAPIKeyRevoke)
	var met []*apiKey
	c.b.mu.RLock()
	for _, k := range c.b.keysOf(c.mesh.rec.ID, member) {
		if k.ID == f.ID {
			met = []*apiKey{k}
			break
		}
		if strings.HasPrefix(k.ID, f.ID) {
			met = append(met, k)
		}
	}
	c.b.mu.RUnlock()
	answer := wire.APIKeyRevoked{Type: wire.TypeAPIKeyRevoked, Status: wire.RevokeNotFound, ReqID: reqID}
	switch len(met) {
	case 0:
	case 1:
		ctx, cancel := c.b.deadline()
		defer cancel()
		if err := c.b.revokeAPIKey(ctx, met[0]); err != nil {
			c.storeFailed(reqID, wire.TypeAPIKeyRevoke, err)
			return
		}
		answer.Status, answer.ID = wire.RevokeDone, met[0].ID
	default:
		answer.Status, answer.Matches = wire.RevokeNotUnique, 2
	}
	c.reply(answer)
}

func (b *Broker) revokeAPIKey(ctx context.Context, k *apiKey) error {
	now := b.now().UnixMilli()
	return b.editAPIKey(ctx, k, func(r *apiKeyRecord) {
		if r.RevokedAt == 0 {
			r.RevokedAt = now
		}
	})
}

// editAPIKey stores a changed key, unless it was forgotten meanwhile.
func (b *Broker) editAPIKey(ctx context.Context, k *apiKey, change func(*apiKeyRecord)) error {
	b.editing.Lock()
	defer b.editing.Unlock()
	b.mu.RLock()
	rec, known := k.apiKeyRecord, b.apiKeys[k.Hash] == k
	b.mu.RUnlock()
	if !known {
		return nil
	}
	change(&rec)
	if err := b.store.putRecord(ctx, recordKey(apiKeyFamily, k.mesh, rec.ID), rec); err != nil {
		return err
	}
	b.mu.Lock()
	k.UsedAt, k.RevokedAt, k.savedAt = rec.UsedAt, rec.RevokedAt, rec.UsedAt
	b.mu.Unlock()
	return nil
}

// revokeKeysOf ends every key of a member.
func (b *Broker) revokeKeysOf(ctx context.Context, m *meshState, pubkey string) error {
	b.mu.RLock()
	all := b.keysOf(m.rec.ID, pubkey)
	b.mu.RUnlock()
	for _, k := range all {
		if k.works(b.now()) {
			if err := b.revokeAPIKey(ctx, k); err != nil {
				return err
			}
		}
	}
	return nil
}
