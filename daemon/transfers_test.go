package daemon

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/jonboulle/clockwork"

	"claudemesh/bus"
)

func TestTransfersLive(t *testing.T) {
	clock := clockwork.NewFakeClock()
	dir := filepath.Join(t.TempDir(), "transfers")
	ts, err := openTransfers(t.Context(), dir, clock, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	files := func() int {
		t.Helper()
		left, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(left)
	}
	made := func() *transfer {
		t.Helper()
		one := &transfer{actor: "s", size: 3}
		if err := ts.add(one); err != nil {
			t.Fatal(err)
		}
		return one
	}
	t.Run("one that nobody touches is forgotten, one in use is not", func(t *testing.T) {
		idle, used := made(), made()
		_, release, err := ts.use("s", used.id)
		if err != nil {
			t.Fatal(err)
		}
		clock.Advance(transferIdle)
		ts.expire()
		if _, _, err := ts.use("s", idle.id); !errors.Is(err, &bus.APIError{Reason: "no_transfer"}) || files() != 1 {
			t.Errorf("%v, %d files", err, files())
		}
		release() // touched now
		ts.expire()
		if files() != 1 {
			t.Error("the one in use is gone")
		}
		ts.close(used)
	})
	t.Run("one that is closed while it is used ends its work at once, and its file with it", func(t *testing.T) {
		one := made()
		_, release, err := ts.use("s", one.id)
		if err != nil {
			t.Fatal(err)
		}
		ctx, done, err := ts.working(t.Context(), one)
		if err != nil {
			t.Fatal(err)
		}
		ts.close(one)
		ts.close(one)
		if <-ctx.Done(); files() != 1 {
			t.Error("the file went while it was used")
		}
		done()
		release()
		if files() != 0 {
			t.Error("the file is left")
		}
	})
	t.Run("work that finds no slot ends with the transfer", func(t *testing.T) {
		one, other := made(), made()
		for range maxHeavy {
			_, done, err := ts.working(t.Context(), one)
			if err != nil {
				t.Fatal(err)
			}
			defer done()
		}
		ts.close(other)
		if _, _, err := ts.working(t.Context(), other); !errors.Is(err, errAborted) {
			t.Error(err)
		}
		ts.close(one)
	})
	t.Run("bytes come back as they went in", func(t *testing.T) {
		one := made()
		if err := errors.Join(one.append(0, []byte("ab")), one.append(2, []byte("c"))); err != nil {
			t.Fatal(err)
		}
		data, err := one.whole()
		if err != nil || string(data) != "abc" {
			t.Fatal(data, err)
		}
		long := bytes.Repeat([]byte("x"), bus.FileChunkSize+1)
		if err := one.fill(long); err != nil {
			t.Fatal(err)
		}
		first, err1 := one.read(0)
		rest, err2 := one.read(bus.FileChunkSize)
		end, err3 := one.read(bus.FileChunkSize + 1)
		if errors.Join(err1, err2, err3) != nil || !bytes.Equal(append(first, rest...), long) || len(end) != 0 {
			t.Error(len(first), len(rest), len(end), err1, err2, err3)
		}
		if _, err := one.read(bus.FileChunkSize + 2); err == nil {
			t.Error("read behind the end")
		}
	})
	if err := ts.closeAll(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Error(err)
	}
}
