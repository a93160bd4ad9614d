package testenv_test

import (
	"context"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"claudemesh/bus"
	"claudemesh/testenv"
)

func TestZZProf(t *testing.T) {
	if os.Getenv("ZZPROF") == "" {
		t.Skip("profiling only")
	}
	m := testenv.NewMachine(t)
	team := m.Create("team")
	bob := m.Session(team, "bob")
	m.WaitPeer(team, "bob")
	var got atomic.Int64
	done := make(chan struct{})
	const total = 4000
	ids := make(chan string, total)
	_, _ = bob.Client.Subscribe(bus.SessionMsgSubject(team, bob.Info.ID), func(msg *nats.Msg) {
		s := string(msg.Data)
		i := strings.Index(s, `"id":"`)
		ids <- s[i+6 : i+42]
		if got.Add(1) == total {
			close(done)
		}
	})
	go func() {
		for id := range ids {
			batch := []string{id}
			for len(ids) > 0 && len(batch) < 64 {
				batch = append(batch, <-ids)
			}
			_ = testenv.Try(bob.Client, bus.DaemonSubject(bob.Info.ID, bus.OpInboxSurfaced), bus.MessageIDs{IDs: batch, Via: "channel"}, nil)
		}
	}()
	begin := time.Now()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range total / 8 {
				var r bus.SendReply
				if err := testenv.Try(m.User(), bus.SendSubject(team, bus.User, "dm"), bus.SendRequest{To: bob.Info.Pubkey, Body: strings.Repeat("x", 256)}, &r); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("accepted in %s: %.0f/s", time.Since(begin), total/time.Since(begin).Seconds())
	<-done
	t.Logf("delivered in %s: %.0f/s", time.Since(begin), total/time.Since(begin).Seconds())
	_ = context.Background
}
