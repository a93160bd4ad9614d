package bridge

import (
	"bytes"
	"crypto/rand"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestBackoff(t *testing.T) {
	t.Run("every pause stays in its range, whatever the history", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			base := time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(10*time.Second)).Draw(t, "base"))
			b := &backoff{base: base, rand: &lockedReader{r: rand.Reader}}
			failures := 0
			for _, end := range rapid.SliceOfN(rapid.SampledFrom([]ending{endLost, endFailed, endRefused}), 1, 30).Draw(t, "endings") {
				step := []time.Duration{1, 2, 4, 8, 16, 30}[min(failures, 5)] * base
				low, high := base/10, step
				switch end {
				case endLost:
					high, failures = base/4, 0
				case endRefused:
					low, high = 5*base, max(step, 10*base)
					failures++
				case endFailed:
					failures++
				}
				if got := b.next(end); got < low || got >= high {
					t.Fatalf("pause %v not in [%v, %v)", got, low, high)
				}
				if b.attempts != failures {
					t.Fatalf("%d attempts counted, %d failures", b.attempts, failures)
				}
			}
		})
	})
	t.Run("pauses are spread over the range", func(t *testing.T) {
		b := &backoff{base: time.Second, rand: &lockedReader{r: rand.Reader}}
		var early, late int
		for range 1000 {
			b.attempts = 5
			if b.next(endFailed) < 15*time.Second {
				early++
			} else {
				late++
			}
		}
		if early < 350 || late < 350 {
			t.Fatalf("%d early, %d late", early, late)
		}
	})
	t.Run("a source of randomness that fails still gives a pause in range", func(t *testing.T) {
		b := &backoff{base: time.Second, rand: &lockedReader{r: bytes.NewReader(nil)}}
		if d := b.next(endFailed); d < 100*time.Millisecond || d >= time.Second {
			t.Fatal(d)
		}
	})
}
