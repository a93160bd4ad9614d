package daemon

import (
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A daemon idles for days and works for seconds. What a burst needed is given back to the system once it is free, instead of staying resident until the
// runtime gets round to it.

const (
	trimEvery = 10 * time.Second
	trimAbove = 6 << 20 // bytes free in the heap and not given back: less is not worth a collection
)

func (d *Daemon) trimLoop() {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-d.opt.Clock.After(trimEvery):
		}
		metrics.Read(sample)
		live, objects, free := sample[0].Value.Uint64(), sample[1].Value.Uint64(), sample[2].Value.Uint64()
		if free+objects > live+trimAbove {
			debug.FreeOSMemory()
		}
	}
}
