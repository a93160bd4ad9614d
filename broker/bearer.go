package broker

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"claudemesh/wire"
)

// keyCaller is who makes a request with an API key: the member that made the key, as far as the key goes.
type keyCaller struct {
	caller
	mesh   *meshState
	member *member
	key    apiKeyRecord // as it was when the request came
	live   *apiKey
}

// Codes of refused requests with API keys.
const (
	codeKeyMissing    = "error.api_key_missing"
	codeKeyInvalid    = "error.api_key_invalid"
	codeKeyCapability = "error.api_key_missing_capability"
	codeKeyTopic      = "error.api_key_topic_out_of_scope"
	codeKeyRate       = "error.rate_limited"
)

// bearer serves a route for API keys: it checks the key, its pace, its capability and the role of its member, by the row of the table.
func (b *Broker) bearer(route string, serve func(http.ResponseWriter, *http.Request, keyCaller)) (string, http.HandlerFunc) {
	return route, func(w http.ResponseWriter, r *http.Request) {
		who, no := b.byKey(r)
		if no == nil {
			no = who.mayUse(route)
		}
		if no != nil {
			b.refuseKey(w, r, no)
			return
		}
		serve(w, r, who)
	}
}

// keyRefusal is a refused request with an API key.
type keyRefusal struct {
	status        int
	code, message string
}

// refuseKey answers as the reference does.
func (b *Broker) refuseKey(w http.ResponseWriter, r *http.Request, no *keyRefusal) {
	if no.status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	answer(w, no.status, map[string]any{
		"code": no.code, "message": no.message, "status": no.status, "timestamp": wire.Timestamp(b.now()), "path": r.URL.Path,
	})
}

// byKey finds the key of a request, and notes that it was used.
func (b *Broker) byKey(r *http.Request) (keyCaller, *keyRefusal) {
	secret, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || secret == "" {
		return keyCaller{}, &keyRefusal{http.StatusUnauthorized, codeKeyMissing, "an API key is needed: Authorization: Bearer cm_…"}
	}
	invalid := &keyRefusal{http.StatusUnauthorized, codeKeyInvalid, "the API key is unknown, revoked or expired"}
	if len(secret) > 128 {
		return keyCaller{}, invalid
	}
	// The lookup is by hash: how long it takes says nothing about the secret.
	hash, now := hashSecret(secret), b.now()
	b.mu.Lock()
	k := b.apiKeys[hash]
	var who keyCaller
	if k != nil && k.works(now) {
		if m := b.meshes[k.mesh]; m != nil {
			member := m.active(k.Member)
			who = keyCaller{caller: caller{role: m.roleOf(member)}, mesh: m, member: member}
		}
	}
	if who.member == nil {
		b.mu.Unlock()
		return keyCaller{}, invalid
	}
	if !k.pace.AllowN(now, 1) {
		b.mu.Unlock()
		return keyCaller{}, &keyRefusal{http.StatusTooManyRequests, codeKeyRate, fmt.Sprintf("an API key may make %d requests a second", keyRequests)}
	}
	k.UsedAt = now.UnixMilli()
	save := k.UsedAt-k.savedAt >= keyUsedEvery.Milliseconds()
	if save {
		k.savedAt = k.UsedAt // others need not do it as well
	}
	who.key, who.live = k.apiKeyRecord, k
	b.mu.Unlock()
	if save {
		ctx, cancel := b.deadline()
		defer cancel()
		if err := b.editAPIKey(ctx, k, func(*apiKeyRecord) {}); err != nil {
			b.log.Warn("use of an api key not noted", "err", err)
		}
	}
	return who, nil
}

// mayUse checks a route against the table, and the capability it wants of a key. An administrator's key loses its powers with the administrator.
func (w keyCaller) mayUse(route string) *keyRefusal {
	if no := w.allowed(route, true); no != nil {
		return &keyRefusal{http.StatusForbidden, "error.forbidden", no.message}
	}
	has := w.key.Capabilities
	if need := rules[route].key; need == "" || !slices.Contains(has, need) && !(slices.Contains(has, wire.KeyAdmin) && w.role >= roleAdmin) {
		return &keyRefusal{http.StatusForbidden, codeKeyCapability, fmt.Sprintf("the API key lacks the capability %q", need)}
	}
	return nil
}

// inScope checks a topic, by its name.
func (w keyCaller) inScope(topic string) *keyRefusal {
	if len(w.key.Topics) == 0 || slices.Contains(w.key.Topics, topic) {
		return nil
	}
	return &keyRefusal{http.StatusForbidden, codeKeyTopic, fmt.Sprintf("the API key does not reach the topic %.64q", topic)}
}
