package cli

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
)

func TestMeter(t *testing.T) {
	clock := clockwork.NewFakeClock()
	var out bytes.Buffer
	made := func(on bool) *meter {
		out.Reset()
		return &meter{ui: &ui{err: &out}, clock: clock, on: on, begun: clock.Now(), label: "uploading x"}
	}
	t.Run("what is quick shows nothing", func(t *testing.T) {
		m := made(true)
		clock.Advance(meterAfter - time.Millisecond)
		m.set(1, 2)
		m.clear()
		if out.Len() != 0 {
			t.Errorf("%q", out.String())
		}
	})
	t.Run("what is slow is drawn over itself, not too often, and wiped", func(t *testing.T) {
		m := made(true)
		clock.Advance(meterAfter)
		m.set(1<<20, 4<<20)
		m.set(2<<20, 4<<20) // at once: not drawn
		clock.Advance(meterEvery)
		m.set(3<<20, 4<<20)
		m.clear()
		m.clear()
		want := "\r\x1b[2Kuploading x  1.0 MiB of 4.0 MiB, 25 %\r\x1b[2Kuploading x  3.0 MiB of 4.0 MiB, 75 %\r\x1b[2K"
		if out.String() != want {
			t.Errorf("%q", out.String())
		}
	})
	t.Run("without an end known the time is shown", func(t *testing.T) {
		m := made(true)
		clock.Advance(3 * time.Second)
		m.set(7, 0)
		if out.String() != "\r\x1b[2Kuploading x  3s" {
			t.Errorf("%q", out.String())
		}
	})
	t.Run("where nobody looks nothing is drawn and nothing asked", func(t *testing.T) {
		m := made(false)
		clock.Advance(time.Hour)
		m.set(1, 2)
		failed := errors.New("failed")
		err := m.during(t.Context(), func(context.Context) (int64, int64, error) { t.Error("asked"); return 0, 0, nil }, func(context.Context) error { return failed })
		if !errors.Is(err, failed) || out.Len() != 0 {
			t.Errorf("%v %q", err, out.String())
		}
	})
	t.Run("work is asked how far it has come, and its error returned", func(t *testing.T) {
		m := made(true)
		asked := make(chan struct{})
		failed := errors.New("failed")
		poll := func(context.Context) (int64, int64, error) {
			close(asked)
			return 1, 2, nil
		}
		go func() {
			_ = clock.BlockUntilContext(t.Context(), 1)
			clock.Advance(2 * meterAfter)
		}()
		err := m.during(t.Context(), poll, func(context.Context) error { <-asked; return failed })
		if !errors.Is(err, failed) || !strings.HasPrefix(out.String(), "\r\x1b[2Kuploading x  1 B of 2 B, 50 %") && out.Len() != 0 {
			t.Errorf("%v %q", err, out.String())
		}
	})
}

func TestByteSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 50 << 20: "50.0 MiB"} {
		if got := byteSize(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}
