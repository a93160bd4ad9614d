package faultproxy

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
)

// Dir is the direction of a frame.
type Dir int

// Directions.
const (
	ToBroker Dir = iota
	ToClient
)

// Hook sees every frame of a proxy made with WithFrames and returns what is passed on in its place: nothing, the frame, several. Calls do not overlap. It
// must not call the proxy's SetHook; it may drop or cut.
type Hook func(d Dir, frame []byte) [][]byte

// SetHook replaces the hook; nil passes everything.
func (p *Proxy) SetHook(h Hook) {
	p.hookMu.Lock()
	defer p.hookMu.Unlock()
	p.hook = h
}

func (p *Proxy) ask(d Dir, frame []byte) [][]byte {
	p.hookMu.Lock()
	defer p.hookMu.Unlock()
	if p.hook == nil {
		return [][]byte{frame}
	}
	return p.hook(d, frame)
}

// Inject writes a frame to one side of every connection that stands, past the hook. It returns how many took it.
func (p *Proxy) Inject(d Dir, frame []byte) int {
	p.mu.Lock()
	var injects []func(Dir, []byte) error
	for l := range p.links {
		if l.inject != nil {
			injects = append(injects, l.inject)
		}
	}
	p.mu.Unlock()
	n := 0
	for _, inject := range injects {
		if inject(d, frame) == nil {
			n++
		}
	}
	return n
}

// Chain passes each frame through several hooks, first to last.
func Chain(hooks ...Hook) Hook {
	return func(d Dir, frame []byte) [][]byte {
		frames := [][]byte{frame}
		for _, h := range hooks {
			var next [][]byte
			for _, f := range frames {
				next = append(next, h(d, f)...)
			}
			frames = next
		}
		return frames
	}
}

// Duplicate passes frames of a type twice. With "push" to the client: a broker that delivers again.
func Duplicate(d Dir, frameType string) Hook { return Repeat(d, frameType, 2) }

// Drop swallows frames of a type. With "ack" to the client: a sender that never learns that its message was taken.
func Drop(d Dir, frameType string) Hook { return Repeat(d, frameType, 0) }

// Repeat passes frames of a type n times.
func Repeat(d Dir, frameType string, n int) Hook {
	return func(got Dir, frame []byte) [][]byte {
		if got != d || typeOf(frame) != frameType {
			return [][]byte{frame}
		}
		return slices.Repeat([][]byte{frame}, n)
	}
}

// Held collects the frames that its hook holds back. Inject passes them on, in any order.
type Held struct {
	mu      sync.Mutex
	frames  [][]byte
	changed chan struct{}
}

// Hold swallows frames of a type and keeps them in the returned Held: wait until one is there, then cut, and the other side must repeat itself.
func Hold(d Dir, frameType string) (Hook, *Held) {
	h := &Held{changed: make(chan struct{})}
	return func(got Dir, frame []byte) [][]byte {
		if got != d || typeOf(frame) != frameType {
			return [][]byte{frame}
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.frames = append(h.frames, frame)
		close(h.changed)
		h.changed = make(chan struct{})
		return nil
	}, h
}

// Frames are the frames held so far, in order.
func (h *Held) Frames() [][]byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.frames)
}

// Wait returns when n frames are held, or with ctx's error.
func (h *Held) Wait(ctx context.Context, n int) error {
	for {
		h.mu.Lock()
		enough, changed := len(h.frames) >= n, h.changed
		h.mu.Unlock()
		if enough {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func typeOf(frame []byte) string {
	var head struct {
		Type string `json:"type"`
	}
	_ = json.Unmarshal(frame, &head)
	return head.Type
}
