package broker

import (
	"fmt"
	"testing"
	"time"

	"claudemesh/wire"
)

func TestAPushThatIsNotAcknowledgedComesAgain(t *testing.T) {
	clock, withClock := fakeClock(time.Now())
	const lease = 30 * time.Second
	r := newRig(t, withClock, func(c *Config) { c.Limits.Lease = lease })
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	const n = 5
	var first []wire.Push
	for i := range n {
		a.mustSend(sendFrame(fmt.Sprint("m", i), bob.PublicKey(), fmt.Sprint(i)))
		first = append(first, b.message())
	}
	b.clientAck(first[1], "")
	r.mailIn(r.mailboxOf(bob), n-1)

	t.Run("on the same connection, in order, but for what was acknowledged", func(t *testing.T) {
		clock.Advance(lease + leaseEvery)
		for _, i := range []int{0, 2, 3, 4} {
			p := b.message()
			if p.MessageID != first[i].MessageID || text(p) != fmt.Sprint(i) {
				t.Fatalf("want %d, got %q", i, text(p))
			}
			b.clientAck(p, "")
		}
		r.mailIn(r.mailboxOf(bob), 0)
	})
	t.Run("and not once it was", func(t *testing.T) {
		clock.Advance(lease + leaseEvery)
		a.mustSend(sendFrame("last", bob.PublicKey(), "last"))
		if p := b.message(); text(p) != "last" {
			t.Errorf("%q", text(p))
		}
	})
}
