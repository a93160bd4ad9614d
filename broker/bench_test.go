package broker

import (
	"fmt"
	"sync"
	"testing"

	"claudemesh/wire"
)

// BenchmarkAccept measures sends acknowledged per second, with references written and pushed to a recipient that acknowledges.
func BenchmarkAccept(b *testing.B) {
	for _, sockets := range []int{1, 8} {
		b.Run(fmt.Sprintf("%d sockets", sockets), func(b *testing.B) {
			r := newRig(b)
			bob := r.addMember("bob")
			recipient := r.member(bob)
			clients := make([]*client, sockets)
			for i := range clients {
				clients[i] = r.member(r.owner, withSession(fmt.Sprint("s", i)), withoutAcks)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				for range b.N {
					recipient.clientAck(recipient.message(), "")
				}
			}()
			b.ResetTimer()
			var wg sync.WaitGroup
			for i, c := range clients {
				n := b.N / sockets
				if i == 0 {
					n += b.N % sockets
				}
				wg.Go(func() {
					for j := range n {
						c.write(sendFrame(fmt.Sprintf("%d-%d", i, j), bob.PublicKey(), "a message of some forty characters, sealed"))
					}
				})
				wg.Go(func() {
					for range n {
						if a := into[wire.Ack](c, c.wait(wire.TypeAck)); !a.Queued {
							b.Errorf("%+v", a)
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "accepts/s")
			<-done
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "delivered/s")
		})
	}
}
