package session_test

import (
	"context"
	"crypto/tls"
	"flag"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/merkle"
	"github.com/jurat-tls/jurat/ratls/batch"
	"github.com/jurat-tls/jurat/ratls/cmw"
	"github.com/jurat-tls/jurat/ratls/session"
)

var openConns = flag.Int("open", 200, "connections of TestManyOpen; make soak opens 10000")

// batched is a prover whose sessions share quotes, of an engine that makes one after the other and takes its time.
type batched struct {
	*prover
	batcher *batch.Batcher
}

func (b *batched) Attest(ctx context.Context, peer string, leaf merkle.Hash, patient bool) (*cmw.Session, error) {
	urgency := batch.Now
	if patient {
		urgency = batch.Patient
	}
	t, err := b.batcher.Attest(ctx, peer, leaf, urgency)
	if err != nil {
		return nil, err
	}
	return &cmw.Session{Evidence: t.Evidence, Config: b.config, Size: t.Size, Index: t.Index, Proof: t.Proof}, nil
}

// engine notes when it made a quote.
type engine struct {
	*hardware
	mu   sync.Mutex
	made []time.Time
}

func (e *engine) Attest(ctx context.Context, data attest.ReportData) (*attest.Evidence, error) {
	e.mu.Lock()
	e.made = append(e.made, time.Now())
	e.mu.Unlock()
	time.Sleep(39 * time.Millisecond)
	return e.hardware.Attest(ctx, data)
}

// since are the quotes begun after a time, and the most of them within a second.
func (e *engine) since(begin time.Time) (quotes, most int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	from, _ := slices.BinarySearchFunc(e.made, begin, time.Time.Compare)
	all := e.made[from:]
	for i, at := range all {
		end, _ := slices.BinarySearchFunc(all, at.Add(time.Second), time.Time.Compare)
		most = max(most, end-i)
	}
	return len(all), most
}

// Any number of open connections is attested anew each minute with at most two quotes in a second.
func TestManyOpen(t *testing.T) {
	const period = time.Minute
	n := *openConns
	synctest.Test(t, func(t *testing.T) {
		hw := &engine{hardware: newHardware(t)}
		p := &batched{prover: newProver(t, hw)}
		p.batcher = batch.New(hw, func(size uint64, root merkle.Hash) attest.ReportData {
			return session.ReportData(size, root, p.config)
		}, batch.Options{})
		defer p.batcher.Close()
		v := &verifier{appraiser: attest.NewAppraiser(attest.NoEndorser{}, attest.NewMemo(hw)), now: time.Now, policy: accept}
		var affirmed, refused, broken, hasty atomic.Int64
		options := func() session.Options {
			var last time.Time
			return session.Options{Reattest: period, OnReattest: func(r *attest.Result) {
				if r.Affirmed() {
					affirmed.Add(1)
				} else {
					refused.Add(1)
				}
				if made := r.EvidenceTime(); made.Sub(last) < period {
					hasty.Add(1)
				} else {
					last = made
				}
			}}
		}
		goroutines, memory := runtime.NumGoroutine(), inUse()
		conns := make([]*session.Conn, 2*n)
		var opening, reading sync.WaitGroup
		for i := range n {
			opening.Go(func() {
				s := setup{serverProver: p, clientVerify: v, clientOpts: options()}
				s.client, s.server = piped(t, p.tls)
				c, srv := s.run(t)
				if c.err != nil || srv.err != nil {
					t.Error(c.err, srv.err)
					return
				}
				for j, conn := range []*session.Conn{c.conn, srv.conn} {
					conns[2*i+j] = conn
					reading.Go(func() {
						if _, err := io.Copy(io.Discard, conn); err != nil {
							broken.Add(1)
						}
					})
				}
			})
			time.Sleep(period / time.Duration(n))
		}
		opening.Wait()
		if t.Failed() {
			return
		}
		synctest.Wait()
		goroutines, memory = runtime.NumGoroutine()-goroutines, inUse()-memory
		time.Sleep(5 * time.Second) // quotes of the setup are over
		begin, before := time.Now(), affirmed.Load()
		const periods = 3
		time.Sleep(periods * period)
		got := affirmed.Load() - before
		quotes, most := hw.since(begin)
		t.Logf("%d connections for %s: %d attested anew with %d quotes (%.2f/s, at most %d in a second), %d refused, %d broken; %d goroutines and %d KB for each connection, both ends",
			n, periods*period, got, quotes, float64(quotes)/(periods*period).Seconds(), most, refused.Load(), broken.Load(), goroutines/n, memory/int64(n)>>10)
		// Each waits for its period, and then for company and for a quote: up to two seconds in each period. Those that share the quote
		// at one edge of the time come on top: none of them comes sooner than after its period.
		edge := int64(n) * int64(2*time.Second) / int64(period)
		if want := int64(n) * periods; got > want+edge || got < want*int64(period)/int64(period+2*time.Second)-int64(n)/10 {
			t.Errorf("attested anew %d times of %d", got, want)
		}
		if hasty.Load() > 0 {
			t.Errorf("%d were asked before their period was over", hasty.Load())
		}
		if most > 2 || refused.Load() > 0 || broken.Load() > 0 {
			t.Error("too many quotes, or failures")
		}
		for _, c := range conns {
			_ = c.Close()
		}
		reading.Wait()
	})
}

// inUse is the memory that objects and stacks take.
func inUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// piped is two ends of TLS, with the handshake done, without a socket.
func piped(t *testing.T, cert tls.Certificate) (client, server *tls.Conn) {
	a, b := net.Pipe()
	client = tls.Client(a, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{session.ALPN}})
	server = tls.Server(b, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, NextProtos: []string{session.ALPN}})
	failed := make(chan error, 1)
	go func() { failed <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Error(err)
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
	return client, server
}
