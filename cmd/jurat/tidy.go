package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A process that has become quiet still holds what its last burst of work has left: the collector runs again only once the heap
// has grown, to twice its size by default. Connections that wait would be charged for that garbage for minutes.
const (
	tidyEvery = 500 * time.Millisecond
	quiet     = 256 << 10 // bytes allocated since the last look
	worth     = 4 << 20   // bytes that would be given back, at least
)

// A small heap that may double before it is collected is collected for every hundred handshakes, at a twentieth of what they cost.
const (
	garbage = 32 << 20 // bytes that may be made before a collection, whatever is live
	most    = 400      // percent of what is live, at most
)

// pace is the percentage that GOGC stands for, for a heap of which that many bytes are live.
func pace(live uint64) int { return int(min(most, max(100, garbage*100/max(live, 1)))) }

// paced has the collector keep to pace as the heap grows and shrinks, unless GOGC says what it is to keep to.
type paced struct {
	off bool
	now int
}

func (p *paced) set(live uint64) {
	if next := pace(live); !p.off && (next > p.now+p.now/4 || next < p.now-p.now/4) {
		p.now = next
		debug.SetGCPercent(next)
	}
}

// memory is what is known of the heap, in bytes.
type memory struct {
	allocated uint64 // ever
	live      uint64 // at the end of the last collection
	objects   uint64 // live and dead
	free      uint64 // neither, and not given back
}

func (m *memory) read() {
	s := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(s)
	*m = memory{allocated: s[0].Value.Uint64(), live: s[1].Value.Uint64(), objects: s[2].Value.Uint64(), free: s[3].Value.Uint64()}
}

// untidy reports whether a process that was as before is quiet now, and holds an eighth more than it needs.
func (m *memory) untidy(before memory) bool {
	surplus := m.free
	if m.objects > m.live {
		surplus += m.objects - m.live
	}
	return m.allocated-before.allocated <= quiet && surplus >= worth && surplus > m.live/8
}

// tidy gives memory back whenever the process has become quiet, until ctx is done. What was given back, and what is found to be
// live after all, is not looked at again before something was allocated.
func tidy(ctx context.Context) {
	ticker := time.NewTicker(tidyEvery)
	defer ticker.Stop()
	var before, last, now memory
	collector := paced{off: os.Getenv("GOGC") != ""}
	for {
		collector.set(now.live)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if now.read(); now.untidy(before) && now.allocated-last.allocated > worth {
			debug.FreeOSMemory()
			now.read()
			last = now
		}
		before = now
	}
}
