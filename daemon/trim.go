package daemon

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A daemon idles for days and works for seconds. Without garbage to collect the runtime does not collect, so what a burst needed, the store's write buffers
// above all, would stay resident until the next one. When the daemon has fallen quiet it is given back to the system, once.

const (
	trimEvery = 10 * time.Second
	trimQuiet = 1 << 20  // bytes allocated in one interval: less is rest
	trimAfter = 16 << 20 // bytes allocated since the last time: less is not worth a collection
)

func (d *Daemon) trimLoop() {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	var before, trimmed uint64
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-d.opt.Clock.After(trimEvery):
		}
		metrics.Read(sample)
		now := sample[0].Value.Uint64()
		if now-before < trimQuiet && now-trimmed > trimAfter {
			runtime.GC() // pooled buffers survive one collection
			debug.FreeOSMemory()
			trimmed = now
		}
		before = now
	}
}
