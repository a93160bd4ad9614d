package broker

import (
	"cmp"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"

	"claudemesh/wire"
)

// sendLimiter is the limit of one member, shared by all its connections. Whoever is refused is refused for at least limitedFor: the frames that were on
// their way behind the refused one must not overtake it because a token came back meanwhile. The zero value is ready.
type sendLimiter struct {
	mu     sync.Mutex
	bucket *rate.Limiter
	rate   int
	burst  int
	until  time.Time // refused until then
}

const limitedFor = time.Second

// take asks for one send. ok false: not before wait is over.
func (l *sendLimiter) take(perMinute, burst int, now time.Time) (wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if perMinute <= 0 {
		l.bucket = nil
		return 0, true
	}
	burst = cmp.Or(burst, perMinute)
	if l.bucket == nil || l.rate != perMinute || l.burst != burst {
		l.bucket, l.until = rate.NewLimiter(rate.Limit(float64(perMinute)/60), burst), time.Time{}
		l.rate, l.burst = perMinute, burst
	}
	if d := l.until.Sub(now); d > 0 {
		return d, false
	}
	if l.bucket.AllowN(now, 1) {
		return 0, true
	}
	r := l.bucket.ReserveN(now, 1)
	wait = max(r.DelayFrom(now), limitedFor)
	r.CancelAt(now)
	l.until = now.Add(wait)
	return wait, false
}

// limited refuses a send that comes too fast. The text is the reference's, which clients know by its beginning.
func (c *conn) limited() *refusal {
	c.b.mu.RLock()
	perMinute, burst := c.mesh.sendLimit(c.b.lim)
	c.b.mu.RUnlock()
	wait, ok := c.member.sends.take(perMinute, burst, c.b.now())
	if ok {
		return nil
	}
	no := refused(wire.AckRateLimited, fmt.Sprintf("rate_limit: max %d msg/min (burst %d) — slow down", perMinute, cmp.Or(burst, perMinute)))
	no.wait = wait
	return no
}

// sendLimit is the limit in force: the team's own, else the broker's. Called under the lock.
func (m *meshState) sendLimit(l Limits) (perMinute, burst int) {
	s := m.rec
	if s.SendRate == 0 {
		return l.SendRate, cmp.Or(s.SendBurst, l.SendBurst)
	}
	return s.SendRate, cmp.Or(s.SendBurst, l.SendBurst, s.SendRate)
}

// hookLimiter is a bucket per key, for the keys used last.
type hookLimiter struct {
	mu      sync.Mutex
	buckets *simplelru.LRU[string, *rate.Limiter]
}

func newHookLimiter() *hookLimiter {
	// The only error is for a size below one.
	buckets, _ := simplelru.NewLRU[string, *rate.Limiter](4096, nil)
	return &hookLimiter{buckets: buckets}
}

func (l *hookLimiter) allow(key string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	bucket, ok := l.buckets.Get(key)
	if !ok {
		bucket = rate.NewLimiter(rate.Limit(hookRate)/60, hookRate)
		l.buckets.Add(key, bucket)
	}
	return bucket.AllowN(now, 1)
}
