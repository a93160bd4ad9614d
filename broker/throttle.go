package broker

import (
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/jonboulle/clockwork"
)

// throttle is a token bucket per address: burst at once, then one every interval. Addresses that were not seen for long are forgotten; to push one out, an
// attacker needs as many addresses as it remembers, and gets burst lookups from each.
type throttle struct {
	clock    clockwork.Clock
	burst    float64
	interval time.Duration

	mu   sync.Mutex
	seen *simplelru.LRU[netip.Prefix, *bucket]
}

type bucket struct {
	tokens float64
	at     time.Time
}

const throttleAddresses = 16384

func newThrottle(clock clockwork.Clock, burst int, interval time.Duration) *throttle {
	t := &throttle{clock: clock, burst: float64(burst), interval: interval}
	// The only error is for a size below one.
	t.seen, _ = simplelru.NewLRU[netip.Prefix, *bucket](throttleAddresses, nil)
	return t
}

// take counts one request of an address; wait is how long it has to wait before the next when it had none left. The zero prefix, a client in this process,
// is never refused.
func (t *throttle) take(from netip.Prefix) (wait time.Duration) {
	if !from.IsValid() {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock.Now()
	b, known := t.seen.Get(from)
	if !known {
		b = &bucket{tokens: t.burst, at: now}
		t.seen.Add(from, b)
	}
	b.tokens = min(t.burst, b.tokens+float64(now.Sub(b.at))/float64(t.interval))
	b.at = now
	if b.tokens < 1 {
		return time.Duration((1 - b.tokens) * float64(t.interval))
	}
	b.tokens--
	return 0
}

// clientOf is the address that a request is counted against: one IPv4 address, or the /64 that an IPv6 host usually has to itself. The zero prefix stands for
// a client in this process. X-Forwarded-For counts only as far as trusted proxies wrote it: from the right, the first address that is none of them.
func (b *Broker) clientOf(r *http.Request) netip.Prefix {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{}
	}
	addr := at.Addr().Unmap()
	if b.trusted(addr) {
		hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		for i := len(hops) - 1; i >= 0; i-- {
			hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
			if err != nil {
				break
			}
			if addr = hop.Unmap().WithZone(""); !b.trusted(addr) {
				break
			}
		}
	}
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

func (b *Broker) trusted(addr netip.Addr) bool {
	for _, p := range b.cfg.TrustedProxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
