package batch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls/batch"
)

func TestOneQuoteServesAllWhoWaited(t *testing.T) {
	bubble(t, &hardware{takes: 40 * time.Millisecond}, batch.Options{}, func(t *testing.T, b *bench) {
		first := b.start("a", batch.Now)
		if b.hw.quotes() != 1 {
			t.Fatal("a lone session has to wait for a quote to begin")
		}
		b.pass(10 * time.Millisecond)
		var rest []*call
		for i := range 70 {
			rest = append(rest, b.start(strconv.Itoa(i%7), batch.Now))
		}
		b.waits(rest...)
		b.pass(30 * time.Millisecond)
		if b.served(first) != 1 || first.ticket.Size != 1 || len(first.ticket.Proof) != 0 || first.took != 40*time.Millisecond {
			t.Fatalf("%+v", first)
		}
		late := b.start("a", batch.Now)
		b.pass(40 * time.Millisecond)
		for _, c := range rest {
			if b.served(c) != 2 || c.ticket.Size != 70 || c.took != 70*time.Millisecond {
				t.Fatalf("%+v", c)
			}
			if c.ticket.Evidence != rest[0].ticket.Evidence {
				t.Fatal("evidence is copied")
			}
		}
		b.waits(late)
		b.pass(40 * time.Millisecond)
		if b.served(late) != 3 {
			t.Fatalf("%+v", late)
		}
		s := b.Stats()
		if s.Quotes != 3 || s.Sessions != 72 || s.Largest != 70 || s.Waiting != 0 || s.Failures+s.Crowded+s.Refused != 0 || s.Breaker != batch.Closed {
			t.Fatalf("%+v", s)
		}
	})
}

func TestALargeBatchIsSplit(t *testing.T) {
	bubble(t, &hardware{takes: time.Second}, batch.Options{MaxBatch: 4}, func(t *testing.T, b *bench) {
		b.start("x", batch.Now)
		var calls []*call
		for i := range 9 {
			calls = append(calls, b.start(strconv.Itoa(i), batch.Now))
		}
		b.pass(4 * time.Second)
		for i, c := range calls {
			if b.served(c) != 2+i/4 {
				t.Fatalf("%+v", c)
			}
		}
		if s := b.Stats(); s.Largest != 4 || s.Quotes != 4 {
			t.Fatalf("%+v", s)
		}
	})
}

func TestPatience(t *testing.T) {
	opts := batch.Options{Patience: time.Second, MaxBatch: 5}
	t.Run("alone", func(t *testing.T) {
		bubble(t, &hardware{}, opts, func(t *testing.T, b *bench) {
			b.pass(5 * time.Second) // whatever ran before is over
			first := b.start("a", batch.Patient)
			b.pass(400 * time.Millisecond)
			second := b.start("b", batch.Patient)
			b.pass(599 * time.Millisecond)
			b.waits(first, second)
			if b.Stats().Waiting != 2 {
				t.Fatalf("%+v", b.Stats())
			}
			b.pass(time.Millisecond)
			if b.served(first) != 1 || b.served(second) != 1 {
				t.Fatal("not together")
			}
			third := b.start("a", batch.Patient)
			b.pass(999 * time.Millisecond)
			b.waits(third)
			b.pass(time.Millisecond)
			b.served(third)
		})
	})
	t.Run("rides along", func(t *testing.T) {
		bubble(t, &hardware{}, opts, func(t *testing.T, b *bench) {
			patient := b.start("a", batch.Patient)
			b.pass(time.Millisecond)
			if b.served(b.start("b", batch.Now)) != b.served(patient) {
				t.Fatal("not together")
			}
		})
	})
	t.Run("the oldest leaves", func(t *testing.T) {
		bubble(t, &hardware{}, opts, func(t *testing.T, b *bench) {
			first := b.start("a", batch.Patient)
			b.pass(400 * time.Millisecond)
			second := b.start("a", batch.Patient)
			first.cancel(nil)
			b.pass(999 * time.Millisecond)
			b.waits(second)
			b.pass(time.Millisecond)
			b.served(second)
		})
	})
	t.Run("all leave", func(t *testing.T) {
		bubble(t, &hardware{}, opts, func(t *testing.T, b *bench) {
			b.start("a", batch.Patient).cancel(nil)
			b.pass(5 * time.Second)
			if b.hw.quotes() != 0 {
				t.Fatal("a quote for nobody")
			}
		})
	})
	t.Run("enough company", func(t *testing.T) {
		bubble(t, &hardware{}, opts, func(t *testing.T, b *bench) {
			var calls []*call
			for range 4 {
				calls = append(calls, b.start("a", batch.Patient))
			}
			b.waits(calls...)
			for _, c := range append(calls, b.start("a", batch.Patient)) {
				b.served(c)
			}
		})
	})
	t.Run("while a quote is in flight", func(t *testing.T) {
		bubble(t, &hardware{takes: 3 * time.Second}, opts, func(t *testing.T, b *bench) {
			b.start("a", batch.Now)
			due := b.start("a", batch.Patient)
			b.pass(2500 * time.Millisecond)
			early := b.start("a", batch.Patient)
			urgent := b.start("a", batch.Now)
			urgent.cancel(nil)
			b.pass(3500 * time.Millisecond)
			if b.served(due) != 2 || b.served(early) != 2 {
				t.Fatal("overdue leaves take others along")
			}
			later := b.start("a", batch.Now)
			patient := b.start("a", batch.Patient)
			b.pass(2999 * time.Millisecond)
			fresh := b.start("a", batch.Patient)
			urgent = b.start("a", batch.Now)
			urgent.cancel(nil)
			patient.cancel(nil)
			b.pass(time.Millisecond)
			b.served(later)
			b.waits(fresh) // what is left is patient, and has company to wait for
			if b.hw.quotes() != 3 {
				t.Fatal("no patience")
			}
			b.pass(4 * time.Second)
			b.served(fresh)
		})
	})
}

// Ten thousand open connections that renew their evidence every minute cost about one quote in a second.
func TestOpenConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("10,000 connections")
	}
	const connections, minutes = 10000, 3
	bubble(t, &hardware{takes: 40 * time.Millisecond}, batch.Options{}, func(t *testing.T, b *bench) {
		var all sync.WaitGroup
		for i := range connections {
			all.Go(func() {
				time.Sleep(time.Minute * time.Duration(i) / connections)
				for m := range minutes {
					began := time.Now()
					ticket, err := b.Attest(context.Background(), strconv.Itoa(i%500), leaf(m*connections+i), batch.Patient)
					if err != nil {
						t.Error(err)
						return
					}
					if _, err := check(ticket, leaf(m*connections+i)); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Minute - time.Since(began))
				}
			})
		}
		all.Wait()
		s := b.Stats()
		t.Logf("%d quotes for %d leaves in %d minutes, at most %d in one; longest wait %.2f s", s.Quotes, s.Sessions, minutes, s.Largest, s.Wait.Max)
		if s.Sessions != connections*minutes || s.Quotes > 60*minutes || s.Wait.Max > 1.1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestAStormCrowdsOutItself(t *testing.T) {
	bubble(t, &hardware{takes: time.Second}, batch.Options{Queue: 100, PeerQueue: 100, MaxBatch: 10}, func(t *testing.T, b *bench) {
		b.start("first", batch.Now)
		var storm []*call
		for range 100 {
			storm = append(storm, b.start("storm", batch.Now))
		}
		b.waits(storm...)
		b.refused(b.start("storm", batch.Now), attest.CodeCrowded, nil)
		modest := b.start("modest", batch.Now)
		b.waits(modest)
		b.waits(storm[:99]...)
		b.refused(storm[99], attest.CodeCrowded, nil) // the newest
		if !strings.HasPrefix(storm[99].err.Error(), "storm: ") {
			t.Errorf("who was crowded out? %v", storm[99].err)
		}
		if s := b.Stats(); s.Crowded != 2 || s.Waiting != 100 {
			t.Fatalf("%+v", s)
		}
		b.pass(2 * time.Second)
		if b.served(modest) != 2 {
			t.Fatal("the modest peer is not in the next quote")
		}
		for _, c := range storm[:9] {
			if b.served(c) != 2 {
				t.Fatalf("%+v", c)
			}
		}
	})
}

// Those who ask for as much as anybody get as much as anybody, and don't displace each other.
func TestEquals(t *testing.T) {
	bubble(t, &hardware{takes: time.Second}, batch.Options{Queue: 4, PeerQueue: 3}, func(t *testing.T, b *bench) {
		b.start("first", batch.Now)
		a1, a2, a3 := b.start("a", batch.Now), b.start("a", batch.Now), b.start("a", batch.Now)
		b.refused(b.start("a", batch.Now), attest.CodeCrowded, nil) // there is room, but not for a
		b1 := b.start("b", batch.Now)
		b2 := b.start("b", batch.Now)
		b.refused(a3, attest.CodeCrowded, nil)
		b.refused(b.start("b", batch.Now), attest.CodeCrowded, nil)
		c1 := b.start("c", batch.Now)
		b.refused(a2, attest.CodeCrowded, nil)
		d1 := b.start("d", batch.Now)
		b.refused(b2, attest.CodeCrowded, nil)
		b.refused(b.start("e", batch.Now), attest.CodeCrowded, nil)
		b.pass(2 * time.Second)
		for _, c := range []*call{a1, b1, c1, d1} {
			b.served(c)
		}
	})
}

func TestPeersTakeTurns(t *testing.T) {
	bubble(t, &hardware{takes: time.Second}, batch.Options{MaxBatch: 4}, func(t *testing.T, b *bench) {
		b.start("first", batch.Now)
		calls := map[string][]*call{}
		for _, peer := range strings.Fields("a a a a a b c c d d") {
			calls[peer] = append(calls[peer], b.start(peer, batch.Now))
		}
		b.pass(4 * time.Second)
		for peer, want := range map[string][]int{"a": {2, 3, 3, 4, 4}, "b": {2}, "c": {2, 3}, "d": {2, 3}} {
			for i, c := range calls[peer] {
				if got := b.served(c); got != want[i] {
					t.Errorf("leaf %d of %s came in quote %d, want %d", i, peer, got, want[i])
				}
			}
		}
	})
}

func TestCallersWhoLeave(t *testing.T) {
	bubble(t, &hardware{takes: time.Second}, batch.Options{Queue: 2, PeerQueue: 1}, func(t *testing.T, b *bench) {
		inFlight := b.start("a", batch.Now)
		deadline, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		short := b.startIn(deadline, "a", batch.Now)
		synctest.Wait()
		other := b.start("b", batch.Now)
		b.refused(b.start("c", batch.Now), attest.CodeCrowded, nil)
		b.pass(299 * time.Millisecond)
		b.waits(short)
		b.pass(time.Millisecond)
		b.refused(short, attest.CodeTimeout, context.DeadlineExceeded)
		if b.Stats().Waiting != 1 {
			t.Fatalf("%+v", b.Stats())
		}
		again := b.start("a", batch.Now) // the place is free
		cause := errors.New("the client hung up")
		inFlight.cancel(cause)
		other.cancel(cause)
		synctest.Wait()
		if !errors.Is(inFlight.err, cause) || !errors.Is(other.err, cause) {
			t.Fatalf("%v, %v", inFlight.err, other.err)
		}
		b.pass(1700 * time.Millisecond)
		if b.served(again) != 2 || again.ticket.Size != 1 {
			t.Fatalf("%+v", again.ticket)
		}
		// The last one leaves a quote in flight; nobody waits, and nothing more begins.
		last := b.start("a", batch.Now)
		last.cancel(nil)
		b.pass(2 * time.Second)
		if !errors.Is(last.err, context.Canceled) {
			t.Fatal(last.err)
		}
		gone := b.startIn(deadline, "a", batch.Now)
		b.pass(2 * time.Second)
		b.refused(gone, attest.CodeTimeout, context.DeadlineExceeded)
		s := b.Stats()
		if s.Quotes != 3 || s.Sessions != 1 || s.Wait.Count != 1 || s.Waiting != 0 || s.Failures != 0 {
			t.Fatalf("%+v", s)
		}
	})
}

func TestFailures(t *testing.T) {
	broken := errors.New("device busy")
	for name, test := range map[string]struct {
		attester func(context.Context, attest.ReportData) (*attest.Evidence, error)
		code     attest.Code
		cause    error
		text     string
	}{
		"plain": {func(context.Context, attest.ReportData) (*attest.Evidence, error) { return nil, broken }, attest.CodeAttesterFailed, broken, ""},
		"with a code": {func(context.Context, attest.ReportData) (*attest.Evidence, error) {
			return nil, fmt.Errorf("x: %w", &attest.Error{Code: attest.CodeNoTEE, Err: broken})
		}, attest.CodeNoTEE, broken, ""},
		"nothing":       {func(context.Context, attest.ReportData) (*attest.Evidence, error) { return nil, nil }, attest.CodeAttesterFailed, nil, "no evidence"},
		"panic":         {func(context.Context, attest.ReportData) (*attest.Evidence, error) { panic("ouch") }, attest.CodeInternal, nil, "ouch"},
		"error and all": {func(context.Context, attest.ReportData) (*attest.Evidence, error) { return &attest.Evidence{}, broken }, attest.CodeAttesterFailed, broken, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				slow := attesterFunc(func(ctx context.Context, data attest.ReportData) (*attest.Evidence, error) {
					time.Sleep(time.Second)
					return test.attester(ctx, data)
				})
				b := &bench{Batcher: batch.New(slow, bind, batch.Options{}), t: t}
				defer b.Close()
				first := b.start("a", batch.Now)
				second, third := b.start("a", batch.Now), b.start("b", batch.Now)
				b.pass(time.Second)
				b.refused(first, test.code, test.cause)
				b.waits(second, third) // a failure is that of one quote
				b.pass(time.Second)
				for _, c := range []*call{second, third} {
					b.refused(c, test.code, test.cause)
					if !strings.Contains(c.err.Error(), test.text) {
						t.Error(c.err)
					}
				}
				if s := b.Stats(); s.Failures != 2 || s.Quotes != 2 || s.Sessions != 0 || s.Breaker != batch.Closed {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

type attesterFunc func(context.Context, attest.ReportData) (*attest.Evidence, error)

func (f attesterFunc) Attest(ctx context.Context, data attest.ReportData) (*attest.Evidence, error) {
	return f(ctx, data)
}

func TestStall(t *testing.T) {
	for name, heeds := range map[string]bool{"for good": false, "until its context ends": true} {
		t.Run(name, func(t *testing.T) {
			var release chan error
			hang := func(ctx context.Context, call int) error {
				if call > 1 {
					return nil
				}
				if heeds {
					<-ctx.Done()
					return ctx.Err()
				}
				return <-release
			}
			hw := &hardware{fail: hang}
			synctest.Test(t, func(t *testing.T) {
				release = make(chan error)
				b := &bench{Batcher: batch.New(hw, bind, batch.Options{QuoteTimeout: 5 * time.Second}), t: t, hw: hw}
				first := b.start("a", batch.Now)
				deadline, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				defer cancel()
				short := b.startIn(deadline, "a", batch.Now)
				queued := b.start("b", batch.Now)
				b.pass(2 * time.Second)
				b.refused(short, attest.CodeTimeout, nil)
				b.pass(2999 * time.Millisecond)
				b.waits(first, queued)
				if s := b.Stats(); s.Breaker != batch.Closed {
					t.Fatalf("%+v", s)
				}
				b.pass(time.Millisecond)
				b.refused(first, attest.CodeAttesterFailed, nil)
				if !strings.Contains(first.err.Error(), "nothing within 5s") {
					t.Error(first.err)
				}
				b.refused(queued, attest.CodeAttesterBroken, nil)
				if !heeds {
					b.pass(time.Hour)
					b.refused(b.start("a", batch.Now), attest.CodeAttesterBroken, nil)
					b.refused(b.start("a", batch.Patient), attest.CodeAttesterBroken, nil)
					if s := b.Stats(); s.Breaker != batch.Open || s.Refused != 3 || hw.quotes() != 1 {
						t.Fatalf("%+v", s)
					}
					release <- nil // late, and of no use
					synctest.Wait()
				}
				if s := b.Stats(); s.Breaker != batch.Closed || s.Failures != 1 || s.Sessions != 0 || s.Quote.Count != 1 {
					t.Fatalf("%+v", s)
				}
				b.served(b.start("a", batch.Now))
				b.Close()
			})
			if hw.overlapped() {
				t.Fatal("two quotes in flight")
			}
		})
	}
}

// A TEE that hangs again and again opens the breaker, even if it comes back each time with something.
func TestStallsInARow(t *testing.T) {
	bubble(t, &hardware{takes: 2 * time.Second}, batch.Options{QuoteTimeout: time.Second, Failures: 3}, func(t *testing.T, b *bench) {
		for range 3 {
			c := b.start("a", batch.Now)
			b.pass(time.Second)
			b.refused(c, attest.CodeAttesterFailed, nil)
			b.pass(time.Second)
		}
		// The pause has begun with the third failure.
		if s := b.Stats(); s.Breaker != batch.HalfOpen || s.Failures != 3 {
			t.Fatalf("%+v", s)
		}
		b.start("a", batch.Now)
		b.pass(2 * time.Second)
		if s := b.Stats(); s.Breaker != batch.Open || s.Failures != 4 {
			t.Fatalf("%+v", s)
		}
	})
}

func TestBreaker(t *testing.T) {
	down := errors.New("down")
	bubble(t, &hardware{takes: time.Millisecond}, batch.Options{}, func(t *testing.T, b *bench) {
		b.hw.set(func(context.Context, int) error { return down })
		for range 4 {
			c := b.start("a", batch.Now)
			b.pass(time.Millisecond)
			b.refused(c, attest.CodeAttesterFailed, down)
		}
		if s := b.Stats(); s.Breaker != batch.Closed {
			t.Fatalf("%+v", s)
		}
		fifth := b.start("a", batch.Now)
		queued, patient := b.start("a", batch.Now), b.start("a", batch.Patient)
		b.pass(time.Millisecond)
		b.refused(fifth, attest.CodeAttesterFailed, down)
		b.refused(queued, attest.CodeAttesterBroken, down)
		b.refused(patient, attest.CodeAttesterBroken, down)
		for _, pause := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
			b.pass(pause*time.Second - time.Millisecond)
			quotes := b.hw.quotes()
			b.refused(b.start("a", batch.Now), attest.CodeAttesterBroken, down)
			if s := b.Stats(); s.Breaker != batch.Open || b.hw.quotes() != quotes {
				t.Fatalf("pause of %d s: %+v", pause, s)
			}
			b.pass(time.Millisecond)
			if s := b.Stats(); s.Breaker != batch.HalfOpen {
				t.Fatalf("pause of %d s: %+v", pause, s)
			}
			trial := b.start("a", batch.Now)
			joins := b.start("a", batch.Now)
			b.pass(time.Millisecond)
			b.refused(trial, attest.CodeAttesterFailed, down)
			b.refused(joins, attest.CodeAttesterBroken, down)
		}
		b.pass(30 * time.Second)
		b.hw.set(nil)
		trial, joins := b.start("a", batch.Now), b.start("a", batch.Now)
		b.pass(2 * time.Millisecond)
		b.served(trial)
		b.served(joins)
		if s := b.Stats(); s.Breaker != batch.Closed {
			t.Fatalf("%+v", s)
		}
		// From the beginning: five failures, and a pause of one second.
		b.hw.set(func(context.Context, int) error { return down })
		for range 5 {
			if s := b.Stats(); s.Breaker != batch.Closed {
				t.Fatalf("%+v", s)
			}
			b.start("a", batch.Now)
			b.pass(time.Millisecond)
		}
		b.pass(time.Second - time.Millisecond)
		if s := b.Stats(); s.Breaker != batch.Open {
			t.Fatalf("%+v", s)
		}
		b.pass(time.Millisecond)
		if s := b.Stats(); s.Breaker != batch.HalfOpen {
			t.Fatalf("%+v", s)
		}
	})
}

func TestClose(t *testing.T) {
	bubble(t, &hardware{takes: time.Second}, batch.Options{}, func(t *testing.T, b *bench) {
		inFlight, queued, patient := b.start("a", batch.Now), b.start("a", batch.Now), b.start("b", batch.Patient)
		b.Close()
		b.Close()
		synctest.Wait()
		for _, c := range []*call{inFlight, queued, patient, b.start("a", batch.Now), b.start("a", batch.Patient)} {
			b.refused(c, attest.CodeAttesterFailed, batch.ErrClosed)
			if c.took != 0 {
				t.Fatal("Close waits")
			}
		}
		b.pass(2 * time.Second)
		if s := b.Stats(); s.Quotes != 1 || s.Failures != 0 || s.Sessions != 0 || s.Waiting != 0 {
			t.Fatalf("%+v", s)
		}
	})
	t.Run("the attester is told", func(t *testing.T) {
		hw := &hardware{fail: func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() }}
		bubble(t, hw, batch.Options{QuoteTimeout: time.Hour}, func(t *testing.T, b *bench) {
			c := b.start("a", batch.Now)
			b.Close()
			synctest.Wait()
			b.refused(c, attest.CodeAttesterFailed, batch.ErrClosed)
			if hw.inFlight != 0 {
				t.Fatal("the attester still works for nobody")
			}
		})
	})
	t.Run("while the attester hangs", func(t *testing.T) {
		hw := &hardware{takes: time.Hour}
		bubble(t, hw, batch.Options{QuoteTimeout: time.Second}, func(t *testing.T, b *bench) {
			c := b.start("a", batch.Now)
			b.pass(2 * time.Second)
			b.Close()
			b.refused(c, attest.CodeAttesterFailed, nil)
			b.refused(b.start("a", batch.Now), attest.CodeAttesterFailed, batch.ErrClosed)
		})
	})
}

func TestStats(t *testing.T) {
	bubble(t, &hardware{takes: 40 * time.Millisecond}, batch.Options{}, func(t *testing.T, b *bench) {
		b.start("a", batch.Now)
		b.pass(20 * time.Millisecond)
		b.start("a", batch.Now)
		b.pass(time.Second)
		got, err := json.Marshal(b.Stats())
		want := `{"quotes":2,"failures":0,"sessions":2,"crowded":0,"refused":0,"waiting":0,"largest_batch":1,"breaker":"closed",` +
			`"wait":{"count":2,"sum":0.1,"max":0.06,"buckets":[0,0,0,0,1,2,2,2,2,2,2,2]},` +
			`"quote":{"count":2,"sum":0.08,"max":0.04,"buckets":[0,0,0,0,2,2,2,2,2,2,2,2]}}`
		if err != nil || string(got) != want {
			t.Errorf("%v\n%s\n%s", err, got, want)
		}
	})
}

// Whatever comes and goes: every ticket leads to what the hardware signed, there is one quote at a time, and an urgent leaf
// is in the first quote that begins after it came.
func TestArrivals(t *testing.T) {
	synctest.Test(t, func(outer *testing.T) {
		// rapid asks a testing.T for its deadline, which one in a bubble does not give.
		rapid.Check(struct{ rapid.TB }{outer}, func(t *rapid.T) {
			failing := rapid.IntRange(0, 3).Draw(t, "failing")
			hw := &hardware{takes: time.Duration(rapid.IntRange(0, 50).Draw(t, "takes")) * time.Millisecond}
			hw.fail = func(_ context.Context, call int) error {
				if failing > 0 && call%4 < failing {
					return errors.New("busy")
				}
				return nil
			}
			b := &bench{Batcher: batch.New(hw, bind, batch.Options{Patience: 30 * time.Millisecond, Pause: time.Millisecond}), t: t, hw: hw}
			type arrival struct {
				*call
				quote    int // that it has to be in
				urgency  batch.Urgency
				deadline time.Duration
				left     bool
			}
			var all []*arrival
			for range rapid.IntRange(1, 60).Draw(t, "steps") {
				switch rapid.IntRange(0, 5).Draw(t, "step") {
				case 0, 1, 2:
					a := &arrival{quote: hw.quotes() + 1, urgency: batch.Urgency(rapid.IntRange(0, 1).Draw(t, "urgency")), deadline: time.Hour}
					if rapid.Bool().Draw(t, "hurried") {
						a.deadline = time.Duration(rapid.IntRange(1, 60).Draw(t, "deadline"))*time.Millisecond + time.Microsecond
					}
					ctx, cancel := context.WithTimeout(context.Background(), a.deadline)
					defer cancel()
					a.call = b.startIn(ctx, rapid.StringMatching("[a-d]").Draw(t, "peer"), a.urgency)
					all = append(all, a)
					synctest.Wait()
				case 3:
					if len(all) > 0 {
						a := all[rapid.IntRange(0, len(all)-1).Draw(t, "who")]
						a.left = a.left || !a.over()
						a.cancel(nil)
						synctest.Wait()
					}
				default:
					b.pass(time.Duration(rapid.IntRange(1, 40).Draw(t, "pass")) * time.Millisecond)
				}
			}
			b.pass(200 * time.Millisecond) // patience, the quote in flight, the own one
			served := uint64(0)
			for _, a := range all {
				code := attest.CodeOf(a.err)
				switch {
				case !a.over():
					t.Fatalf("leaf %d waits", a.n)
				case a.err == nil:
					served++
					if got := b.served(a.call); got < a.quote || a.urgency == batch.Now && got != a.quote {
						t.Fatalf("leaf %d came in quote %d, want %d", a.n, got, a.quote)
					}
					if limit := 2*hw.takes + 30*time.Millisecond; a.took > limit || a.took > a.deadline {
						t.Fatalf("leaf %d waited for %s", a.n, a.took)
					}
				case a.left && errors.Is(a.err, context.Canceled):
				case code == attest.CodeTimeout && a.took == a.deadline:
				case failing > 0 && (code == attest.CodeAttesterFailed || code == attest.CodeAttesterBroken):
				default:
					t.Fatalf("leaf %d: %v", a.n, a.err)
				}
			}
			s := b.Stats()
			if hw.overlapped() || s.Sessions != served || s.Waiting != 0 || s.Quotes != uint64(hw.quotes()) || s.Quote.Count != s.Quotes {
				t.Fatalf("overlap %t, %d served, %+v", hw.overlapped(), served, s)
			}
			b.Close()
			synctest.Wait()
		})
	})
}

// The same in real time, for the race detector.
func TestRace(t *testing.T) {
	hw := &hardware{}
	b := batch.New(hw, bind, batch.Options{Queue: 32, MaxBatch: 8, Patience: time.Microsecond})
	var all sync.WaitGroup
	for g := range 64 {
		all.Go(func() {
			for i := range 50 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(10+i%7*100)*time.Microsecond)
				l := leaf(g*1000 + i)
				ticket, err := b.Attest(ctx, strconv.Itoa(g%5), l, batch.Urgency(i%2))
				cancel()
				switch code := attest.CodeOf(err); {
				case err == nil:
					if _, err := check(ticket, l); err != nil {
						t.Error(err)
					}
				case code != attest.CodeTimeout && code != attest.CodeCrowded:
					t.Error(err)
				}
				b.Stats()
			}
		})
	}
	all.Wait()
	b.Close()
	if hw.overlapped() {
		t.Error("two quotes in flight")
	}
	t.Logf("%+v", b.Stats())
}

// One session's share of the work where every quote is for 256 and the hardware takes no time.
func BenchmarkBatch(b *testing.B) {
	const sessions = 256
	instant := attesterFunc(func(_ context.Context, data attest.ReportData) (*attest.Evidence, error) {
		return &attest.Evidence{Format: "test", Raw: data[:]}, nil
	})
	batcher := batch.New(instant, bind, batch.Options{MaxBatch: sessions, Patience: 10 * time.Millisecond})
	defer batcher.Close()
	b.SetParallelism(sessions / runtime.GOMAXPROCS(0))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := batcher.Attest(context.Background(), "peer", leaf(1), batch.Patient); err != nil {
				b.Error(err)
			}
		}
	})
	s := batcher.Stats()
	b.ReportMetric(float64(s.Sessions)/float64(s.Quotes), "sessions/quote")
}
