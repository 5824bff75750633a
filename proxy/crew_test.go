package proxy

import (
	"bytes"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// TestCrew: what waits is bounded in number and time, and ends with its owner; who waits is who works next.
func TestCrew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := make(chan struct{})
		c := newCrew(gone)
		waiting := func() int {
			synctest.Wait()
			all := make([]byte, 1<<20) // other goroutines come and go
			return bytes.Count(all[:runtime.Stack(all, true)], []byte("proxy.(*crew).work("))
		}
		at := make(chan struct{})
		for range 2 * idlers {
			c.do(func() { <-at })
		}
		if n := waiting(); n != 2*idlers {
			t.Fatalf("%d of %d tasks are under way", n, 2*idlers)
		}
		close(at)
		if n := waiting(); n != idlers || c.idle.Load() != idlers {
			t.Fatalf("%d wait (%d)", n, c.idle.Load())
		}
		did := make(chan struct{})
		c.do(func() { did <- struct{}{} })
		if n := waiting(); n != idlers {
			t.Errorf("%d goroutines where %d had waited", n, idlers)
		}
		<-did
		time.Sleep(idling + time.Second)
		if n := waiting(); n != 0 {
			t.Errorf("%d wait for ever", n)
		}
		c.do(func() {})
		if n := waiting(); n != 1 {
			t.Errorf("%d wait", n)
		}
		close(gone)
		if n := waiting(); n != 0 || c.idle.Load() != 0 {
			t.Errorf("%d wait for an owner that has gone", n)
		}
		c.do(func() { did <- struct{}{} })
		<-did
	})
}
