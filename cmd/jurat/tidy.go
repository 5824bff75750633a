package main

import (
	"context"
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
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now.read()
		if now.untidy(before) && now.allocated-last.allocated > worth {
			debug.FreeOSMemory()
			now.read()
			last = now
		}
		before = now
	}
}
