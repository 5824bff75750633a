package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestUntidy(t *testing.T) {
	const mb = 1 << 20
	for name, tt := range map[string]struct {
		before, now memory
		want        bool
	}{
		"garbage":              {memory{allocated: 900 * mb}, memory{900 * mb, 50 * mb, 90 * mb, 0}, true},
		"free":                 {memory{allocated: 900 * mb}, memory{900 * mb, 50 * mb, 50 * mb, 20 * mb}, true},
		"both":                 {memory{allocated: 900 * mb}, memory{900 * mb, 16 * mb, 18 * mb, 2 * mb}, true},
		"busy":                 {memory{allocated: 900 * mb}, memory{901 * mb, 50 * mb, 90 * mb, 0}, false},
		"little":               {memory{allocated: 900 * mb}, memory{900 * mb, 10 * mb, 13 * mb, 0}, false},
		"little beside much":   {memory{allocated: 900 * mb}, memory{900 * mb, 800 * mb, 850 * mb, 10 * mb}, false},
		"before a collection":  {memory{}, memory{100, 0, 100, 0}, false},
		"less than was live":   {memory{allocated: 900 * mb}, memory{900 * mb, 50 * mb, 40 * mb, 0}, false},
		"all of it was let go": {memory{allocated: 900 * mb}, memory{900 * mb, 0, 8 * mb, 0}, true},
	} {
		if got := tt.now.untidy(tt.before); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestPace(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 1 << 20: 400, 8 << 20: 400, 16 << 20: 200, 32 << 20: 100, 1 << 40: 100} {
		if got := pace(live); got != want {
			t.Errorf("%d: %d", live, got)
		}
	}
	t.Setenv("GOGC", "") // not to be kept to
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	percent := func() int {
		now := debug.SetGCPercent(100)
		debug.SetGCPercent(now)
		return now
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		work.Go(func() { tidy(ctx) })
		synctest.Wait()
		if got := percent(); got != 400 {
			t.Errorf("a new process has %d", got)
		}
		cancel()
		work.Wait()
	})
	(&paced{off: true, now: 400}).set(1 << 40)
	if got := percent(); got != 400 {
		t.Errorf("%d in place of what was asked for", got)
	}
	(&paced{now: 400}).set(1 << 40)
	if got := percent(); got != 100 {
		t.Errorf("%d for a large heap", got)
	}
}

// TestTidy makes garbage, and sees it go without another allocation to speak of; then nothing more is done.
func TestTidy(t *testing.T) {
	t.Setenv("GOGC", "off")
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // nobody else does it
	debug.FreeOSMemory()
	var start memory
	start.read()
	garbage := make([][]byte, 64)
	for i := range garbage {
		garbage[i] = make([]byte, 1<<20)
	}
	runtime.KeepAlive(garbage)
	clear(garbage)
	collections := func() uint32 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.NumForcedGC
	}
	first := collections()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		work.Go(func() { tidy(ctx) })
		time.Sleep(4 * tidyEvery)
		synctest.Wait()
		once := collections()
		if once == first {
			t.Error("no collection")
		}
		time.Sleep(100 * tidyEvery)
		synctest.Wait()
		if again := collections(); again > once+1 {
			t.Errorf("%d collections more, of a process in which nothing happens", again-once)
		}
		cancel()
		work.Wait()
	})
	var now memory
	now.read()
	if held := int64(now.objects+now.free) - int64(start.objects+start.free); held > 32<<20 {
		t.Errorf("%d bytes are held after all", held)
	}
}
