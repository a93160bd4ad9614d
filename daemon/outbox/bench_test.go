package outbox

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/jonboulle/clockwork"
)

func benchmarkAccept(b *testing.B, callers int) {
	s, err := Open(filepath.Join(b.TempDir(), "outbox.db"), clockwork.NewRealClock())
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var wg sync.WaitGroup
	b.ResetTimer()
	for c := range callers {
		wg.Go(func() {
			for i := c; i < b.N; i += callers {
				if _, err := s.Accept(context.Background(), message(fmt.Sprint("message-", i), fmt.Sprint("peer", c))); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "accepts/s")
}

func BenchmarkAccept1(b *testing.B)  { benchmarkAccept(b, 1) }
func BenchmarkAccept8(b *testing.B)  { benchmarkAccept(b, 8) }
func BenchmarkAccept64(b *testing.B) { benchmarkAccept(b, 64) }

// BenchmarkClaimBehindABacklog claims and settles one row at a time while 20,000 rows of 100 recipients wait.
func BenchmarkClaimBehindABacklog(b *testing.B) {
	s, err := Open(filepath.Join(b.TempDir(), "outbox.db"), clockwork.NewRealClock())
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var wg sync.WaitGroup
	for c := range 50 {
		wg.Go(func() {
			for i := range 400 {
				if _, err := s.Accept(context.Background(), message(fmt.Sprint(c, "-", i), fmt.Sprint("peer", c*2+i%2))); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for b.Loop() {
		rows, err := s.Claim(context.Background(), "team", 1)
		if err != nil || len(rows) != 1 {
			b.Fatal(len(rows), err)
		}
		if err := s.Release(context.Background(), rows[0].ID, rows[0].EnqueuedAt, ""); err != nil {
			b.Fatal(err)
		}
	}
}
