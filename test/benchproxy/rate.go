package main

import (
	"context"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// fixedRate sends requests at the times that a clock sets, whatever becomes of those before: who has to wait for a free
// connection has waited since then (no coordinated omission). Half a second in which nothing counts comes first.
func (b *bench) fixedRate(ctx context.Context, p *peer) (sample, error) {
	dial := dialPlain(b.backend.HTTP)
	if p != nil {
		dial = dialTLS(p.front, "http/1.1")
	}
	all, err := dial.clients(ctx, 64)
	if err != nil {
		return nil, err
	}
	defer closeAll(all)
	defer context.AfterFunc(ctx, func() { closeAll(all) })()
	var took []time.Duration
	run := func() (float64, error) {
		if _, err := openLoop(all, b.rate, b.rate/2); err != nil {
			return 0, err
		}
		n := int(float64(b.rate) * max(b.span.Seconds(), 1))
		took, err = openLoop(all, b.rate, n)
		return float64(n + b.rate/2), err
	}
	s := sample{}
	if p != nil {
		s, err = p.during(run)
	} else {
		_, err = run()
	}
	if err != nil {
		return nil, err
	}
	s["p50"], s["p99"] = quantile(took, 0.50), quantile(took, 0.99)
	return s, nil
}

// openLoop sends n requests, and answers how long each took since it was due.
func openLoop(all []*client, rate, n int) ([]time.Duration, error) {
	type job struct {
		c   *client
		due time.Time
	}
	free := make(chan *client, len(all))
	jobs := make([]chan job, len(all))
	results := make([][]time.Duration, len(all))
	failed := make(chan error, len(all))
	index := map[*client]int{}
	var readers sync.WaitGroup
	for i, c := range all {
		jobs[i], index[c] = make(chan job, 1), i
		free <- c
		readers.Go(func() {
			for j := range jobs[i] {
				if err := c.answer(1000); err != nil {
					failed <- err
					return
				}
				results[i] = append(results[i], time.Since(j.due))
				free <- c
			}
		})
	}
	err := func() error {
		runtime.LockOSThread() // its sleep is exact to microseconds, that of the runtime to a millisecond
		defer runtime.UnlockOSThread()
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0)
		req := request("/1k")
		begin := time.Now()
		for k := range n {
			due := begin.Add(time.Duration(k) * time.Second / time.Duration(rate))
			if wait := time.Until(due); wait > 0 {
				t := unix.NsecToTimespec(int64(wait))
				_ = unix.Nanosleep(&t, nil) // a signal makes one request early
			}
			select {
			case c := <-free:
				jobs[index[c]] <- job{c, due}
				if _, err := c.Write(req); err != nil {
					return err
				}
			case err := <-failed:
				return err
			}
		}
		return nil
	}()
	if err != nil {
		closeAll(all) // lets the readers end
	}
	for _, j := range jobs {
		close(j)
	}
	readers.Wait()
	select {
	case failure := <-failed:
		if err == nil {
			err = failure
		}
	default:
	}
	var took []time.Duration
	for _, r := range results {
		took = append(took, r...)
	}
	return took, err
}
