package broker

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/time/rate"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// webhooks are the webhooks of all meshes, in memory as in the bucket: a request that names none must not cost a read.
type webhooks struct {
	b   *Broker
	log *slog.Logger

	changing sync.Mutex // one change of the bucket at a time
	mu       sync.Mutex
	all      map[string]map[string]*webhook // by mesh id and name
}

type webhook struct {
	hookRecord
	hash  [sha256.Size]byte
	limit *rate.Limiter
}

func newWebhooks(ctx context.Context, b *Broker) (*webhooks, error) {
	h := &webhooks{b: b, log: b.log, all: map[string]map[string]*webhook{}}
	records, err := listRecords[hookRecord](ctx, b.store, hookFamily)
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		parts := strings.Split(r.Key, ".")
		if len(parts) != 3 {
			return nil, fmt.Errorf("read webhooks: bad key %q", r.Key)
		}
		if err := h.enter(parts[1], r.Value); err != nil {
			return nil, err
		}
	}
	return h, nil
}

func (h *webhooks) enter(meshID string, rec hookRecord) error {
	one := &webhook{hookRecord: rec, limit: rate.NewLimiter(rate.Limit(float64(h.b.lim.HookEvents)/60), h.b.lim.HookEvents)}
	sum, err := hex.DecodeString(rec.SecretHash)
	if err != nil || len(sum) != len(one.hash) {
		return fmt.Errorf("read webhook %s: bad hash", rec.ID)
	}
	copy(one.hash[:], sum)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all[meshID] == nil {
		h.all[meshID] = map[string]*webhook{}
	}
	h.all[meshID][rec.Name] = one
	return nil
}

func (h *webhooks) add(meshID string, rec hookRecord) *refusal {
	h.changing.Lock()
	defer h.changing.Unlock()
	h.mu.Lock()
	n, taken := len(h.all[meshID]), h.all[meshID][rec.Name] != nil
	h.mu.Unlock()
	exists := refused(wire.CodeWebhookExists, fmt.Sprintf("webhook %q exists already", rec.Name))
	switch {
	case taken:
		return exists
	case n >= h.b.lim.WebhooksPerMesh:
		return refused(wire.CodeLimit, fmt.Sprintf("limit reached: %d webhooks of a mesh", n))
	}
	ctx, cancel := h.b.deadline()
	defer cancel()
	err := h.b.store.createRecord(ctx, hookKey(meshID, rec.Name), rec)
	if err == nil {
		err = h.enter(meshID, rec)
	}
	switch {
	case errors.Is(err, errRecordExists):
		return exists
	case err != nil:
		h.log.Error("webhook not stored", "err", err)
		return refused(wire.CodeUnavailable, "the store does not answer; no webhook was made")
	}
	return nil
}

// remove deletes a webhook; false when it is not there any more.
func (h *webhooks) remove(meshID string, rec hookRecord) (bool, error) {
	h.changing.Lock()
	defer h.changing.Unlock()
	if now, known := h.find(meshID, rec.Name); !known || now.ID != rec.ID {
		return false, nil
	}
	ctx, cancel := h.b.deadline()
	defer cancel()
	if err := h.b.store.deleteRecord(ctx, hookKey(meshID, rec.Name)); err != nil {
		return false, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.all[meshID], rec.Name)
	return true, nil
}

func (h *webhooks) find(meshID, name string) (hookRecord, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	one := h.all[meshID][name]
	if one == nil {
		return hookRecord{}, false
	}
	return one.hookRecord, true
}

// of lists a mesh's webhooks by name.
func (h *webhooks) of(meshID string) (all []hookRecord) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, one := range h.all[meshID] {
		all = append(all, one.hookRecord)
	}
	slices.SortFunc(all, func(a, b hookRecord) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// bySecret finds the webhook of a secret. It looks at each, so that the time it takes says nothing.
func (h *webhooks) bySecret(meshID, secret string) (found *webhook) {
	sum := sha256.Sum256([]byte(secret))
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, one := range h.all[meshID] {
		if subtle.ConstantTimeCompare(one.hash[:], sum[:]) == 1 {
			found = one
		}
	}
	return found
}

const maxHookKey = 200 // bytes of an idempotency key

// serveWebhook takes an event and mails it to every member.
func (b *Broker) serveWebhook(w http.ResponseWriter, r *http.Request) {
	fail := func(status int, problem string) { answer(w, status, wire.HookReply{Error: problem}) }
	meshID := r.PathValue("mesh")
	one := b.webhooks.bySecret(meshID, r.PathValue("secret"))
	if one == nil {
		fail(http.StatusUnauthorized, "unauthorized")
		return
	}
	if now := b.now(); !one.limit.AllowN(now, 1) {
		w.Header().Set("Retry-After", strconv.Itoa(int(time.Minute/time.Second)/max(b.lim.HookEvents, 1)+1))
		fail(http.StatusTooManyRequests, "rate limited")
		return
	}
	key := cmp.Or(r.Header.Get("Idempotency-Key"), r.Header.Get("X-Claudemesh-Id"))
	if len(key) > maxHookKey || !utf8.ValidString(key) {
		fail(http.StatusBadRequest, "idempotency key too long")
		return
	}
	event, status, problem := readEvent(w, r)
	if problem != "" {
		fail(status, problem)
		return
	}
	ctx, cancel := b.deadline() // not the request's: what has begun is finished
	defer cancel()
	open, err := b.postEvent(ctx, meshID, one.hookRecord, key, event)
	switch {
	case errors.Is(err, errNobodyLeft):
		fail(http.StatusUnauthorized, "unauthorized")
	case errors.Is(err, errNoRoom):
		fail(http.StatusServiceUnavailable, "mailboxes full")
	case err != nil:
		b.log.Warn("webhook event not stored", "mesh", meshID, "webhook", one.ID, "err", err)
		fail(http.StatusServiceUnavailable, "unavailable")
	default:
		answer(w, http.StatusOK, wire.HookReply{OK: true, Delivered: &open})
	}
}

// readEvent reads a JSON object or array of at most wire.MaxHookBody bytes, without the white space in it.
func readEvent(w http.ResponseWriter, r *http.Request) (event []byte, status int, problem string) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, wire.MaxHookBody))
	var tooLong *http.MaxBytesError
	var out bytes.Buffer
	switch {
	case errors.As(err, &tooLong):
		return nil, http.StatusRequestEntityTooLarge, "body too large"
	case err != nil:
		return nil, http.StatusBadRequest, "body not readable"
	case !utf8.Valid(body) || json.Compact(&out, body) != nil:
		return nil, http.StatusBadRequest, "invalid JSON"
	}
	if event = out.Bytes(); event[0] != '{' && event[0] != '[' {
		return nil, http.StatusBadRequest, "invalid JSON body"
	}
	return event, 0, ""
}

// postEvent mails an event to all active members, online or not, and returns how many connections the mesh has open. With a key the same event is mailed
// once, however often it is posted.
func (b *Broker) postEvent(ctx context.Context, meshID string, from hookRecord, key string, event []byte) (open int, err error) {
	b.mu.RLock()
	m := b.meshes[meshID]
	var to []string
	if m != nil && m.active(from.MemberPubkey) != nil { // a member who was removed has no way in
		open = len(m.conns)
		for key, who := range m.members {
			if who.RevokedAt == 0 && who.admits(from.MemberPubkey, mesh.CapBroadcast) {
				to = append(to, key)
			}
		}
	}
	b.mu.RUnlock()
	if to == nil {
		return 0, errNobodyLeft
	}
	to = slices.DeleteFunc(to, func(key string) bool { return b.store.full(ctx, mailSubject(meshID, key), b.lim.MailboxDepth) })
	if len(to) == 0 {
		return 0, errNoRoom
	}
	slices.Sort(to)
	if key == "" {
		if key, err = newID(b.cfg.Rand); err != nil {
			return 0, err
		}
		key = "\x00" + key // no header can hold it
	}
	sum := sha256.Sum256([]byte(key))
	return open, b.post(ctx, &accepted{
		CMID: from.ID + ":" + hex.EncodeToString(sum[:16]), Mesh: meshID, SessionKey: "webhook:" + from.Name, Name: "webhook:" + from.Name, Target: "*", Multicast: true,
		To: to, Priority: wire.PriorityNext, Subtype: wire.SubtypeWebhook, Event: from.Name, EventData: event,
	})
}
