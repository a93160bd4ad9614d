package testenv_test

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"testing"

	"claudemesh/testenv"
	"claudemesh/testenv/faultproxy"
)

// wiretap is a proxy in front of a broker that remembers which frames passed by, and may hold back some.
type wiretap struct {
	*faultproxy.Proxy
	t testing.TB

	mu      sync.Mutex
	seen    []passed
	hold    func(passed) bool // frames to hold back, nil: none
	react   func(passed)
	held    []passed
	changed chan struct{}
}

// passed is one frame about a message.
type passed struct {
	dir   faultproxy.Dir
	kind  string
	cmid  string // of send and push; of ack it is the id, which this daemon makes the same
	frame []byte
}

func newWiretap(t testing.TB, brokerURL string) *wiretap {
	t.Helper()
	w := &wiretap{t: t, changed: make(chan struct{})}
	var err error
	if w.Proxy, err = faultproxy.New(brokerURL, faultproxy.WithFrames(w.hook)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func (w *wiretap) hook(d faultproxy.Dir, frame []byte) [][]byte {
	var head struct {
		Type string `json:"type"`
		ID   string `json:"id"`
		CMID string `json:"client_message_id"`
		Ack  string `json:"clientMessageId"`
	}
	_ = json.Unmarshal(frame, &head)
	p := passed{dir: d, kind: head.Type, cmid: head.CMID, frame: frame}
	if p.cmid == "" {
		p.cmid = head.Ack
	}
	if p.cmid == "" {
		p.cmid = head.ID
	}
	if p.cmid == "" {
		return [][]byte{frame} // not about a message
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, p)
	if w.react != nil {
		w.react(p)
	}
	out := [][]byte{frame}
	if w.hold != nil && w.hold(p) {
		w.held, out = append(w.held, p), nil
	}
	close(w.changed)
	w.changed = make(chan struct{})
	return out
}

// holdBack holds back frames of a kind from now on.
func (w *wiretap) holdBack(d faultproxy.Dir, kind string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hold = func(p passed) bool { return p.dir == d && p.kind == kind }
}

// onFrame has fn told of every frame about a message before it passes. fn may drop and cut; it must not call the wiretap's other methods.
func (w *wiretap) onFrame(fn func(passed)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.react = fn
}

// waitHeld returns the frames held back once there are n, and holds back no more.
func (w *wiretap) waitHeld(n int) []passed {
	w.t.Helper()
	w.wait("frames to be held back", func() bool { return len(w.held) >= n })
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hold = nil
	return slices.Clone(w.held)
}

// count is how many frames of a kind about one message came by, held back or not.
func (w *wiretap) count(d faultproxy.Dir, kind, cmid string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, p := range w.seen {
		if p.dir == d && p.kind == kind && p.cmid == cmid {
			n++
		}
	}
	return n
}

// waitCount waits until n frames of a kind about one message came by.
func (w *wiretap) waitCount(d faultproxy.Dir, kind, cmid string, n int) {
	w.t.Helper()
	w.wait("frames of kind "+kind, func() bool {
		got := 0
		for _, p := range w.seen {
			if p.dir == d && p.kind == kind && p.cmid == cmid {
				got++
			}
		}
		return got >= n
	})
}

// first lists the messages of frames of a kind in the order in which they came by for the first time.
func (w *wiretap) first(d faultproxy.Dir, kind string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ids []string
	known := map[string]bool{}
	for _, p := range w.seen {
		if p.dir == d && p.kind == kind && !known[p.cmid] {
			known[p.cmid] = true
			ids = append(ids, p.cmid)
		}
	}
	return ids
}

func (w *wiretap) wait(what string, ok func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
	defer cancel()
	for {
		w.mu.Lock()
		done, changed := ok(), w.changed
		w.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			w.t.Fatalf("waited for %s", what)
		}
	}
}
