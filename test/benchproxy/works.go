package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// sample is what one measurement gave, by metric: "cpu" in µs for a unit of work, "rate" in units per second, "busy" as
// the share of a core; and others.
type sample map[string]float64

// work is something that the peers do.
type work struct {
	name   string
	tcp    bool // not all peers can
	direct bool // the backend too, for comparison
	own    bool // jurat alone
	once   bool // in the first round alone
	run    func(b *bench, ctx context.Context, p *peer) (sample, error)
}

const (
	workIdle = "idle"
	workRate = "rate"
	workH1   = "attested-h1"
	workTCP  = "attested-tcp"
)

// works are in the order in which they are done. Idle connections come first, in a process that has done nothing yet.
func works() []work {
	wrk := func(path string) func(b *bench, ctx context.Context, p *peer) (sample, error) {
		return func(b *bench, ctx context.Context, p *peer) (sample, error) {
			return p.during(func() (float64, error) { return b.wrk(ctx, p.front, path) })
		}
	}
	bulk := func(what byte) func(b *bench, ctx context.Context, p *peer) (sample, error) {
		return func(b *bench, ctx context.Context, p *peer) (sample, error) {
			return b.bulk(ctx, p, dialTLS(p.frontTCP), func(c *client, n int64) error { return order(c.Conn, what, n) })
		}
	}
	return []work{
		{name: workIdle, once: true, run: (*bench).idle},
		{name: "h1", run: wrk("/1k")},
		{name: "h1-100k", run: wrk("/100k")},
		{name: "h2", run: func(b *bench, ctx context.Context, p *peer) (sample, error) {
			return p.during(func() (float64, error) { return b.h2load(ctx, p.front, "/1k") })
		}},
		{name: "grpc", run: func(b *bench, ctx context.Context, p *peer) (sample, error) {
			return p.during(func() (float64, error) {
				return b.h2load(ctx, p.front, grpcPath, "-d", b.message(), "-H", "content-type: application/grpc", "-H", "te: trailers")
			})
		}},
		{name: "new", run: (*bench).fresh},
		{name: "tcp-out", tcp: true, run: bulk('S')},
		{name: "tcp-in", tcp: true, run: bulk('R')},
		{name: "http-out", run: func(b *bench, ctx context.Context, p *peer) (sample, error) {
			return b.bulk(ctx, p, dialTLS(p.front, "http/1.1"), func(c *client, n int64) error {
				return c.get(request(fmt.Sprint("/bytes/", n)), n)
			})
		}},
		{name: workRate, direct: true, run: (*bench).fixedRate},
		{name: workH1, own: true, run: (*bench).attestedH1},
		{name: workTCP, own: true, tcp: true, run: (*bench).attestedTCP},
	}
}

// message is the file with a gRPC message.
func (b *bench) message() string { return filepath.Join(b.dir, "message") }

// during measures what a proxy uses while f makes it work, and how many units of work that was.
func (p *peer) during(f func() (float64, error)) (sample, error) {
	before, begin := p.cpu(), time.Now()
	n, err := f()
	took, used := time.Since(begin), p.cpu()-before
	if err != nil {
		return nil, err
	}
	if n <= 0 {
		return nil, errors.New("no work was done")
	}
	return sample{
		"cpu": float64(used.Microseconds()) / n, "rate": n / took.Seconds(), "busy": used.Seconds() / took.Seconds(),
	}, nil
}

// bulk moves bytes over one connection, in units of a megabyte.
func (b *bench) bulk(ctx context.Context, p *peer, d dialer, move func(*client, int64) error) (sample, error) {
	c, err := d.client(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	return p.during(func() (float64, error) { return float64(b.bytes) / 1e6, move(c, b.bytes) })
}

// loop lets clients send one request after the other until the span is over, and answers how many.
func loop(ctx context.Context, all []*client, span time.Duration) (float64, error) {
	req := request("/1k")
	end := time.Now().Add(span)
	return together(len(all), func(i int) (n int, err error) {
		for ctx.Err() == nil && time.Now().Before(end) {
			if err := all[i].get(req, 1000); err != nil {
				return n, err
			}
			n++
		}
		return n, ctx.Err()
	})
}

// together runs f for 0 up to n at once, and adds up what they did.
func together(n int, f func(i int) (int, error)) (float64, error) {
	var wg sync.WaitGroup
	var sum atomic.Int64
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() {
			done, err := f(i)
			sum.Add(int64(done))
			errs[i] = err
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return 0, err // one is enough to tell
		}
	}
	return float64(sum.Load()), nil
}

// fresh makes connections for one request each.
func (b *bench) fresh(ctx context.Context, p *peer) (sample, error) {
	d, req := dialTLS(p.front, "http/1.1"), request("/1k", "Connection: close")
	return p.during(func() (float64, error) {
		end := time.Now().Add(b.span)
		return together(16, func(int) (n int, err error) {
			for ctx.Err() == nil && time.Now().Before(end) {
				c, err := d.client(ctx)
				if err != nil {
					return n, err
				}
				err = c.get(req, 1000)
				_ = c.Close()
				if err != nil {
					return n, err
				}
				n++
			}
			return n, ctx.Err()
		})
	})
}

// idle keeps connections open that have had one request each, and measures what each adds in KB.
func (b *bench) idle(ctx context.Context, p *peer) (sample, error) {
	defer debug.FreeOSMemory() // ours
	rss, pss, err := p.settled(ctx)
	if err != nil {
		return nil, err
	}
	d, req := dialTLS(p.front, "http/1.1"), request("/1k")
	all := make([]*client, b.idles)
	defer func() {
		for _, c := range all {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	const dialers = 16
	if _, err := together(dialers, func(i int) (n int, err error) {
		for ; i < len(all) && ctx.Err() == nil; i += dialers {
			if all[i], err = d.client(ctx); err != nil {
				return n, err
			}
			if err := all[i].get(req, 1000); err != nil {
				return n, err
			}
		}
		return n, ctx.Err()
	}); err != nil {
		return nil, err
	}
	rss2, pss2, err := p.settled(ctx)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(all); i += max(1, len(all)/50) { // who closes connections saves memory
		if err := all[i].get(req, 1000); err != nil {
			return nil, fmt.Errorf("idle connection: %w", err)
		}
	}
	n := float64(len(all))
	return sample{"pss": (pss2 - pss) / n, "rss": (rss2 - rss) / n}, nil
}

// settled is the memory of a peer once it changes no more, or after a while.
func (p *peer) settled(ctx context.Context) (rss, pss float64, err error) {
	end := time.Now().Add(6 * time.Second)
	last := -1.0
	for {
		if rss, pss, err = p.memory(); err != nil {
			return 0, 0, err
		}
		if near(pss, last, 0.002) || time.Now().After(end) {
			return rss, pss, nil
		}
		last = pss
		select {
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		case <-time.After(1500 * time.Millisecond):
		}
	}
}

func near(a, b, share float64) bool { return a-b <= share*a && b-a <= share*a }

// quiet waits until a peer has done what was left to do, such as closing connections, for others are next.
func (p *peer) quiet(ctx context.Context) {
	end := time.Now().Add(3 * time.Second)
	for last := time.Duration(-1); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
		now := p.cpu()
		if now-last < tick {
			return
		}
		last = now
	}
}

// warm brings a peer, and its connections to the backend, to life.
func (b *bench) warm(ctx context.Context, p *peer) error {
	all, err := dialTLS(p.front, "http/1.1").clients(ctx, 64)
	if err != nil {
		return err
	}
	defer closeAll(all)
	_, err = loop(ctx, all, 300*time.Millisecond)
	return err
}
